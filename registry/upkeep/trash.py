"""LFS objects that no repo links: condemned, and after a grace deleted. Until then one new link brings them back.

stored ── no link for days ──▶ condemned ── days ──▶ deleting ── bytes gone ──▶ no row
  ▲─────────── any new proof, or undo ──────┘           │
  ▲─────────── a new proof, under a key of its own ─────┘
damaged ── no link for as long as both graces ──▶ deleting

A damaged object is never condemned: who asked it back would be served bad bytes. The maker of links locks the object's
row before it looks at its state, and so is waited for here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from lfs.store import ObjectStore
from registry.db import Database
from registry.tables.objects import lfs_links, lfs_objects, lfs_uploads
from registry.tables.work import gc_runs, gc_unlinked
from registry.upkeep.old_packs import PATIENCE
from registry.upkeep.paging import in_groups, paged
from registry.upkeep.reclaim import Graces, Line, Step, came_true, day

_TOGETHER = 200
_LINKED = sa.exists().where(lfs_links.c.oid == lfs_objects.c.oid)
COMING = sa.exists().where(lfs_uploads.c.oid == lfs_objects.c.oid, lfs_uploads.c.state.in_(["open", "arrived"]))
"""Somebody is about to prove this object: its bytes may be under its key already, and nobody writes them twice."""
_COLUMNS = tuple(lfs_objects.c[name] for name in ("oid", "size", "key", "state", "condemned_at"))


class Trash:
    """Plans and does what becomes of objects without links."""

    def __init__(
        self, database: Database, store: ObjectStore, graces: Graces, *, clock: Callable[[], datetime]
    ) -> None:
        self._db = database
        self._store = store
        self._graces = graces
        self._clock = clock

    def condemn(self, moment: datetime) -> Iterator[Step]:
        """Plan to condemn what has had no link for long enough."""
        then = f"deleted after {day(moment + self._graces.trash)} unless it is uploaded again or the unlinking undone"
        chosen = sa.select(*_COLUMNS).where(self._forgotten(moment))
        for rows in in_groups(paged(self._db, chosen, lfs_objects.c.oid), _TOGETHER):
            lines = tuple(Line("condemn", "object", row.oid, row.size, "no repo links it", then) for row in rows)
            yield self._condemning(lines, moment)

    def _condemning(self, lines: tuple[Line, ...], moment: datetime) -> Step:
        def do(run: int) -> Sequence[Line]:
            values = {"state": "condemned", "condemned_at": moment}
            done = self._change([line.subject for line in lines], self._forgotten(moment), values)
            return came_true(lines, set(done), "a repo links it again, or is about to")

        return Step(lines, do)

    def _forgotten(self, moment: datetime) -> sa.ColumnElement[bool]:
        """Stored, and without a link since the grace began; nobody is about to make one."""
        rested = _rested(moment - self._graces.object)
        return sa.and_(lfs_objects.c.state == "stored", rested, ~_LINKED, ~COMING)

    def delete(self, moment: datetime) -> Iterator[Step]:
        """Plan to delete what was condemned, or of no use, for long enough, and what a dead run claimed."""
        chosen = sa.select(*_COLUMNS).where(self._ripe(moment))
        for rows in in_groups(paged(self._db, chosen, lfs_objects.c.oid), _TOGETHER):
            yield self._deleting(tuple(self._line(row) for row in rows), moment)

    def _line(self, row: Any) -> Line:
        why = "a run before this one was cut off while it deleted it"
        if row.state == "condemned":
            why = f"condemned {day(row.condemned_at)}, and no repo links it"
        elif row.state == "damaged":
            why = "its bytes are damaged, and no repo has linked it for weeks"
        return Line("delete", "object", row.oid, row.size, why, "nothing brings it back but an upload")

    def _ripe(self, moment: datetime) -> sa.ColumnElement[bool]:
        condemned = sa.and_(
            lfs_objects.c.state == "condemned", lfs_objects.c.condemned_at <= moment - self._graces.trash
        )
        claimed = sa.and_(lfs_objects.c.state == "deleting", lfs_objects.c.condemned_at <= moment - self._graces.claim)
        since = moment - self._graces.object - self._graces.trash
        # `checked_at`: when they were found to be damaged.
        found = sa.func.coalesce(lfs_objects.c.checked_at, lfs_objects.c.stored_at) <= since
        damaged = sa.and_(lfs_objects.c.state == "damaged", found, _rested(since))
        return sa.and_(sa.or_(condemned, claimed, damaged), ~_LINKED, ~COMING)

    def _deleting(self, lines: tuple[Line, ...], moment: datetime) -> Step:
        def do(run: int) -> Sequence[Line]:
            claimed = self._clock()
            values = {"state": "deleting", "condemned_at": claimed}
            keys = self._change([line.subject for line in lines], self._ripe(moment), values)
            self.finish(keys, claimed)
            return came_true(lines, set(keys), "a repo links it again, or is about to")

        return Step(lines, do)

    def _change(self, oids: Sequence[str], guard: sa.ColumnElement[bool], values: dict[str, object]) -> dict[str, str]:
        """Change the rows of which the guard still holds; return their keys by oid."""
        with self._db.write() as connection:
            _lock(connection, oids)
            changed = sa.update(lfs_objects).where(lfs_objects.c.oid.in_(oids), guard).values(values)
            return {row.oid: row.key for row in connection.execute(changed.returning(*_COLUMNS[:3]))}

    def finish(self, keys: dict[str, str], claimed: datetime) -> None:
        """Delete the bytes of claimed objects, then those rows that nobody brought to life. Raises: lfs errors."""
        gone = []
        try:
            for oid, key in keys.items():
                if self._clock() - claimed > PATIENCE:
                    break
                self._store.delete(key)
                gone.append({"gone": oid, "at": key})
        finally:
            self._forget(gone, claimed)

    def _forget(self, gone: Sequence[dict[str, str]], claimed: datetime) -> None:
        if not gone:
            return
        mine = sa.delete(lfs_objects).where(
            lfs_objects.c.oid == sa.bindparam("gone"),
            lfs_objects.c.key == sa.bindparam("at"),
            lfs_objects.c.state == "deleting",
            lfs_objects.c.condemned_at == claimed,
        )
        with self._db.write() as connection:
            connection.execute(mine, gone)


def _rested(since: datetime) -> sa.ColumnElement[bool]:
    """Say of an object without links that it came, and lost its last one, at `since` or before."""
    lately = sa.select(gc_unlinked.c.oid).join(gc_runs, gc_runs.c.id == gc_unlinked.c.run_id)
    lately = lately.where(gc_runs.c.started_at > since)
    return sa.and_(lfs_objects.c.stored_at <= since, lfs_objects.c.oid.not_in(lately))


def _lock(connection: Connection, oids: Sequence[str]) -> None:
    """Wait for whoever links these objects, so that the next statement sees the links. SQLite has one writer."""
    if connection.dialect.name != "sqlite":
        chosen = sa.select(lfs_objects.c.oid).where(lfs_objects.c.oid.in_(oids)).order_by(lfs_objects.c.oid)
        connection.execute(chosen.with_for_update())
