"""Repairs xorbs.

    body bad                    → put aside: nobody is told that it is here, so the next upload of its files brings it
    put aside, body sound       → live
    body sound, table bad       → the table that the body makes
    body sound, row wrong       → what the body says

A file becomes sound with the last of its xorbs, and so does its LFS object.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import sqlalchemy as sa

from lfs.store import ObjectStore
from lfs.xet.index import File
from registry.db import Database, now
from registry.links import insert_unless_there
from registry.tables.xet import xet_file_xorbs, xet_files, xet_xorbs
from registry.upkeep.faults import BadXorb, LooseFile, Mended
from registry.upkeep.xorb_flaws import Judged, judge, mend_table
from registry.xet_damage import Damage, holed, listed

_CHANGED = Mended(True, "changed meanwhile, by somebody at work")


class XorbRepair:
    """Mends xorbs of one house, and what files say of them."""

    def __init__(self, database: Database, store: ObjectStore, *, clock: Callable[[], datetime] = now) -> None:
        self._db = database
        self._store = store
        self._damage = Damage(database, clock=clock)

    def mend(self, fault: BadXorb | LooseFile) -> Mended:
        """Do what can be done. Raises: Busy, lfs errors of the store."""
        match fault:
            case BadXorb():
                return self._xorb(fault)
            case LooseFile():
                return self._file(fault)

    def _xorb(self, fault: BadXorb) -> Mended:
        judged = judge(self._store, fault.xorb)
        if judged.right is None:
            return self._bad(fault, judged)
        done = []
        if judged.table:
            mend_table(self._store, fault.xorb, judged.right)
            done.append("its table was built again")
        if judged.row or fault.state == "quarantined":
            right = judged.right
            values = {"size": right.body_size, "raw_size": right.raw_size, "chunks": right.chunks}
            if not self._damage.believe(fault.xorb, fault.state, **values):
                return _CHANGED
            done.append("its bytes are sound, its row says so now")
        return Mended(True, ", ".join(done) or "its bytes are sound")

    def _put_aside(self, fault: BadXorb, why: str) -> bool:
        return self._damage.put_aside(fault.xorb.hash, fault.xorb.key, why)

    def _bad(self, fault: BadXorb, judged: Judged) -> Mended:
        if fault.state != "quarantined" and not self._put_aside(fault, judged.body):
            return _CHANGED
        with self._db.look() as connection:
            files = holed(connection, fault.xorb.hash)
        return Mended(not files, f"put aside; upload again the files that need it: {listed(files)}")

    def _file(self, fault: LooseFile) -> Mended:
        """Note what a file needs; its row is locked as by whoever files it."""
        chosen = sa.select(xet_files.c.hash, xet_files.c.size, xet_files.c.terms).where(xet_files.c.hash == fault.hash)
        with self._db.write() as connection:
            row = connection.execute(chosen.with_for_update(key_share=True)).first()
            if row is None:
                return _CHANGED
            named = sorted({part.xorb for part in File(*row).parts()})
            here = sa.select(xet_xorbs.c.hash).where(xet_xorbs.c.hash.in_(named)).order_by(xet_xorbs.c.hash)
            found = connection.execute(here.with_for_update(key_share=True)).scalars().all()
            needs = [{"file": fault.hash, "xorb": bytes(xorb)} for xorb in found]
            insert_unless_there(connection, xet_file_xorbs, needs)
        return Mended(True, "what it needs is noted again")
