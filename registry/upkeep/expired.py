"""Uploads that nobody will end: closed, and their bytes removed; and rows of ended ones, forgotten after a month.

A row is closed under its repo's lock, as the maker of links looks at it: of the two, one waits for the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from lfs.store import ObjectStore, lfs_key
from registry.db import Database
from registry.tables.objects import lfs_uploads
from registry.tables.repos import repos
from registry.upkeep.paging import in_groups, paged
from registry.upkeep.reclaim import Graces, Line, Step, came_true, day

_TOGETHER = 200
_IN_PARTS = ("tus", "multipart")
_COLUMNS = tuple(
    lfs_uploads.c[name]
    for name in ("id", "repo_id", "oid", "size", "mode", "session", "part_size", "state", "created_at", "expires_at")
)
_REASON = "It expired before its bytes were whole."


class Expired:
    """Plans and does what becomes of upload rows."""

    def __init__(self, database: Database, store: ObjectStore, graces: Graces) -> None:
        self._db = database
        self._store = store
        self._graces = graces

    def close(self, moment: datetime) -> Iterator[Step]:
        """Plan to close what expired, and what arrived for a repo that is gone."""
        for rows in in_groups(paged(self._db, sa.select(*_COLUMNS).where(self._over(moment)), lfs_uploads.c.id), 50):
            lines = tuple(self._line(row) for row in rows)
            yield self._step(lines, rows, moment)

    def _line(self, row: Any) -> Line:
        why = f"{row.mode} upload of {row.oid}, expired {day(row.expires_at)}"
        if row.state == "arrived":
            why = f"{row.mode} upload of {row.oid}, to a repo that is gone"
        return Line("close", "upload", row.id, row.size, why, f"its row goes after {day(self._row_until(row))}")

    def _row_until(self, row: Any) -> datetime:
        until: datetime = row.created_at + self._graces.row
        return until

    def _over(self, moment: datetime) -> sa.ColumnElement[bool]:
        buried = sa.and_(repos.c.deleted_at.is_not(None), repos.c.deleted_at <= moment - self._graces.repo)
        gone = sa.exists().where(repos.c.id == lfs_uploads.c.repo_id, buried)
        free = sa.or_(lfs_uploads.c.lease_until.is_(None), lfs_uploads.c.lease_until <= moment)
        late = sa.and_(lfs_uploads.c.state == "open", lfs_uploads.c.expires_at <= moment - self._graces.upload)
        return sa.and_(free, sa.or_(late, sa.and_(lfs_uploads.c.state == "arrived", gone)))

    def _step(self, lines: tuple[Line, ...], rows: Sequence[Any], moment: datetime) -> Step:
        def do(run: int) -> Sequence[Line]:
            ids = [row.id for row in rows]
            with self._db.write() as connection:
                _lock(connection, rows)
                closed = sa.update(lfs_uploads).where(lfs_uploads.c.id.in_(ids), self._over(moment))
                closed = closed.values(state="failed", reason=_REASON, lease="", lease_until=None)
                done = set(connection.execute(closed.returning(lfs_uploads.c.id)).scalars())
            for row in rows:
                if row.id in done:
                    self._remove(row)
            return came_true(lines, done, "somebody goes on with it")

        return Step(lines, do)

    def _remove(self, row: Any) -> None:
        """Remove what the upload left at keys of its own; a link to them can no longer be made."""
        own = lfs_key(row.oid, row.id)
        if row.mode in _IN_PARTS:
            self._store.parts(own, row.part_size, row.session).abort()
        for key in (own, f"staging/{row.id}"):
            self._store.delete(key)

    def forget(self, moment: datetime) -> Iterator[Step]:
        """Plan to remove the rows of uploads that ended long ago."""
        ended = sa.and_(
            lfs_uploads.c.state.in_(["done", "failed"]), lfs_uploads.c.created_at <= moment - self._graces.row
        )
        for rows in in_groups(paged(self._db, sa.select(*_COLUMNS).where(ended), lfs_uploads.c.id), _TOGETHER):
            yield self._forgetting(rows, ended)

    def _forgetting(self, rows: Sequence[Any], ended: sa.ColumnElement[bool]) -> Step:
        lines = tuple(
            Line("forget", "upload", row.id, 0, f"{row.state}, and began {day(row.created_at)}") for row in rows
        )

        def do(run: int) -> Sequence[Line]:
            ids = [row.id for row in rows]
            with self._db.write() as connection:
                _lock(connection, rows)
                left = sa.delete(lfs_uploads).where(lfs_uploads.c.id.in_(ids), ended).returning(lfs_uploads.c.id)
                done = set(connection.execute(left).scalars())
            return came_true(lines, done, "it changed meanwhile")

        return Step(lines, do)


def _lock(connection: Connection, rows: Sequence[Any]) -> None:
    """Wait for whoever makes links in the repos of these uploads. SQLite has one writer."""
    if connection.dialect.name != "sqlite":
        chosen = sa.select(repos.c.id).where(repos.c.id.in_({row.repo_id for row in rows})).order_by(repos.c.id)
        connection.execute(chosen.with_for_update())
