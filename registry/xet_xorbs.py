"""Xorb rows: which xorbs there are, where they lie, which domains may name them, and grants to bring new ones.

live ── nothing needs it, no promise ──▶ condemned ──▶ deleting ── bytes gone ──▶ no row
  ▲────────── named by a shard ──────────────┘             │
  ▲────────── a new proof, under new keys ──── condemned, deleting, quarantined

Whoever says that a xorb is here promises it for four weeks: its client may remember that for three and then send only
a shard. Rows are locked by rising hash, after repos, namespaces and arrivals.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from lfs.xet.hashes import text
from lfs.xet.index import Granted, Leave, Xorb
from registry.db import Database, now
from registry.errors import Busy, ObjectAbsent
from registry.links import insert_unless_there, parts_of
from registry.tables.work import events
from registry.tables.xet import xet_grants, xet_xorb_domains, xet_xorbs
from registry.xet_arrivals import XetArrivals

PROMISE = timedelta(days=28)
"""How long a xorb is kept after a client was told of it."""
_PROMISED_EVERY = timedelta(days=1)

_COLUMNS = tuple(xet_xorbs.c[name] for name in ("hash", "key", "table_key", "size", "raw_size", "chunks"))
USABLE = sa.or_(xet_xorbs.c.state == "live", xet_xorbs.c.state == "condemned")
"""Say of a xorb that its bytes are here and sound."""
_NAMED = xet_xorbs.c.hash.in_(sa.bindparam("hashes", expanding=True))
_SHOWN = sa.exists().where(
    xet_xorb_domains.c.hash == xet_xorbs.c.hash, xet_xorb_domains.c.domain_id == sa.bindparam("domain")
)
# Condemned, or promised by now for less than is said today.
_FADING = sa.or_(xet_xorbs.c.state == "condemned", xet_xorbs.c.promised_until < sa.bindparam("before"))

_LOCATED = sa.select(*_COLUMNS).where(_NAMED, USABLE)
_LIVE = _LOCATED.where(_SHOWN)
_FADED = sa.select(xet_xorbs.c.hash).where(_NAMED, USABLE, _SHOWN, _FADING)
_SHOWN_HERE = sa.select(xet_xorb_domains.c.hash).where(
    xet_xorb_domains.c.domain_id == sa.bindparam("domain"),
    xet_xorb_domains.c.hash.in_(sa.bindparam("hashes", expanding=True)),
)
_LOCKED = (
    sa.select(*_COLUMNS, xet_xorbs.c.state, xet_xorbs.c.promised_until)
    .where(_NAMED)
    .order_by(xet_xorbs.c.hash)
    .with_for_update(key_share=True)
)
_GRANT = sa.select(xet_grants).where(xet_grants.c.id == sa.bindparam("id"))


class Xorbs:
    """Reads and changes xorb rows and grants. Thread-safe, among processes too."""

    def __init__(self, database: Database, arrivals: XetArrivals, *, clock: Callable[[], datetime] = now) -> None:
        self._db = database
        self._arrivals = arrivals
        self._clock = clock
        self._live = database.prepare(_LIVE)
        self._located = database.prepare(_LOCATED)
        self._fading = database.prepare(_FADED)
        self._shown = database.prepare(_SHOWN_HERE)
        self._locked = database.prepare(_LOCKED)
        self._grant = database.prepare(_GRANT)

    def live(self, domain: str, hashes: Collection[bytes]) -> dict[bytes, Xorb]:
        """Return those of these xorbs that a shard of this domain may name."""
        asked = [{"domain": domain, "hashes": part} for part in parts_of(hashes)]
        return {xorb.hash: xorb for each in asked for xorb in map(_xorb, self._live.every(each))}

    def located(self, hashes: Collection[bytes]) -> dict[bytes, Xorb]:
        """Return xorbs by hash in whatever domain, those that are quarantined or being deleted left out."""
        asked = [{"hashes": part} for part in parts_of(hashes)]
        return {xorb.hash: xorb for each in asked for xorb in map(_xorb, self._located.every(each))}

    def keep(self, leave: Leave, xorb: Xorb) -> Xorb:
        """Make a proven xorb live in the domain of `leave`, and promise it; return the one that is served from now on.

        Racing keepers agree on one. Raises: QuotaExceeded, RepoAbsent, Busy (these very keys are on their way out, or
        hold other bytes).
        """
        with self._db.write() as connection:
            self._arrivals.keep(connection, leave, xorb.hash, xorb.size)
            row = self._row(connection, xorb)
            if row.state == "live":
                self._promise(connection, [row])
            else:
                self._replace(connection, xorb, row)
            insert_unless_there(connection, xet_xorb_domains, [{"domain_id": leave.domain, "hash": xorb.hash}])
        return _xorb(row) if row.state == "live" else xorb

    def _row(self, connection: Connection, xorb: Xorb) -> Any:
        """Lock the row of a xorb, made where there is none."""
        moment = self._clock()
        values = {"hash": xorb.hash, "key": xorb.key, "table_key": xorb.table, "size": xorb.size, "state": "live"}
        values |= {"raw_size": xorb.raw_size, "chunks": xorb.chunks, "promised_until": moment + PROMISE}
        while True:
            insert_unless_there(connection, xet_xorbs, [values | {"verified_at": moment, "scrubbed_at": moment}])
            # A row that the insert met may have been swept since: then it is made in another turn.
            for row in self._locked.within(connection, {"hashes": [xorb.hash]}):
                return row

    def _replace(self, connection: Connection, xorb: Xorb, row: Any) -> None:
        if row.state != "condemned" and xorb.key == row.key:
            raise Busy("This xorb is being replaced at this moment; send it again in a few seconds.")
        moment = self._clock()
        # Guarded by the keys: what a sweeper does later to the row it claimed finds no such row any more.
        changed = sa.update(xet_xorbs).where(xet_xorbs.c.hash == xorb.hash, xet_xorbs.c.key == row.key)
        values = {"key": xorb.key, "table_key": xorb.table, "size": xorb.size, "state": "live", "condemned_at": None}
        values |= {"promised_until": moment + PROMISE, "verified_at": moment, "scrubbed_at": moment}
        connection.execute(changed.values(values))
        if row.state == "quarantined":
            body = {"key": xorb.key, "was": row.key}
            event = {"at": moment, "act": "xorb.healed", "subject": text(xorb.hash), "body": body}
            connection.execute(sa.insert(events).values(event))

    def promise(self, domain: str, hashes: Collection[bytes]) -> None:
        """Keep xorbs of a domain for as long as clients may remember them; written at most daily per xorb."""
        before = self._clock() + PROMISE - _PROMISED_EVERY
        for part in parts_of(hashes):
            fading = self._fading.every({"domain": domain, "before": before, "hashes": part})
            if fading:
                with self._db.write() as connection:
                    self.claim(connection, [bytes(row.hash) for row in fading])

    def claim(self, connection: Connection, hashes: Collection[bytes]) -> set[bytes]:
        """Lock, revive and promise xorbs until the caller's transaction ends; return those that are here and sound."""
        found: set[bytes] = set()
        for part in parts_of(hashes):
            rows = self._locked.within(connection, {"hashes": part})
            sound = [row for row in rows if row.state in ("live", "condemned")]
            self._promise(connection, sound)
            found |= {bytes(row.hash) for row in sound}
        return found

    def shown(self, connection: Connection, domain: str, hashes: Collection[bytes]) -> set[bytes]:
        """Return those of these xorbs that a domain may name, whatever their state."""
        asked = [{"domain": domain, "hashes": part} for part in parts_of(hashes)]
        return {bytes(row.hash) for each in asked for row in self._shown.within(connection, each)}

    def _promise(self, connection: Connection, rows: Collection[Any]) -> None:
        until = self._clock() + PROMISE
        before = until - _PROMISED_EVERY
        fading = [bytes(row.hash) for row in rows if row.state == "condemned" or row.promised_until < before]
        for part in parts_of(fading):
            changed = sa.update(xet_xorbs).where(xet_xorbs.c.hash.in_(part))
            connection.execute(changed.values(state="live", condemned_at=None, promised_until=until))

    def grant(self, leave: Leave, granted: Granted) -> None:
        """Note a grant. Raises: QuotaExceeded, RepoAbsent."""
        values = {"id": granted.id, "domain_id": granted.domain, "hash": granted.hash, "key": granted.key}
        until = datetime.fromtimestamp(granted.expires, UTC)
        with self._db.write() as connection:
            self._arrivals.grant(connection, leave, granted.hash, granted.length, until)
            connection.execute(sa.insert(xet_grants).values(values | {"length": granted.length, "expires_at": until}))

    def granted(self, id: str) -> Granted:
        """Return a grant. Raises: ObjectAbsent (no such one, or it has expired)."""
        row = self._grant.first({"id": id})
        if row is None or row.expires_at <= self._clock():
            raise ObjectAbsent("This grant is unknown or has expired; ask for a new one.")
        expires = int(row.expires_at.timestamp())
        return Granted(row.id, row.domain_id, bytes(row.hash), row.key, row.length, expires)

    def drop_grant(self, id: str) -> None:
        """Forget a grant; absent is success."""
        with self._db.write() as connection:
            connection.execute(sa.delete(xet_grants).where(xet_grants.c.id == id))


def _xorb(row: Any) -> Xorb:
    return Xorb(bytes(row.hash), row.key, row.table_key, row.size, row.raw_size, row.chunks)
