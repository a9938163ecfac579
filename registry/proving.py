"""Which arrived uploads are proven next: the oldest of whoever is to have a turn.

One account may have a hundred thousand waiting. So accounts are found by leaps, from one to the next of an index that
only what waits is in, and of each the first upload that is free: with 100,000 rows that is 0.2 ms instead of the 150 ms
that it takes to sort them (SQLite, 2026-11).
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from lfs.host import SMALL, Upload
from registry.db import Database
from registry.tables.objects import lfs_uploads
from registry.tables.repos import repos

COLUMNS = tuple(lfs_uploads.c[name] for name in Upload.__slots__)
ALIVE = sa.exists().where(repos.c.id == lfs_uploads.c.repo_id, repos.c.deleted_at.is_(None))
_TRIES = 5
_NO_LIMIT = (1 << 63) - 1
# Word for word as their index says it, as a database must see that it asks for no others; and cast, as SQLite would
# take the index of states otherwise, and sort all that it finds there.
_ARRIVED: sa.ColumnClause[Any] = sa.literal_column("'arrived'")
_FREE = sa.and_(
    sa.cast(lfs_uploads.c.state, sa.Text) == _ARRIVED,
    sa.or_(lfs_uploads.c.lease_until.is_(None), lfs_uploads.c.lease_until <= sa.bindparam("moment")),
    lfs_uploads.c.size <= sa.bindparam("largest"),
    ALIVE,
)


def _accounts() -> sa.CTE:
    """Name the accounts that have uploads waiting, and NULL after the last; what is nobody's is account 0's."""
    found = sa.select(_account_after(sa.literal_column("-1")).label("id")).cte("accounts", recursive=True)
    following = _account_after(found.c.id)
    return found.union_all(sa.select(following).where(found.c.id.is_not(None)))


def _account_after(id: sa.ColumnElement[Any]) -> sa.ScalarSelect[Any]:
    rows = lfs_uploads.alias("rows")
    later = sa.select(rows.c.actor_id).where(sa.cast(rows.c.state, sa.Text) == _ARRIVED, rows.c.actor_id > id)
    return later.order_by(rows.c.actor_id).limit(1).correlate_except(rows).scalar_subquery()


def next_account() -> sa.Select[*tuple[Any, ...]]:
    """Ask for the account whose free upload is the oldest: `largest` in bytes, none of `besides`, as of `moment`."""
    accounts = _accounts()
    oldest = sa.select(lfs_uploads.c.id).where(lfs_uploads.c.actor_id == accounts.c.id, _FREE)
    first = oldest.order_by(lfs_uploads.c.id).limit(1).correlate(accounts).scalar_subquery()
    others = accounts.c.id.not_in(sa.bindparam("besides", expanding=True))
    found = sa.select(accounts.c.id, first.label("first")).where(accounts.c.id.is_not(None), others).subquery()
    return sa.select(found.c.id).where(found.c.first.is_not(None)).order_by(found.c.first).limit(1)


class Waiting:
    """Leases what waits for its proof. Thread-safe, among processes too."""

    def __init__(self, database: Database, *, clock: Callable[[], datetime]) -> None:
        self._db = database
        self._clock = clock
        self._next = database.prepare(next_account())

    def lease(
        self, holder: str, seconds: float, limit: int, *, largest: int | None = None, besides: Collection[int] = ()
    ) -> list[Any]:
        """Lease rows of the one account, none of `besides`, whose free upload is the oldest; as `Host.arrived`."""
        asked = {"moment": self._clock(), "largest": _NO_LIMIT if largest is None else largest}
        for _ in range(_TRIES):
            # Most of the time there is nothing, and no writer has to wait for finding that out.
            account = self._next.first({**asked, "besides": [-1, *sorted(besides)]})
            if account is None:
                break
            with self._db.note() as connection:
                if found := _leased(connection, account.id, asked, limit, holder, seconds):
                    return found
            # Others were quicker with all that this account had.
        return []


def _leased(
    connection: Connection, account: int, asked: dict[str, Any], limit: int, holder: str, seconds: float
) -> list[Any]:
    chosen = sa.select(*COLUMNS).where(lfs_uploads.c.actor_id == account, _FREE)
    chosen = chosen.order_by(lfs_uploads.c.id).limit(limit).with_for_update(skip_locked=True, of=lfs_uploads)
    found = _together(list(connection.execute(chosen, asked)))
    leased = sa.update(lfs_uploads).where(lfs_uploads.c.id.in_([row.id for row in found]))
    until = asked["moment"] + timedelta(seconds=seconds)
    connection.execute(leased.values(lease=holder, lease_until=until))
    return found


def _together(rows: list[Any]) -> list[Any]:
    """Return the first row, and those after it that are small together with it."""
    size = 0
    for place, row in enumerate(rows):
        size += row.size
        if size > SMALL and place:
            return rows[:place]
    return rows
