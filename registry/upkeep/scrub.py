"""Reads what lies there for weeks once more: every live xorb is proven again within a month, the oldest first.

    due ── claimed: due again in an hour ──▶ read, as fast as the budget allows ──▶ sound: due in three weeks
                                                                                └─▶ bad: put aside

Every process does its share: a claim is a conditional update of `scrubbed_at`, and one that dies with its process
lapses. A shelf that does not answer proves nothing. Neither does one on which body and table are both missing: it may
have been mounted elsewhere.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from lfs.errors import Denied, Unavailable
from lfs.store import ObjectStore
from lfs.xet import hashes
from lfs.xet.index import Xorb
from registry.db import Database, now
from registry.tables.xet import xet_xorbs
from registry.upkeep.recurring import Recurring
from registry.upkeep.xorb_flaws import judge, mend_table
from registry.xet_damage import Damage

log = logging.getLogger(__name__)

EVERY = timedelta(days=21)
"""Since a xorb was proven; the rest of the month is for reading."""
CLAIM = timedelta(hours=1)
LOOKS = 600.0
"""Seconds between two looks whether something is due."""
_PATIENCE = 3
"""Xorbs in a row that cannot be read before the shelf is left alone until the next look."""
_COLUMNS = tuple(
    xet_xorbs.c[name] for name in ("hash", "key", "table_key", "size", "raw_size", "chunks", "scrubbed_at")
)


class Scrub:
    """Proves what is due, at `rate` bytes in a second at the most.

    `read` hears of the bytes that were read, `damaged` how many xorbs are put aside. `sleep` waits for some seconds.
    """

    def __init__(
        self,
        *,
        database: Database,
        store: ObjectStore,
        rate: int,
        read: Callable[[int], object] = lambda size: None,
        damaged: Callable[[int], object] = lambda count: None,
        clock: Callable[[], datetime] = now,
        seconds: float = LOOKS,
        sleep: Callable[[float], object] | None = None,
    ) -> None:
        self._db, self._store, self._clock = database, store, clock
        self._rate, self._read, self._damaged = rate, read, damaged
        self._damage = Damage(database, clock=clock)
        self._stopping = threading.Event()
        self._sleep = sleep or self._stopping.wait
        self._free_at = 0.0
        self._recurring = Recurring("scrub", self.run, seconds=seconds)

    def start(self) -> None:
        """Begin, on a thread of its own."""
        self._recurring.start()

    def close(self) -> None:
        """End after the piece that is being read; may be repeated."""
        self._stopping.set()
        self._recurring.close()

    def run(self) -> None:
        """Prove all that is due. Raises: Busy, Denied, Unavailable (the shelf does not answer for several xorbs)."""
        self._damaged(self._damage.count())
        unread = 0
        while not self._stopping.is_set() and (found := self._claim()) is not None:
            xorb, claimed = found
            try:
                self._scrub(xorb, claimed)
                unread = 0
            except _Stopped:
                return
            except (Denied, Unavailable) as error:
                log.warning("scrub: xorb %s was not read: %s", hashes.text(xorb.hash), error.message)
                unread += 1
                if unread == _PATIENCE:
                    raise

    def _claim(self) -> tuple[Xorb, datetime] | None:
        """Take the xorb that was proven longest ago; None if nothing is due."""
        while True:
            moment = self._clock()
            due = sa.and_(xet_xorbs.c.state == "live", xet_xorbs.c.scrubbed_at <= moment - EVERY)
            with self._db.look() as connection:
                oldest = sa.select(*_COLUMNS).where(due).order_by(xet_xorbs.c.scrubbed_at).limit(1)
                row = connection.execute(oldest).first()
            if row is None:
                return None
            claimed = moment - EVERY + CLAIM
            if self._note(row.hash, row.key, row.scrubbed_at, claimed):
                return _xorb(row), claimed

    def _note(self, hash: bytes, key: str, before: datetime, after: datetime) -> bool:
        here = sa.and_(xet_xorbs.c.hash == hash, xet_xorbs.c.key == key, xet_xorbs.c.scrubbed_at == before)
        with self._db.note() as connection:
            return connection.execute(sa.update(xet_xorbs).where(here).values(scrubbed_at=after)).rowcount == 1

    def _scrub(self, xorb: Xorb, claimed: datetime) -> None:
        judged = judge(self._store, xorb, seen=self._pace)
        if judged.gone:
            raise Unavailable("Neither its body nor its table is there; look whether this is the right storage.")
        if judged.body:
            if self._damage.put_aside(xorb.hash, xorb.key, judged.body):
                self._damaged(self._damage.count())
        elif judged.table and judged.right is not None:
            log.warning("scrub: the table of xorb %s %s; it is built again", hashes.text(xorb.hash), judged.table)
            mend_table(self._store, xorb, judged.right)
        self._note(xorb.hash, xorb.key, claimed, self._clock())

    def _pace(self, size: int) -> None:
        """Wait until the budget allows more. Raises: _Stopped."""
        self._read(size)
        moment = time.monotonic()
        self._free_at = max(self._free_at, moment) + size / self._rate
        self._sleep(self._free_at - moment)
        if self._stopping.is_set():
            raise _Stopped


class _Stopped(Exception):
    """The process ends."""


def _xorb(row: Any) -> Xorb:
    return Xorb(bytes(row.hash), row.key, row.table_key, row.size, row.raw_size, row.chunks)
