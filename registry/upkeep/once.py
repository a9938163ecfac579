"""Keeps objects once that are here twice; goes back to the bytes that came, while they lie there, if a chunk is bad.

    whole ── proven by its chunks, a day old ──▶ by its chunks ── the sweep of a week later ──▶ by its chunks alone
      ▲────────────── a xorb of it is bad, and its bytes still lie there ──┘

Nobody need run `fsck --repair` for that; it would do the same.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta

import sqlalchemy as sa

from lfs.store import ObjectStore, file_key, lfs_key
from lfs.xet.hashes import text
from registry.db import Database, now
from registry.links import parts_of
from registry.tables.objects import lfs_objects
from registry.tables.xet import xet_file_xorbs, xet_xorbs
from registry.upkeep.faults import BadObject
from registry.upkeep.reclaim import Graces
from registry.upkeep.repair_objects import ObjectRepair
from registry.xet_wholes import Wholes

log = logging.getLogger(__name__)

_LATELY = Graces().key + timedelta(days=2)
"""How long the bytes that came may lie there: until the first daily collection after the grace, or one after that."""
_HOLED = (
    sa.select(xet_file_xorbs.c.file)
    .join(xet_xorbs, xet_xorbs.c.hash == xet_file_xorbs.c.xorb)
    .where(xet_xorbs.c.state == "quarantined")
    .distinct()
)


class Once:
    """Does both for one process, whenever it is run; `wholes` knows what is here twice."""

    def __init__(
        self, database: Database, store: ObjectStore, wholes: Wholes, *, clock: Callable[[], datetime] = now
    ) -> None:
        self._db, self._store = database, store
        self._wholes, self._clock = wholes, clock
        self._repair = ObjectRepair(database, store, clock=clock)
        self._tried: set[str] = set()

    def run(self) -> None:
        """Look at what is due now. Raises: Busy, lfs errors of the store."""
        self._wholes.run()
        for fault in self._bad():
            # Once for each: a whole object is much to read, and a key that is gone does not come again.
            if fault.oid not in self._tried:
                self._go_back(fault)
                self._tried.add(fault.oid)

    def _go_back(self, fault: BadObject) -> None:
        if any(self._store.walk(lfs_key(fault.oid))):
            mended = self._repair.mend(fault)
            log.warning("object %s, of which a chunk is bad: %s", fault.oid, mended.text)

    def _bad(self) -> Iterator[BadObject]:
        """Yield the objects that were changed lately and cannot be put together; where all is well, at no cost."""
        with self._db.look() as connection:
            files = [file_key(text(bytes(row.file))) for row in connection.execute(_HOLED)]
        columns = (lfs_objects.c.oid, lfs_objects.c.size, lfs_objects.c.key, lfs_objects.c.state)
        lately = lfs_objects.c.stored_at > self._clock() - _LATELY
        chosen = sa.select(*columns).where(lfs_objects.c.kind == "xet", lfs_objects.c.state == "stored", lately)
        for part in parts_of(files):
            with self._db.look() as connection:
                rows = connection.execute(chosen.where(lfs_objects.c.key.in_(part))).all()
            yield from (BadObject(row.oid, row.size, row.key, row.state) for row in rows)
