"""Chunks that follow their repo into another circle, when it is moved, opened or closed; in the same transaction.

What its files and those that stay have is read before that: `xet_ahead`. Inside, the cost is in the rows that change:
20 to 30 µs for each xorb and each mark.

    where it comes   its xorbs may be named, and its files be found, so that later uploads send only what is new
    where it was     the same goes from there at once, if not everybody may read the repo now; else a collection does it

A xorb may hold chunks of several repos, and who may name it can ask for each of them. So it follows a repo only if the
repo's files have all of its chunks; and it stays where it was only if files of the repos that stay have all of them.
Where one goes the domain begins a new generation: its clients forget what they were told, and the shard of one who
remembers is refused as if the xorb had never been there.

Locks are taken in the order of `registry/xet_filing`, which a filing waits for, or is waited for: repo, files, xorbs,
marks domain by domain. Removed rows cost dedup alone: readers go by links.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from types import SimpleNamespace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from registry.db import Database, now
from registry.links import parts_of
from registry.prepared import PreparedInsert
from registry.tables.repos import repos
from registry.tables.xet import xet_domains, xet_files, xet_links, xet_marks, xet_xorb_domains, xet_xorbs
from registry.xet_ahead import CHUNKS, LINKED, Ahead, linked_among, look_ahead
from registry.xet_circles import Circle, Sharing, circle_of, find_domain, is_in, make_domain
from registry.xet_uses import Uses

_Row = tuple[object, ...]

_HOME = sa.select(repos.c.id, repos.c.namespace_id, repos.c.visibility, repos.c.gated)
_LOCK_FILES = sa.select(xet_files.c.hash).where(xet_files.c.hash.in_(LINKED)).order_by(xet_files.c.hash)
_LOCK_XORBS = CHUNKS.order_by(xet_xorbs.c.hash).with_for_update(key_share=True)
_ITS_MARKS = sa.select(xet_marks.c.chunk).where(
    xet_marks.c.domain_id == sa.bindparam("domain"), xet_marks.c.file.in_(LINKED)
)


class Following:
    """Takes along what a repo's circle knows of its chunks. Thread-safe."""

    def __init__(self, database: Database, sharing: Sharing, *, clock: Callable[[], datetime] = now) -> None:
        self._db = database
        self._sharing = sharing
        self._clock = clock
        self._new_xorbs = database.prepare_insert(xet_xorb_domains, unless_there=True)
        self._new_marks = database.prepare_insert(xet_marks, unless_there=True)

    def circle(self, connection: Connection, repo_id: int) -> Circle:
        """Return the circle of a repo. The caller holds the lock of the repo."""
        return circle_of(self._sharing, connection.execute(_HOME.where(repos.c.id == repo_id)).one())

    def ahead(self, repo_id: int, values: Mapping[str, object]) -> Ahead:
        """Read what `follow` will ask, if its row is about to get these values. For who holds no lock yet."""
        with self._db.read() as connection:
            repo = connection.execute(_HOME.where(repos.c.id == repo_id)).one()
            before = circle_of(self._sharing, repo)
            after = circle_of(self._sharing, SimpleNamespace(**{**repo._mapping, **values}))
            return Ahead() if after == before else look_ahead(connection, repo_id, before, after)

    def follow(self, connection: Connection, repo_id: int, before: Circle, ahead: Ahead) -> None:
        """Let the chunks of a repo be found in the circle where it is now, instead of the one where it was.

        The caller has changed the repo's row under its lock. What was not read ahead is not believed.
        """
        after = self.circle(connection, repo_id)
        if after != before:
            change = _Change(connection, repo_id, self._clock(), ahead)
            change.run(before, after, new_xorbs=self._new_xorbs, new_marks=self._new_marks)


class _Change:
    """One repo between two circles."""

    def __init__(self, connection: Connection, repo_id: int, moment: datetime, ahead: Ahead) -> None:
        self._connection = connection
        self._repo_id = repo_id
        self._its = {"repo": repo_id}
        self._moment = moment
        self._ahead = ahead

    def run(self, before: Circle, after: Circle, *, new_xorbs: PreparedInsert, new_marks: PreparedInsert) -> None:
        xorbs = self._lock()
        if not xorbs:
            return
        make_domain(self._connection, after)
        old, new = find_domain(self._connection, before), find_domain(self._connection, after)
        assert new is not None
        shown, marks = self._coming(new, xorbs)
        new_xorbs.put(self._connection, shown)
        acts: dict[str, Callable[[], None]] = {new: lambda: new_marks.put(self._connection, marks)}
        if old is not None and after.kind == "private":
            acts[old] = self._going(old, before, xorbs)
        # Marks are changed in the order of their keys, like all do who change those of several domains.
        for domain in sorted(acts):
            acts[domain]()

    def _lock(self) -> dict[bytes, int]:
        """Wait for who files the same; return the xorbs of the repo, with their number of chunks."""
        if self._connection.dialect.name != "sqlite":
            # Nobody gives them other terms until we are done.
            self._connection.execute(_LOCK_FILES.with_for_update(read=True), self._its)
        return {bytes(row.hash): row.chunks for row in self._connection.execute(_LOCK_XORBS, self._its)}

    def _coming(self, domain: str, xorbs: Mapping[bytes, int]) -> tuple[list[_Row], list[_Row]]:
        """Return the rows by which a domain may name the xorbs that are the repo's alone, and finds their files."""
        uses = self._ahead.coming
        whole = self._believed(uses, xet_links.c.repo_id == self._repo_id) & xorbs.keys()
        marks: list[_Row] = [
            (domain, chunk, uses.file[xorb], xorb) for chunk, xorb in sorted(self._ahead.told.items()) if xorb in whole
        ]
        return [(domain, hash) for hash in sorted(whole)], marks

    def _going(self, domain: str, circle: Circle, xorbs: Mapping[bytes, int]) -> Callable[[], None]:
        """Take from the domain the xorbs that are not of those alone who stay; return what does so with the marks."""
        uses = self._ahead.going
        whole = self._believed(uses, is_in(circle)) & xorbs.keys()
        gone = xorbs.keys() - whole
        removed = 0
        for part in parts_of(gone):
            here = sa.and_(xet_xorb_domains.c.domain_id == domain, xet_xorb_domains.c.hash.in_(part))
            removed += self._connection.execute(sa.delete(xet_xorb_domains).where(here)).rowcount
        stays = {hash: uses.file[hash] for hash in whole}
        return lambda: self._forget(domain, circle, gone, stays, renewed=removed > 0)

    def _believed(self, uses: Uses, by: sa.ColumnElement[bool]) -> set[bytes]:
        """Return the xorbs that are whole by files that are linked now."""
        return uses.whole_by(linked_among(self._connection, uses.proofs(), by))

    def _forget(
        self, domain: str, circle: Circle, gone: Collection[bytes], stays: Mapping[bytes, bytes], *, renewed: bool
    ) -> None:
        """Take away marks that lead to what went, or to a file that did; lead them to another file where one is.

        All marks of the repo's files are looked at. Of those that lead to files of others only the ones that were seen
        ahead: a newer one tells of a chunk that its file has.
        """
        rows = self._marks(domain)
        here = linked_among(self._connection, {bytes(row.file) for row in rows}, is_in(circle))
        lost = [row for row in rows if bytes(row.xorb) in gone or bytes(row.file) not in here]
        moved = [row for row in lost if bytes(row.xorb) in stays]
        self._lead(domain, moved, stays)
        for part in parts_of({bytes(row.chunk) for row in lost} - {bytes(row.chunk) for row in moved}):
            dropped = sa.and_(xet_marks.c.domain_id == domain, xet_marks.c.chunk.in_(part))
            self._connection.execute(sa.delete(xet_marks).where(dropped))
        if renewed:
            changed = sa.update(xet_domains).where(xet_domains.c.id == domain)
            values = {"generation": xet_domains.c.generation + 1, "renewed_at": self._moment}
            self._connection.execute(changed.values(values))

    def _marks(self, domain: str) -> list[Any]:
        """Lock the marks of a domain that may lead to what goes, by rising key."""
        its = self._connection.execute(_ITS_MARKS, self._its | {"domain": domain}).scalars()
        chunks = sorted({bytes(chunk) for chunk in its} | self._ahead.told.keys())
        chosen = sa.select(xet_marks.c.chunk, xet_marks.c.file, xet_marks.c.xorb).order_by(xet_marks.c.chunk)
        rows: list[Any] = []
        for part in parts_of(chunks):
            here = sa.and_(xet_marks.c.domain_id == domain, xet_marks.c.chunk.in_(part))
            rows += self._connection.execute(chosen.where(here).with_for_update()).all()
        return rows

    def _lead(self, domain: str, rows: Sequence[Any], file: Mapping[bytes, bytes]) -> None:
        change = (
            sa.update(xet_marks)
            .where(xet_marks.c.domain_id == domain, xet_marks.c.chunk == sa.bindparam("at"))
            .values(file=sa.bindparam("to"))
        )
        if rows:
            self._connection.execute(change, [{"at": row.chunk, "to": file[bytes(row.xorb)]} for row in rows])
