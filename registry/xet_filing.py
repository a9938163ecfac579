"""Shards → files, links, marks: one transaction for each shard, or for each group of its files if there are many.

    file   new, or known with chunks that all can be served: the terms that stand first stay
           known with a chunk that cannot, or in four times as many pieces: kept by the terms of this shard from now on
    link   declared; with a SHA-256 also an upload that waits for its proof: `xet_links`
    mark   the newest file wins: the next version of a file is most like the last

The quota and the xorbs are judged for the whole shard before anything of it is written. A death between two groups
leaves files whose links are declared: they are proven as any, and who files the shard again finds them there.

Locks are taken in the order repos, namespaces, arrivals, files, xorbs, marks, each kind by rising key, so that no two
transactions wait for each other. A sweeper that locks a xorb before it condemns it is waited for here, or waits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection

from lfs.xet.hashes import text
from lfs.xet.index import File, Filing, Leave
from registry.db import Database, now
from registry.errors import ObjectAbsent, RepoAbsent
from registry.links import insert_unless_there, parts_of
from registry.prepared import Prepared
from registry.quota import Quotas
from registry.tables.repos import repos
from registry.tables.xet import xet_file_xorbs, xet_files, xet_marks, xet_xorb_domains
from registry.xet_arrivals import XetArrivals
from registry.xet_covered import XetCovered, xorbs_of
from registry.xet_links import XetLinks
from registry.xet_xorbs import Xorbs

TOGETHER = 1_000
"""Files of one transaction: 0.15 to 0.2 s of SQLite's one writer (2026-11, 2 cores)."""
PAUSE = 0.1
"""Seconds between two groups, as often as those who wait for SQLite's writer look for it. Of three other processes that
wrote beside 20,000 files one waited 1.9 s of 2.4 s without it, and 0.4 s with it. PostgreSQL needs none."""

FEWER = 4
"""How many times fewer terms a file is kept by in place of its own. All who bring a file share one, and who was first
may have strewn it over many xorbs, so that nobody reads it well. Steps are so large that a file takes few of them."""

_HOME = (
    sa.select(repos.c.namespace_id)
    .where(repos.c.id == sa.bindparam("repo"), repos.c.deleted_at.is_(None))
    .with_for_update()
)
_LOCKED = (
    sa.select(xet_files.c.hash, xet_files.c.size, xet_files.c.terms)
    .where(xet_files.c.hash.in_(sa.bindparam("hashes", expanding=True)))
    .order_by(xet_files.c.hash)
    .with_for_update(key_share=True)
)
_TERMS = sa.select(xet_files.c.hash, xet_files.c.size, xet_files.c.terms).where(
    xet_files.c.hash.in_(sa.bindparam("hashes", expanding=True))
)
_KNOWN = sa.select(xet_files.c.hash).where(xet_files.c.hash.in_(sa.bindparam("hashes", expanding=True)))


class XetFiling:
    """Files shards. Thread-safe, among processes too."""

    def __init__(
        self,
        database: Database,
        quotas: Quotas,
        arrivals: XetArrivals,
        xorbs: Xorbs,
        *,
        clock: Callable[[], datetime] = now,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._db = database
        self._rooms = _Rooms(database, quotas, arrivals, xorbs)
        self._clock = clock
        self._sleep = sleep

    def file(
        self, leave: Leave, filings: Sequence[Filing], shard: str, length: int = 0, *, showing: bool = False
    ) -> bool:
        """File what a shard names; False if all of it was there before.

        Up to `TOGETHER` files are filed all or not at all, more of them group by group. Files that are made or mended
        name the `shard`, which counts by what its `length` is beyond the bytes of all files. With `showing` the domain
        may name from now on those xorbs of which the files have every chunk; else it has to name all of them before.
        Raises: RepoAbsent, QuotaExceeded, ObjectAbsent (a xorb is not live in this domain any more; names them).
        """
        told = self._told(leave, filings, shard, length, showing=showing)
        if len(filings) > TOGETHER:
            self._judge(leave, filings, told)
            # Neighbours in the tables, so that a group writes half the pages: 380 MiB for 40,000 files, not 810.
            filings = sorted(filings, key=lambda one: one.file.hash)
        groups = [filings[at : at + TOGETHER] for at in range(0, max(1, len(filings)), TOGETHER)]
        named = [xorbs_of(filing.file for filing in group) for group in groups]
        last = {xorb: number for number, xorbs in enumerate(named) for xorb in xorbs}
        changed = False
        for number, group in enumerate(groups):
            if number and self._db.sqlite:
                self._sleep(PAUSE)
            ended = {xorb for xorb in named[number] if last[xorb] == number}
            with self._db.write() as connection:
                run = _Transaction(connection, self._rooms, self._clock(), leave, group, told)
                # The first answers for all that the shard names.
                changed |= run.run(named[number] if number else last.keys(), ended, first=number == 0)
        return changed

    def _told(self, leave: Leave, filings: Sequence[Filing], shard: str, length: int, *, showing: bool) -> _Told:
        files = {filing.file.hash: filing.file for filing in filings}
        counting = self._rooms.covered.counting(leave, self._counting(filings))
        shown = self._rooms.covered.whole(files.values()) if showing else None
        return _Told(shard, max(0, length - sum(file.size for file in files.values())), counting, shown)

    def _counting(self, filings: Sequence[Filing]) -> list[File]:
        """Return the files that count as an object, and are kept by the terms that are told.

        One that is here by others is not made of the xorbs that are named, unless it takes these terms.
        """
        files = {filing.file.hash: filing.file for filing in filings if filing.sha256}
        others = {
            bytes(row.hash): File(bytes(row.hash), row.size, bytes(row.terms))
            for part in parts_of(files)
            for row in self._rooms.terms.every({"hashes": part})
            if bytes(row.terms) != files[bytes(row.hash)].terms
        }
        sound = self._rooms.xorbs.located(xorbs_of(others.values())).keys()
        return [
            file
            for hash, file in files.items()
            if hash not in others or _is_better(file, others[hash].terms) or not xorbs_of([others[hash]]) <= sound
        ]

    def _judge(self, leave: Leave, filings: Sequence[Filing], told: _Told) -> None:
        """Look whether the whole of a shard has room; each group is judged again. Raises: QuotaExceeded."""
        usage = self._rooms.quotas.look(leave.repo_id)
        if usage is not None:
            with self._db.read() as connection:
                opening = self._rooms.links.look(connection, leave, filings, self._clock())
            arrivals = self._rooms.arrivals
            opening.check(
                usage.without(arrivals.counted(leave, told.replaced)),
                more=max(0, told.excess - arrivals.counted(leave, told.own)),
            )


@dataclass(frozen=True, slots=True)
class _Told:
    """A shard as a whole, whichever of its groups is filed."""

    shard: str
    excess: int
    """The bytes of it that no file counts for."""
    replaced: Collection[bytes]
    """Xorbs that count, and in whose place its files will."""
    shown: Collection[bytes] | None
    """Xorbs that the domain may name from now on; None if it may name all of them."""

    @property
    def own(self) -> list[bytes]:
        """The name by which its own bytes count, if any do."""
        return [bytes.fromhex(self.shard)] if self.excess else []


class _Rooms:
    """What every filing asks, made and compiled once."""

    def __init__(self, database: Database, quotas: Quotas, arrivals: XetArrivals, xorbs: Xorbs) -> None:
        self.quotas = quotas
        self.arrivals = arrivals
        self.xorbs = xorbs
        self.links = XetLinks(database)
        self.covered = XetCovered(database, arrivals)
        self.home = database.prepare(_HOME)
        self.locked = database.prepare(_LOCKED)
        self.known = database.prepare(_KNOWN)
        self.terms = database.prepare(_TERMS)
        self.new_files = database.prepare_insert(xet_files, unless_there=True)
        self.new_needs = database.prepare_insert(xet_file_xorbs, unless_there=True)


class _Transaction:
    """Files of one shard on their way into the rows."""

    def __init__(
        self,
        connection: Connection,
        rooms: _Rooms,
        moment: datetime,
        leave: Leave,
        filings: Sequence[Filing],
        told: _Told,
    ) -> None:
        self._connection = connection
        self._rooms = rooms
        self._moment = moment
        self._leave = leave
        self._filings = filings
        self._told = told
        self._shard = told.shard
        # Each file once, whatever is said of it.
        self._files = {filing.file.hash: filing.file for filing in filings}
        self._marks = {chunk: (filing.file.hash, xorb) for filing in filings for chunk, xorb in filing.marks}

    def run(self, named: Collection[bytes], ended: Collection[bytes], *, first: bool) -> bool:
        """File them, if the xorbs that are `named` are here. Those that `ended` are in no later group.

        These count no more if the files do in their place. Others are judged as if they counted no more, and do until
        their last group: if that never comes, they stand for files that are not here.
        """
        homes = self._rooms.home.within(self._connection, {"repo": self._leave.repo_id})
        if not homes:
            raise RepoAbsent("The repository is gone.")
        opening = self._rooms.links.look(self._connection, self._leave, self._filings, self._moment)
        usage = self._rooms.quotas.held(self._connection, homes[0].namespace_id)
        gone = [xorb for xorb in self._told.replaced if xorb in ended]
        arrivals, released = self._rooms.arrivals, 0
        if usage is not None:
            released = arrivals.counted(self._leave, self._told.replaced, within=self._connection)
            noted = arrivals.counted(self._leave, self._told.own, within=self._connection)
            opening.check(usage.without(released), more=max(0, self._told.excess - noted) if first else 0)
        arrivals.release(self._connection, self._leave, gone)
        for own in self._told.own if first else ():
            arrivals.add(self._connection, self._leave, own, self._told.excess)
        stored = self._store(named, ended)
        opened = self._rooms.links.open(self._connection, opening)
        self._mark()
        return stored or opened

    def _store(self, named: Collection[bytes], ended: Collection[bytes]) -> bool:
        """Make the files, lock them and their xorbs, and mend what is not served well; True if anything changed."""
        kept, changed = self._rows()
        sound = self._claim(kept, named)
        if self._told.shown is not None:
            self._show([xorb for xorb in self._told.shown if xorb in ended and xorb in sound])
        for hash, file in self._files.items():
            if _is_better(file, kept[hash].terms) or not (kept[hash] == file or xorbs_of([kept[hash]]) <= sound):
                here = xet_files.c.hash == hash
                mended = {"size": file.size, "terms": file.terms, "shard": self._shard}
                self._connection.execute(sa.update(xet_files).where(here).values(mended))
                self._connection.execute(sa.delete(xet_file_xorbs).where(xet_file_xorbs.c.file == hash))
                kept[hash] = file
                changed.add(hash)
        needs = sorted((hash, xorb) for hash in changed for xorb in xorbs_of([kept[hash]]))
        self._rooms.new_needs.put(self._connection, needs)
        return bool(changed)

    def _rows(self) -> tuple[dict[bytes, File], set[bytes]]:
        """Lock the rows of the files, made where there is none; return them, and which were made."""
        made: set[bytes] = set()
        kept: dict[bytes, File] = {}
        new = self._absent(self._hashes(self._rooms.known))
        while len(kept) < len(self._files):
            rows = [(file.hash, file.size, self._shard, self._moment, file.terms) for file in new]
            self._rooms.new_files.put(self._connection, rows)
            made |= {file.hash for file in new}
            found = [row for part in parts_of(self._files) for row in self._within(self._rooms.locked, part)]
            kept = {bytes(row.hash): File(bytes(row.hash), row.size, bytes(row.terms)) for row in found}
            # A row that was there may have been swept since: then it is made in another turn.
            new = self._absent(kept)
        return kept, made

    def _hashes(self, statement: Prepared) -> set[bytes]:
        return {bytes(row.hash) for part in parts_of(self._files) for row in self._within(statement, part)}

    def _within(self, statement: Prepared, hashes: list[bytes]) -> list[Any]:
        return statement.within(self._connection, {"hashes": hashes})

    def _absent(self, known: Collection[bytes]) -> list[File]:
        return [file for hash, file in sorted(self._files.items()) if hash not in known]

    def _claim(self, kept: Mapping[bytes, File], named: Collection[bytes]) -> set[bytes]:
        """Lock, revive and promise the named xorbs and those of the files as they are; return those that are sound.

        Raises: ObjectAbsent (one that is named is not, or not in this domain).
        """
        xorbs, named = self._rooms.xorbs, set(named)
        sound = xorbs.claim(self._connection, named | xorbs_of(kept.values()))
        gone = named - sound
        if self._told.shown is None:
            gone |= named - xorbs.shown(self._connection, self._leave.domain, named)
        if gone:
            raise ObjectAbsent(
                f"{len(gone)} of {len(named)} xorbs of this upload are not stored here any more; upload the files "
                "again.",
                oids=[text(hash) for hash in sorted(gone)],
            )
        return sound

    def _show(self, xorbs: Collection[bytes]) -> None:
        """Let the domain name xorbs of which the files have every chunk, and be led to such alone."""
        rows = [{"domain_id": self._leave.domain, "hash": hash} for hash in sorted(xorbs)]
        insert_unless_there(self._connection, xet_xorb_domains, rows)
        shown = self._told.shown or ()
        self._marks = {chunk: place for chunk, place in self._marks.items() if place[1] in shown}

    def _mark(self) -> None:
        rows = [
            {"domain_id": self._leave.domain, "chunk": chunk, "file": hash, "xorb": xorb}
            for chunk, (hash, xorb) in sorted(self._marks.items())
        ]
        dialect = sqlite if self._connection.dialect.name == "sqlite" else postgresql
        insert = dialect.insert(xet_marks)
        newest = insert.on_conflict_do_update(
            index_elements=["domain_id", "chunk"],
            set_={"file": insert.excluded.file, "xorb": insert.excluded.xorb},
            where=(xet_marks.c.file != insert.excluded.file) | (xet_marks.c.xorb != insert.excluded.xorb),
        )
        if rows:
            self._connection.execute(newest, rows)


def _is_better(file: File, kept: bytes) -> bool:
    """Say whether a file is told in so few pieces that the terms by which it is kept are given up for them."""
    return FEWER * len(file.terms) <= len(kept) and file.terms != kept
