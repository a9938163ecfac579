"""An index of Xet with people and repos around it, in memory and in rows, and what happens there behind its back."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

import sqlalchemy as sa

from lfs.store import file_key
from lfs.xet.hashes import text
from lfs.xet.index import XetIndex
from registry.db import Database
from registry.linking import Linker, Proven
from registry.quota import Quotas
from registry.tables.identity import namespaces, users
from registry.tables.objects import lfs_objects, lfs_uploads
from registry.tables.repos import repos
from registry.tables.xet import xet_arrivals, xet_file_xorbs, xet_links, xet_xorb_domains, xet_xorbs
from registry.uploads import Uploads
from registry.xorbs import XetRows
from tests.lfs.xet.memory_index import DOMAIN, OTHER, MemoryIndex, State
from tests.registry import people

ANN = 1
MINE, TWIN, FAR = 1, 2, 3
"""Repos: two of one domain, and one of another."""


@dataclass
class Clock:
    """Unix seconds that pass when a test says so."""

    now: float = field(default_factory=time.time)

    def __call__(self) -> float:
        return self.now

    def moment(self) -> datetime:
        """The same as the rows want it."""
        return datetime.fromtimestamp(self.now, UTC)


class Ground(Protocol):
    """What the suite does beside asking the index."""

    index: XetIndex
    clock: Clock

    def domain(self, repo: int) -> str:
        """The domain of a repo."""

    def put_state(self, hash: bytes, state: State) -> None:
        """Do to a xorb what upkeep does."""

    def sweep(self, hash: bytes) -> bool:
        """Condemn a xorb that no file needs, whatever was promised, and take it away at once; False if one does."""

    def state(self, hash: bytes) -> str | None:
        """The state of a xorb; None if it is gone."""

    def promised(self, hash: bytes) -> float:
        """Until when a xorb is kept, in Unix seconds."""

    def links(self) -> dict[tuple[int, bytes, str], str]:
        """The states of links, by repo, file and sha256."""

    def settle(self, repo: int, file: bytes, sha256: str, reason: str = "") -> None:
        """Let the proof of a file end, well if there is no reason."""

    def delete_repo(self, repo: int) -> None:
        """Remove a repo."""

    def disable(self, actor: int) -> None:
        """Shut an account."""

    def limit(self, size: int) -> None:
        """Let the repos hold so many bytes."""

    def brought(self) -> int:
        """The bytes that count against the quota and are not filed."""


@dataclass
class MemoryGround:
    """The memory index."""

    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        self.index = MemoryIndex(clock=self.clock)

    def domain(self, repo: int) -> str:
        return {MINE: DOMAIN, TWIN: DOMAIN, FAR: OTHER}[repo]

    def put_state(self, hash: bytes, state: State) -> None:
        self.index.xorbs[hash].state = state

    def sweep(self, hash: bytes) -> bool:
        with self.index.mutex:
            if any(part.xorb == hash for file in self.index.files.values() for part in file.parts()):
                return False
            del self.index.xorbs[hash]
            self.index.shown = {pair for pair in self.index.shown if pair[1] != hash}
            return True

    def state(self, hash: bytes) -> str | None:
        return self.index.xorbs[hash].state if hash in self.index.xorbs else None

    def promised(self, hash: bytes) -> float:
        return self.index.xorbs[hash].promised

    def links(self) -> dict[tuple[int, bytes, str], str]:
        return dict(self.index.links)

    def settle(self, repo: int, file: bytes, sha256: str, reason: str = "") -> None:
        self.index.links[repo, file, sha256] = "refuted" if reason else "proven"
        if reason:
            self.index.count_again(file)

    def delete_repo(self, repo: int) -> None:
        del self.index.repos[repo]

    def disable(self, actor: int) -> None:
        self.index.refused_actors.add(actor)

    def limit(self, size: int) -> None:
        self.index.quota = size

    def brought(self) -> int:
        return self.index.reserved()


@dataclass
class RowsGround:
    """A registry's rows."""

    database: Database
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        people.add_user(self.database, "ann")
        for name, visibility in (("mine", "public"), ("twin", "public"), ("far", "private")):
            people.add_repo(self.database, "ann", name, visibility=visibility)
        self.quotas = Quotas(self.database, clock=self.clock.moment)
        self.uploads = Uploads(self.database, self.quotas, clock=self.clock.moment)
        self.linker = Linker(self.database, self.quotas, clock=self.clock.moment)
        self.index = XetRows(self.database, self.quotas, sharing="namespace", clock=self.clock.moment)

    def domain(self, repo: int) -> str:
        return self.index.domains.domain_for(repo).id

    def put_state(self, hash: bytes, state: State) -> None:
        self._change(sa.update(xet_xorbs).where(xet_xorbs.c.hash == hash).values(state=state))

    def sweep(self, hash: bytes) -> bool:
        here = xet_xorbs.c.hash == hash
        with self.database.write() as connection:
            connection.execute(sa.select(xet_xorbs.c.hash).where(here).with_for_update())
            needed = sa.exists().where(xet_file_xorbs.c.xorb == hash)
            doomed = sa.update(xet_xorbs).where(here, ~needed).values(state="deleting")
            if connection.execute(doomed).rowcount == 0:
                return False
        with self.database.write() as connection:
            connection.execute(sa.delete(xet_xorb_domains).where(xet_xorb_domains.c.hash == hash))
            connection.execute(sa.delete(xet_xorbs).where(here, xet_xorbs.c.state == "deleting"))
        return True

    def state(self, hash: bytes) -> str | None:
        found = self._all(sa.select(xet_xorbs.c.state).where(xet_xorbs.c.hash == hash))
        return str(found[0].state) if found else None

    def promised(self, hash: bytes) -> float:
        row = self._all(sa.select(xet_xorbs.c.promised_until).where(xet_xorbs.c.hash == hash))[0]
        return float(row.promised_until.timestamp())

    def links(self) -> dict[tuple[int, bytes, str], str]:
        return {(row.repo_id, bytes(row.file), row.sha256): row.state for row in self._all(sa.select(xet_links))}

    def settle(self, repo: int, file: bytes, sha256: str, reason: str = "") -> None:
        waiting = self.waiting(repo, sha256)
        (upload,) = [row for row in waiting if row.key == file_key(text(file))]
        if reason:
            self.uploads.fail(upload.id, reason)
        else:
            self.linker.finish(Proven(upload.id, upload.key, upload.oid, upload.size))

    def waiting(self, repo: int, oid: str) -> list[Any]:
        """The uploads of an object that wait for their proof."""
        mine = sa.and_(lfs_uploads.c.repo_id == repo, lfs_uploads.c.oid == oid, lfs_uploads.c.state == "arrived")
        return self._all(sa.select(lfs_uploads).where(mine))

    def objects(self) -> list[Any]:
        """The LFS objects."""
        return self._all(sa.select(lfs_objects))

    def delete_repo(self, repo: int) -> None:
        self.change_repo(repo, deleted_at=self.clock.moment())

    def change_repo(self, repo: int, **values: object) -> None:
        """Set columns of a repo."""
        self._change(sa.update(repos).where(repos.c.id == repo).values(values))

    def disable(self, actor: int) -> None:
        self._change(sa.update(users).where(users.c.id == actor).values(disabled_at=self.clock.moment()))

    def limit(self, size: int) -> None:
        self._change(sa.update(namespaces).values(quota=size))

    def brought(self) -> int:
        counting = xet_arrivals.c.expires_at > self.clock.moment()
        return sum(row.size for row in self._all(sa.select(xet_arrivals.c.size).where(counting)))

    def _change(self, statement: sa.Update) -> None:
        with self.database.write() as connection:
            connection.execute(statement)

    def _all(self, statement: sa.Select[Any]) -> list[Any]:
        with self.database.read() as connection:
            return list(connection.execute(statement).all())
