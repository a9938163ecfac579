"""Packs that no repo lists: condemned, and after a grace deleted with their indexes and sidecars.

live ── no repo lists it ──▶ condemned ── grace ──▶ deleting ── bytes gone ──▶ no row
  ▲────────────── pushed again ──────────────┘

A push makes the row of its pack before the bytes, and then looks for names that are being deleted; here a row is
marked first, and then it is looked for others with its names. Of the two, one at least sees the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from lfs.store import ObjectStore
from registry.db import Database
from registry.git.snapshot import pack_key
from registry.tables.objects import packs, repo_packs
from registry.upkeep.paging import paged
from registry.upkeep.reclaim import Graces, Line, Step, day

PATIENCE = timedelta(minutes=5)
"""Whoever holds a claim for longer before it deletes, gives up: another run may have taken it over."""

_LISTED = sa.exists().where(repo_packs.c.pack_id == packs.c.id)
_COLUMNS = tuple(
    packs.c[name] for name in ("id", "bytes", "idx_oid", "idx_bytes", "intro_oid", "intro_bytes", "state", "created_at")
)


def condemn_unlisted(connection: Connection, ids: Sequence[str], moment: datetime) -> list[str]:
    """Mark packs that no repo lists any more; whoever takes one up meanwhile waits for this lock or is seen."""
    chosen = packs.c.id.in_(ids)
    _lock(connection, chosen)
    condemned = sa.update(packs).where(chosen, packs.c.state == "live", ~_LISTED)
    condemned = condemned.values(state="condemned", condemned_at=moment).returning(packs.c.id)
    return list(connection.execute(condemned).scalars())


class OldPacks:
    """Plans and does what becomes of packs that no repo lists."""

    def __init__(
        self, database: Database, store: ObjectStore, graces: Graces, *, clock: Callable[[], datetime]
    ) -> None:
        self._db = database
        self._store = store
        self._graces = graces
        self._clock = clock

    def condemn(self, moment: datetime) -> Iterator[Step]:
        """Plan to condemn: packs that a repo's end or a crash left behind."""
        chosen = sa.select(*_COLUMNS).where(packs.c.state == "live", ~_LISTED)
        chosen = chosen.where(packs.c.created_at <= moment - self._graces.pack)
        for row in paged(self._db, chosen, packs.c.id):
            then = f"deleted after {day(moment + self._graces.pack)} unless it is pushed again"
            yield self._step(Line("condemn", "pack", row.id, _size(row), "no repo lists it", then), row, moment)

    def _step(self, line: Line, row: Any, moment: datetime) -> Step:
        def do(run: int) -> Sequence[Line]:
            with self._db.write() as connection:
                done = condemn_unlisted(connection, [row.id], moment)
            return [line if done else line.kept("a repo took it up meanwhile")]

        return Step((line,), do)

    def delete(self, moment: datetime) -> Iterator[Step]:
        """Plan to delete: condemned ones, those whose push never came to its end, and what a dead run claimed."""
        for row in paged(self._db, sa.select(*_COLUMNS).where(self._ripe(moment)), packs.c.id):
            why = "no repo has listed it since its grace began"
            if row.state == "stored":
                why = "its push did not come to an end"
            elif row.state == "deleting":
                why = "a run before this one was cut off while it deleted it"
            line = Line("delete", "pack", row.id, _size(row), why, "nothing brings it back but a push")
            yield Step((line,), self._deleting(line, row, moment))

    def _ripe(self, moment: datetime) -> sa.ColumnElement[bool]:
        rested = moment - self._graces.pack
        return sa.and_(
            ~_LISTED,
            sa.or_(
                sa.and_(packs.c.state == "condemned", packs.c.condemned_at <= rested),
                sa.and_(packs.c.state == "stored", packs.c.created_at <= rested),
                sa.and_(packs.c.state == "deleting", packs.c.condemned_at <= moment - self._graces.claim),
            ),
        )

    def _deleting(self, line: Line, row: Any, moment: datetime) -> Callable[[int], Sequence[Line]]:
        def do(run: int) -> Sequence[Line]:
            claimed = self._claim(row, moment)
            if claimed is None:
                return [line.kept("a push took it up meanwhile")]
            self.finish(row, claimed)
            return [line]

        return do

    def _claim(self, row: Any, moment: datetime) -> datetime | None:
        claimed = self._clock()
        with self._db.write() as connection:
            _lock(connection, packs.c.id == row.id)
            here = sa.update(packs).where(packs.c.id == row.id, packs.c.created_at == row.created_at)
            done = here.where(self._ripe(moment)).values(state="deleting", condemned_at=claimed)
            return claimed if connection.execute(done).rowcount == 1 else None

    def finish(self, row: Any, claimed: datetime) -> None:
        """Delete the files of a claimed pack that no other row names, then the row. Raises: lfs errors."""
        shared = self._shared(row)
        for oid in dict.fromkeys((row.intro_oid, row.idx_oid, row.id)):
            if self._clock() - claimed > PATIENCE:
                return
            if oid not in shared:
                self._store.delete(pack_key(oid))
        mine = sa.and_(packs.c.id == row.id, packs.c.created_at == row.created_at, packs.c.condemned_at == claimed)
        with self._db.write() as connection:
            connection.execute(sa.delete(packs).where(mine, packs.c.state == "deleting"))

    def _shared(self, row: Any) -> set[str]:
        """Name the files of a pack that others have too: equal commits give equal sidecars."""
        mine = (row.id, row.idx_oid, row.intro_oid)
        names = (packs.c.id, packs.c.idx_oid, packs.c.intro_oid)
        others = sa.select(*names).where(packs.c.id != row.id, packs.c.state != "deleting")
        with self._db.look() as connection:
            found = connection.execute(others.where(sa.or_(*(name.in_(mine) for name in names)))).all()
        return {oid for other in found for oid in other}


def _size(row: Any) -> int:
    return int(row.bytes + row.idx_bytes + row.intro_bytes)


def _lock(connection: Connection, chosen: sa.ColumnElement[bool]) -> None:
    """Wait for whoever writes these rows, so that the next statement sees what they did. SQLite has one writer."""
    if connection.dialect.name != "sqlite":
        connection.execute(sa.select(packs.c.id).where(chosen).order_by(packs.c.id).with_for_update())
