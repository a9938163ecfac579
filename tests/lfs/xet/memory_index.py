"""An index in memory: xorbs, files, links and marks in dicts."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from lfs.errors import BadToken, Busy, ObjectAbsent, QuotaExceeded, RepoAbsent
from lfs.xet.hashes import text
from lfs.xet.index import File, Filing, Granted, Leave, Marked, Xorb

DOMAIN, OTHER = f"{1:032x}", f"{2:032x}"
ANN = Leave(1, 1, DOMAIN, "write", 1 << 40)
"""May write in repo 1."""
DAY = 24 * 3600
PROMISE, WEEK, KEPT = 28 * DAY, 7 * DAY, 28 * DAY

State = Literal["live", "condemned", "deleting", "quarantined"]
LinkState = Literal["declared", "proven", "refuted"]


@dataclass(slots=True)
class Kept:
    """A xorb with what becomes of it; `promised` is in Unix seconds."""

    xorb: Xorb
    state: State = "live"
    promised: float = 0.0


@dataclass(slots=True)
class MemoryIndex:
    """Repos are `{id: domain}`, links `{(repo, file, sha256): state}`; `clock` tells Unix seconds.

    `xorbs` are by hash, `shown` says which domains may name them. All repos are of one namespace: `arrivals` are the
    bytes by xorb that it brought and did not file, and until when they count against its `quota`.
    """

    repos: dict[int, str] = field(default_factory=lambda: {1: DOMAIN, 2: DOMAIN, 3: OTHER})
    refused_actors: set[int] = field(default_factory=set)
    generations: dict[str, int] = field(default_factory=dict)
    renewed: dict[str, float] = field(default_factory=dict)
    quota: int = 1 << 80
    xorbs: dict[bytes, Kept] = field(default_factory=dict)
    shown: set[tuple[str, bytes]] = field(default_factory=set)
    files: dict[bytes, File] = field(default_factory=dict)
    links: dict[tuple[int, bytes, str], LinkState] = field(default_factory=dict)
    marks: dict[tuple[str, bytes], tuple[bytes, bytes]] = field(default_factory=dict)
    grants: dict[str, Granted] = field(default_factory=dict)
    arrivals: dict[bytes, tuple[int, float]] = field(default_factory=dict)
    keys: dict[tuple[str, int], bytes] = field(default_factory=dict)
    clock: Callable[[], float] = time.time
    mutex: threading.RLock = field(default_factory=threading.RLock)

    def enter(self, leave: Leave, generation: int) -> None:
        if leave.repo_id not in self.repos:
            raise RepoAbsent("The repository is gone.")
        if leave.actor_id in self.refused_actors or self.repos[leave.repo_id] != leave.domain:
            raise BadToken("This Xet token holds no more; ask for a new one.")
        if generation > self.generations.get(leave.domain, 0):
            raise ObjectAbsent("There is no such generation; ask for a new token.")

    def renew(self, domain: str) -> None:
        with self.mutex:
            if domain not in self.renewed or self.renewed[domain] <= self.clock() - 600:
                self.generations[domain] = self.generations.get(domain, 0) + 1
                self.renewed[domain] = self.clock()

    def live(self, domain: str, hashes: Collection[bytes]) -> Mapping[bytes, Xorb]:
        with self.mutex:
            return {hash: self.xorbs[hash].xorb for hash in hashes if self._usable(domain, hash)}

    def check(self, leave: Leave, hash: bytes, size: int) -> None:
        with self.mutex:
            if not self._needed(hash):
                self._fit(size - self._counted(hash))

    def keep(self, leave: Leave, xorb: Xorb) -> Xorb:
        with self.mutex:
            self.check(leave, xorb.hash, xorb.size)
            self._alive(leave)
            kept = self.xorbs.get(xorb.hash)
            if kept is None:
                kept = self.xorbs[xorb.hash] = Kept(xorb)
            elif kept.state in ("deleting", "quarantined") and kept.xorb.key == xorb.key:
                raise Busy("This xorb is being replaced at this moment; send it again in a few seconds.")
            elif kept.state != "live":
                kept.xorb, kept.state = xorb, "live"
            kept.promised = self.clock() + PROMISE
            self.shown.add((leave.domain, xorb.hash))
            brought = self.arrivals.pop(xorb.hash, (0, 0.0))[1] > self.clock() + 3600
            if brought or not self._needed(xorb.hash):
                self.arrivals[xorb.hash] = xorb.size, self.clock() + KEPT
            return kept.xorb

    def promise(self, domain: str, hashes: Collection[bytes]) -> None:
        with self.mutex:
            for hash in hashes:
                if self._usable(domain, hash):
                    self._revive(hash)

    def grant(self, leave: Leave, granted: Granted) -> None:
        with self.mutex:
            self._alive(leave)
            self._fit(granted.length)
            until = max(granted.expires, self.arrivals.get(granted.hash, (0, 0.0))[1])
            self.arrivals[granted.hash] = self._counted(granted.hash) + granted.length, until
            self.grants[granted.id] = granted

    def granted(self, id: str) -> Granted:
        found = self.grants.get(id)
        if found is None or found.expires <= self.clock():
            raise ObjectAbsent("This grant is unknown or has expired; ask for a new one.")
        return found

    def drop_grant(self, id: str) -> None:
        self.grants.pop(id, None)

    def file(self, leave: Leave, filings: Sequence[Filing], shard: str, length: int = 0) -> bool:
        with self.mutex:
            self._alive(leave)
            named = {part.xorb for filing in filings for part in filing.file.parts()}
            if gone := sorted(hash for hash in named if not self._usable(leave.domain, hash)):
                oids = [text(hash) for hash in gone]
                raise ObjectAbsent(f"{len(gone)} xorbs are not here any more; upload the files again.", oids=oids)
            news = [self._is_new(leave.repo_id, filing) for filing in filings]
            own = [one.file for one in filings if one.sha256 and self._is_own(one.file)]
            counting = self._whole([*own, *self._counting()]) & {part.xorb for file in own for part in file.parts()}
            more = {
                one.sha256 or text(one.file.hash): one.file.size for one, new in zip(filings, news, strict=True) if new
            }
            excess = max(0, length - sum({one.file.hash: one.file.size for one in filings}.values()))
            noted = sum(map(self._counted, counting)) + self._counted(bytes.fromhex(shard)) * (excess > 0)
            self._fit(sum(more.values()) + excess, released=noted)
            for hash in counting:
                self.arrivals.pop(hash, None)
            if excess:
                self.arrivals[bytes.fromhex(shard)] = excess, self.clock() + KEPT
            stored = [self._store(filing.file) for filing in filings]
            for filing in filings:
                self._file(leave, filing)
            return any(news + stored)

    def find(self, repo_id: int, hash: bytes) -> File | None:
        with self.mutex:
            states = {state for (repo, file, _), state in self.links.items() if (repo, file) == (repo_id, hash)}
        return self.files[hash] if states - {"refuted"} else None

    def whole(self, hash: bytes) -> File | None:
        return self.files.get(hash)

    def located(self, hashes: Collection[bytes]) -> Mapping[bytes, Xorb]:
        with self.mutex:
            found = {hash: self.xorbs[hash] for hash in hashes if hash in self.xorbs}
        return {hash: kept.xorb for hash, kept in found.items() if kept.state in ("live", "condemned")}

    def around(self, domain: str, chunk: bytes) -> Marked | None:
        with self.mutex:
            mark = self.marks.get((domain, chunk))
            return None if mark is None else Marked(self.files[mark[0]], mark[1])

    def answer_key(self, domain: str, week: int) -> tuple[bytes, int]:
        with self.mutex:
            key = self.keys.setdefault((domain, week), secrets.token_bytes(31) + b"\x01")
        return key, (week + 1) * WEEK

    def quarantine(self, hash: bytes, key: str, why: str = "has other bytes") -> None:
        with self.mutex:
            kept = self.xorbs.get(hash)
            if kept is not None and kept.xorb.key == key:
                kept.state = "quarantined"

    def count_again(self, file: bytes) -> None:
        """Count what a refuted file is made of, unless it is linked by a truth as well."""
        if self.files[file] not in self._counting():
            for hash in {part.xorb for part in self.files[file].parts()}:
                self.arrivals.setdefault(hash, (self.xorbs[hash].xorb.size, self.clock() + KEPT))

    def reserved(self) -> int:
        """Return the bytes that count and no file names yet."""
        return sum(map(self._counted, self.arrivals))

    def expired(self, id: str) -> None:
        """Let a grant run out."""
        self.grants[id] = replace(self.grants[id], expires=0)

    def _alive(self, leave: Leave) -> None:
        if leave.repo_id not in self.repos:
            raise RepoAbsent("The repository is gone.")

    def _needed(self, hash: bytes) -> bool:
        return any(part.xorb == hash for file in self._counting() for part in file.parts())

    def _counting(self) -> list[File]:
        links = self.links.items()
        return [self.files[file] for (_, file, sha256), state in links if sha256 and state != "refuted"]

    def _whole(self, files: Sequence[File]) -> set[bytes]:
        """Return the xorbs of which these files have every chunk."""
        had: dict[bytes, set[int]] = {}
        for part in (part for file in files for part in file.parts()):
            had.setdefault(part.xorb, set()).update(range(part.start, part.end))
        return {hash for hash, chunks in had.items() if len(chunks) >= self.xorbs[hash].xorb.chunks}

    def _counted(self, hash: bytes) -> int:
        size, until = self.arrivals.get(hash, (0, 0.0))
        return size if until > self.clock() else 0

    def _fit(self, asked: int, *, released: int = 0) -> None:
        states = self.links.items()
        linked = {
            (repo, sha256 or text(file)): self.files[file].size
            for (repo, file, sha256), state in states
            if state != "refuted"
        }
        if asked > 0 and sum(linked.values()) + self.reserved() - released + asked > self.quota:
            raise QuotaExceeded(f"The namespace may hold {self.quota} bytes; delete something first.")

    def _usable(self, domain: str, hash: bytes) -> bool:
        return (domain, hash) in self.shown and self.xorbs[hash].state in ("live", "condemned")

    def _revive(self, hash: bytes) -> None:
        kept = self.xorbs[hash]
        kept.state, kept.promised = "live", self.clock() + PROMISE

    def _store(self, file: File) -> bool:
        """Keep a file, unless it is here by terms that can be served and are not scattered; True if it was not."""
        kept = self.files.get(file.hash, file)
        named = {part.xorb for part in kept.parts()}
        whole = all(hash in self.xorbs and self.xorbs[hash].state in ("live", "condemned") for hash in named)
        whole &= kept == file or not self._is_own(file)
        new = file.hash not in self.files or not whole
        self.files[file.hash] = kept if whole else file
        for hash in named | {part.xorb for part in file.parts()}:
            if hash in self.xorbs and self.xorbs[hash].state in ("live", "condemned"):
                self._revive(hash)
        return new

    def _is_own(self, file: File) -> bool:
        """Whether a file is kept by these terms, or will be as they are far fewer."""
        kept = self.files.get(file.hash, file)
        return kept == file or 4 * len(file.terms) <= len(kept.terms)

    def _is_new(self, repo_id: int, filing: Filing) -> bool:
        return self.links.get((repo_id, filing.file.hash, filing.sha256)) in (None, "refuted")

    def _file(self, leave: Leave, filing: Filing) -> None:
        hash = filing.file.hash
        if self._is_new(leave.repo_id, filing):
            self.links[leave.repo_id, hash, filing.sha256] = "declared"
        self.marks |= {(leave.domain, chunk): (hash, xorb) for chunk, xorb in filing.marks}
