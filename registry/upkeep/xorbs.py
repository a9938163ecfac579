"""Xorbs that no file needs: condemned once their promise has ended, deleted in a later run.

    live ── no file, promise over ──▶ condemned ── grace ──▶ deleting ── bytes gone ──▶ no row
      ▲────────── a shard names it ──────┘                      │
      ▲────────── its bytes come again, under other keys ───────┘

Clients remember what they were told is here, and send only its name: a promise is kept. With `now` it is not; then the
domains get a new generation, at which every client starts afresh.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from lfs.store import ObjectStore
from lfs.xet import hashes
from registry.db import Database
from registry.tables.xet import xet_domains, xet_file_xorbs, xet_xorb_domains, xet_xorbs
from registry.upkeep.old_packs import PATIENCE
from registry.upkeep.paging import in_groups, paged
from registry.upkeep.reclaim import Graces, Line, Step, came_true, day

_TOGETHER = 200
_NEEDED = sa.exists().where(xet_file_xorbs.c.xorb == xet_xorbs.c.hash)
_COLUMNS = tuple(
    xet_xorbs.c[name] for name in ("hash", "size", "key", "table_key", "state", "condemned_at", "promised_until")
)


class Xorbs:
    """Plans and does what becomes of xorbs without files."""

    def __init__(
        self,
        database: Database,
        store: ObjectStore,
        graces: Graces,
        *,
        clock: Callable[[], datetime],
    ) -> None:
        self._db = database
        self._store = store
        self._graces = graces
        self._clock = clock

    def condemn(self, moment: datetime, *, now: bool = False) -> Iterator[Step]:
        """Plan to condemn what no file needs; with `now` promises do not count."""
        then = f"deleted after {day(moment + self._graces.xorb)} unless a shard names it"
        chosen = sa.select(*_COLUMNS).where(self._useless(moment, now=now))
        for rows in in_groups(paged(self._db, chosen, xet_xorbs.c.hash), _TOGETHER):
            lines = tuple(
                Line("condemn", "xorb", hashes.text(row.hash), row.size, self._why(row, moment), then) for row in rows
            )
            yield self._condemning(lines, moment, now=now)

    def _why(self, row: Any, moment: datetime) -> str:
        if row.promised_until > moment:
            return f"no file needs it; promised until {day(row.promised_until)}, so its domains begin a new generation"
        return f"no file needs it, and its promise ended {day(row.promised_until)}"

    def _useless(self, moment: datetime, *, now: bool) -> sa.ColumnElement[bool]:
        resting = sa.true() if now else xet_xorbs.c.promised_until <= moment
        unneeded = sa.and_(xet_xorbs.c.state == "live", ~_NEEDED, resting)
        return sa.and_(unneeded, xet_xorbs.c.verified_at <= moment - self._graces.claim)

    def _condemning(self, lines: tuple[Line, ...], moment: datetime, *, now: bool) -> Step:
        def do(run: int) -> Sequence[Line]:
            asked = [hashes.parse(line.subject) for line in lines]
            with self._db.write() as connection:
                _lock(connection, asked)
                gone = _changed(
                    connection, asked, self._useless(moment, now=now), state="condemned", condemned_at=moment
                )
                promised = [row.hash for row in gone if row.promised_until > moment]
                _renew(connection, promised, moment)
            return came_true(lines, {hashes.text(row.hash) for row in gone}, "a shard names it by now")

        return Step(lines, do)

    def delete(self, moment: datetime) -> Iterator[Step]:
        """Plan to delete what was condemned long enough, and what a dead run claimed."""
        chosen = sa.select(*_COLUMNS).where(self._ripe(moment))
        for rows in in_groups(paged(self._db, chosen, xet_xorbs.c.hash), _TOGETHER):
            lines = tuple(self._line(row) for row in rows)
            yield self._deleting(lines, moment)

    def _line(self, row: Any) -> Line:
        why = "a run before this one was cut off while it deleted it"
        if row.state == "condemned":
            why = f"condemned {day(row.condemned_at)}, and no file needs it"
        elif row.state == "quarantined":
            why = "its bytes are damaged, and no file needs it"
        return Line("delete", "xorb", hashes.text(row.hash), row.size, why, "nothing brings it back but an upload")

    def _ripe(self, moment: datetime) -> sa.ColumnElement[bool]:
        rested = xet_xorbs.c.condemned_at <= moment - self._graces.xorb
        claimed = xet_xorbs.c.condemned_at <= moment - self._graces.claim
        # A bad one is never condemned: a shard would bring it back.
        bad = xet_xorbs.c.scrubbed_at <= moment - self._graces.xorb
        pairs = (("condemned", rested), ("deleting", claimed), ("quarantined", bad))
        states = [sa.and_(xet_xorbs.c.state == state, long) for state, long in pairs]
        return sa.and_(sa.or_(*states), ~_NEEDED)

    def _deleting(self, lines: tuple[Line, ...], moment: datetime) -> Step:
        def do(run: int) -> Sequence[Line]:
            asked, claimed = [hashes.parse(line.subject) for line in lines], self._clock()
            with self._db.write() as connection:
                _lock(connection, asked)
                mine = _changed(connection, asked, self._ripe(moment), state="deleting", condemned_at=claimed)
            self._finish(mine, claimed)
            return came_true(lines, {hashes.text(row.hash) for row in mine}, "a shard names it by now")

        return Step(lines, do)

    def _finish(self, rows: Sequence[Any], claimed: datetime) -> None:
        """Delete the bytes of claimed xorbs, then those rows that nobody brought to life. Raises: lfs errors."""
        for row in rows:
            if self._clock() - claimed > PATIENCE:
                return
            self._store.delete(row.key)
            self._store.delete(row.table_key)
            here = sa.and_(xet_xorbs.c.hash == row.hash, xet_xorbs.c.key == row.key)
            mine = sa.and_(here, xet_xorbs.c.state == "deleting", xet_xorbs.c.condemned_at == claimed)
            with self._db.write() as connection:
                _lock(connection, [row.hash])
                if connection.execute(sa.select(xet_xorbs.c.hash).where(mine)).first() is not None:
                    connection.execute(sa.delete(xet_xorb_domains).where(xet_xorb_domains.c.hash == row.hash))
                    connection.execute(sa.delete(xet_xorbs).where(mine))


def _changed(
    connection: Connection, asked: Sequence[bytes], guard: sa.ColumnElement[bool], **values: object
) -> Sequence[Any]:
    changing = sa.update(xet_xorbs).where(xet_xorbs.c.hash.in_(asked), guard).values(values)
    return connection.execute(changing.returning(*_COLUMNS)).all()


def _renew(connection: Connection, promised: Sequence[bytes], moment: datetime) -> None:
    """Begin a new generation of the domains in which clients may believe in these xorbs."""
    where = sa.select(xet_xorb_domains.c.domain_id).where(xet_xorb_domains.c.hash.in_(promised))
    renewed = sa.update(xet_domains).where(xet_domains.c.id.in_(where))
    connection.execute(renewed.values(generation=xet_domains.c.generation + 1, renewed_at=moment))


def _lock(connection: Connection, asked: Sequence[bytes]) -> None:
    """Wait for whoever names these in a shard, so that the next statement sees the file. SQLite has one writer."""
    if connection.dialect.name != "sqlite":
        chosen = sa.select(xet_xorbs.c.hash).where(xet_xorbs.c.hash.in_(asked)).order_by(xet_xorbs.c.hash)
        connection.execute(chosen.with_for_update())
