"""Rows of Xet that have ended by themselves: grants, arrivals, and the keys of past weeks.

Whoever asks for them looks at their time, so nobody finds one that is late. Here they only stop taking room.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

from registry.db import Database
from registry.tables.xet import xet_arrivals, xet_grants, xet_keys
from registry.upkeep.reclaim import Graces, Line, Step, day
from registry.xet_domains import WEEK

_WEEKS = 2
"""Weeks whose keys stay: that of now, and the one before for who began an answer in it or has a slow clock."""


class Lapsed:
    """Plans and forgets what has ended by its own date."""

    def __init__(self, database: Database, graces: Graces) -> None:
        self._db = database
        self._graces = graces

    def steps(self, moment: datetime) -> Iterator[Step]:
        """Plan all kinds, one step for each; bytes that came by grants are swept as keys."""
        late = moment - self._graces.claim
        why = "they have expired and were not used"
        yield from self._ended("grant", xet_grants, xet_grants.c.length, xet_grants.c.expires_at <= late, why)
        why = "the time is over in which a file had to name them"
        yield from self._ended("arrival", xet_arrivals, xet_arrivals.c.size, xet_arrivals.c.expires_at <= late, why)
        first = int(moment.timestamp()) // WEEK - _WEEKS + 1
        began = datetime.fromtimestamp(0, UTC) + timedelta(seconds=first * WEEK)
        why = f"answers that were hidden under them ended by {day(began)}"
        yield from self._ended("week", xet_keys, sa.literal(0), xet_keys.c.week < first, why)

    def _ended(
        self, kind: str, table: sa.Table, size: sa.ColumnElement[int], old: sa.ColumnElement[bool], why: str
    ) -> Iterator[Step]:
        sums = sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(size), 0)).select_from(table)
        with self._db.read() as connection:
            count, whole = connection.execute(sums.where(old)).one()
        if not count:
            return
        line = Line("forget", kind, f"{count} of them", int(whole), why)

        def do(run: int) -> Sequence[Line]:
            with self._db.write() as connection:
                connection.execute(sa.delete(table).where(old))
            return [line]

        yield Step((line,), do)
