"""Goes back to the bytes that came, of objects that are kept once, by their chunks, if a chunk is bad.

    whole ── proven by its chunks, a day old ──▶ by its chunks ── the sweep of a week later ──▶ by its chunks alone
      ▲────────────── a xorb of it is bad, and its bytes still lie there ──┘

The row names the key again that it has left: no byte is written, however large the object is. Of that key nobody but a
collection disposes, so the row is changed between two of them, after the bytes were read and found right.

Nobody need run `fsck --repair` for that; it would copy these bytes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa

from lfs import soundness
from lfs.errors import LfsError, Missing
from lfs.store import ObjectStore, file_key
from lfs.xet.hashes import text
from registry.db import Database, now
from registry.errors import RegistryError
from registry.links import parts_of
from registry.tables.objects import lfs_objects
from registry.tables.work import events
from registry.tables.xet import xet_file_xorbs, xet_xorbs
from registry.upkeep.reclaim import Graces
from registry.upkeep.turn import turn

log = logging.getLogger(__name__)

_LATELY = Graces().key + timedelta(days=2)
"""How long the bytes that came may lie there: until the first daily collection after the grace, or one after that."""
_HOLED = (
    sa.select(xet_file_xorbs.c.file)
    .join(xet_xorbs, xet_xorbs.c.hash == xet_file_xorbs.c.xorb)
    .where(xet_xorbs.c.state == "quarantined")
    .distinct()
)
# Acts without a repo stand together in the index of events.
_CHUNKED = sa.select(events.c.subject, events.c.body).where(
    events.c.repo_id.is_(None),
    events.c.act == "object.chunked",
    events.c.subject.in_(sa.bindparam("oids", expanding=True)),
)


@dataclass(frozen=True, slots=True)
class Left:
    """An object that is put together, as `key`, since lately, and lay whole under `was` before."""

    oid: str
    size: int
    key: str
    was: str
    since: datetime


class Once:
    """Does it for one process, whenever it is run; one process at a time."""

    def __init__(self, database: Database, store: ObjectStore, *, clock: Callable[[], datetime] = now) -> None:
        self._db, self._store = database, store
        self._clock = clock
        self._tried: set[Left] = set()
        self._sound: set[Left] = set()

    def run(self) -> None:
        """Look at what is due now. Raises: Busy."""
        if not self._due():
            return
        with turn(self._db, "back") as mine:
            # Asked anew: another process may have had the turn until now.
            for one in self._due() if mine else ():
                try:
                    self._go_back(one)
                except (RegistryError, LfsError) as error:
                    log.warning("object %s, of which a chunk is bad, will be tried again: %s", one.oid, error.message)

    def _go_back(self, one: Left) -> None:
        # Once for each: a whole object is much to read, and a key that is gone does not come again.
        if one not in self._sound:
            if flaw := soundness.flaw(self._store, one.was, one.oid, one.size):
                log.warning("object %s, of which a chunk is bad, stays so: what came %s", one.oid, flaw)
                self._tried.add(one)
                return
            self._sound.add(one)
        with turn(self._db) as between:
            if not between:
                return
            self._change(one)
        self._sound.discard(one)
        self._tried.add(one)

    def _change(self, one: Left) -> None:
        """Name the key again, if it still lies there and the row is what it was. One transaction, durable at return."""
        try:
            self._store.stat(one.was)
        except Missing:
            return
        moment = self._clock()
        here = sa.and_(lfs_objects.c.oid == one.oid, lfs_objects.c.key == one.key, lfs_objects.c.state == "stored")
        values = {"key": one.was, "kind": "whole", "stored_at": moment, "checked_at": moment}
        with self._db.write() as connection:
            if connection.execute(sa.update(lfs_objects).where(here).values(values)).rowcount != 1:
                return
            body = {"was": one.key, "key": one.was, "bytes": one.size}
            event = {"at": moment, "act": "object.whole", "subject": one.oid, "body": body}
            connection.execute(sa.insert(events).values(event))
        log.warning("object %s, of which a chunk is bad, is served as it came, from %s", one.oid, one.was)

    def _due(self) -> list[Left]:
        """List the objects that were changed lately and cannot be put together; where all is well, at no cost."""
        with self._db.look() as connection:
            files = [file_key(text(bytes(row.file))) for row in connection.execute(_HOLED)]
        found: list[Left] = []
        for part in parts_of(files):
            found += self._lately(part)
        return [one for one in found if one not in self._tried]

    def _lately(self, keys: Sequence[str]) -> list[Left]:
        columns = (lfs_objects.c.oid, lfs_objects.c.size, lfs_objects.c.key, lfs_objects.c.stored_at)
        lately = lfs_objects.c.stored_at > self._clock() - _LATELY
        # As the index of keys says it, and no parameter.
        chosen = sa.select(*columns).where(lfs_objects.c.kind == sa.literal_column("'xet'"), lately)
        with self._db.read() as connection:
            chosen = chosen.where(lfs_objects.c.state == "stored", lfs_objects.c.key.in_(keys))
            rows = {row.oid: row for row in connection.execute(chosen)}
            # The last is the one that counts.
            acts = connection.execute(_CHUNKED.order_by(events.c.id), {"oids": list(rows)}).all() if rows else []
        was = {act.subject: act.body["was"] for act in acts if act.body["key"] == rows[act.subject].key}
        return [Left(oid, rows[oid].size, rows[oid].key, key, rows[oid].stored_at) for oid, key in was.items()]
