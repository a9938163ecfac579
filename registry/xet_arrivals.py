"""What a namespace brought by Xet and has not filed yet, or has leave to bring: it counts against the quota.

    grant   its length, until it expires; who asks again for the same xorb is counted again
    xorb    its own bytes instead, for two days; none if a file of the namespace needs the xorb already
    shard   what its files need counts no more: from the same transaction on, they count themselves
    lie     the xorbs of a file that hashes to something else count again

A file without a SHA-256 becomes no object and counts nothing: its xorbs count as if it were not there. A row that has
expired counts no more. What the server sends to itself, by leave in nobody's name, counts as the object that it is, and
is not noted here. Rows are noted where there is no quota, too: there may be one tomorrow.

Locks are taken in the order repos, namespaces, arrivals by rising hash, and then as in `registry/xet_filing`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection

from lfs.xet.index import Leave
from registry.db import Database, now
from registry.errors import RepoAbsent
from registry.links import parts_of
from registry.quota import Quotas, Usage
from registry.tables.repos import repos
from registry.tables.xet import xet_arrivals, xet_file_xorbs, xet_links, xet_xorbs

KEPT = timedelta(hours=48)
"""How long a xorb counts that no file names: an upload has its shard within hours of its xorbs, or was given up."""

# As for a batch: the repo cannot be moved or deleted meanwhile, and xorbs that come at the same time pass each other.
_HOME = (
    sa.select(repos.c.namespace_id)
    .where(repos.c.id == sa.bindparam("repo"), repos.c.deleted_at.is_(None))
    .with_for_update(read=True, key_share=True)
)
_NAMESPACE = sa.select(repos.c.namespace_id).where(repos.c.id == sa.bindparam("repo")).scalar_subquery()
_MINE = sa.and_(
    xet_arrivals.c.namespace_id == _NAMESPACE, xet_arrivals.c.hash.in_(sa.bindparam("hashes", expanding=True))
)
_NOTED = sa.select(xet_arrivals.c.hash, xet_arrivals.c.size, xet_arrivals.c.expires_at).where(_MINE)
_LOCKED = _NOTED.order_by(xet_arrivals.c.hash).with_for_update()
_MADE_OF = xet_file_xorbs.alias()
# A file that counts itself, or will.
_FILED = (
    sa.select(xet_links.c.repo_id)
    .join(xet_file_xorbs, xet_file_xorbs.c.file == xet_links.c.file)
    .join(repos, repos.c.id == xet_links.c.repo_id)
    .where(xet_links.c.sha256 != "", xet_links.c.state != "refuted")
    .where(repos.c.namespace_id == _NAMESPACE, repos.c.deleted_at.is_(None))
)
_NEEDED = _FILED.where(xet_file_xorbs.c.xorb == sa.bindparam("xorb")).limit(1)
# In the order of hashes, as every row here is locked.
_OF_FILE = (
    sa.select(
        _NAMESPACE, xet_xorbs.c.hash, xet_xorbs.c.size, sa.bindparam("until", type_=xet_arrivals.c.expires_at.type)
    )
    .select_from(_MADE_OF.join(xet_xorbs, xet_xorbs.c.hash == _MADE_OF.c.xorb))
    .where(_MADE_OF.c.file == sa.bindparam("file"), ~_FILED.where(xet_file_xorbs.c.xorb == _MADE_OF.c.xorb).exists())
    .order_by(xet_xorbs.c.hash)
)


class XetArrivals:
    """Notes what comes to namespaces, and judges it by their quotas. Thread-safe, among processes too."""

    def __init__(self, database: Database, quotas: Quotas, *, clock: Callable[[], datetime] = now) -> None:
        self._quotas = quotas
        self._clock = clock
        self._home = database.prepare(_HOME)
        self._noted = database.prepare(_NOTED)
        self._locked = database.prepare(_LOCKED)
        self._needed = database.prepare(_NEEDED)

    def check(self, leave: Leave, hash: bytes, size: int) -> None:
        """Look whether a xorb has room, before it is read; nothing is locked or noted. Raises: QuotaExceeded."""
        usage = self._quotas.look(leave.repo_id) if leave.actor_id else None
        if usage is not None and not self._needed.every({"repo": leave.repo_id, "xorb": hash}):
            usage.check(size - self.counted(leave, [hash]))

    def grant(self, connection: Connection, leave: Leave, hash: bytes, length: int, until: datetime) -> None:
        """Note leave to bring a xorb. Raises: QuotaExceeded, RepoAbsent."""
        if leave.actor_id:
            namespace_id, usage = self._entered(connection, leave)
            if usage is not None:
                usage.check(length)
            _note(connection, (namespace_id, hash, length, until), self._clock(), again=True)

    def keep(self, connection: Connection, leave: Leave, hash: bytes, size: int) -> None:
        """Note a xorb that came, before its row is locked. Raises: QuotaExceeded, RepoAbsent."""
        if leave.actor_id:
            namespace_id, usage = self._entered(connection, leave)
            if self._needed.within(connection, {"repo": leave.repo_id, "xorb": hash}):
                self.release(connection, leave, [hash])
                return
            moment = self._clock()
            if usage is not None:
                noted = self._noted.within(connection, {"repo": leave.repo_id, "hashes": [hash]})
                usage.check(size - _sum(noted, moment))
            _note(connection, (namespace_id, hash, size, moment + KEPT), moment)

    def counted(self, leave: Leave, hashes: Collection[bytes]) -> int:
        """Return the bytes that count for these xorbs at this moment."""
        asked = [{"repo": leave.repo_id, "hashes": part} for part in parts_of(hashes)]
        return sum(_sum(self._noted.every(each), self._clock()) for each in asked)

    def release(self, connection: Connection, leave: Leave, hashes: Collection[bytes]) -> int:
        """Let these xorbs count no more; return the bytes that did. The caller holds the lock of the repo."""
        released = 0
        for part in parts_of(hashes):
            rows = self._locked.within(connection, {"repo": leave.repo_id, "hashes": part})
            if rows:
                gone = sa.delete(xet_arrivals).where(_MINE)
                connection.execute(gone, {"repo": leave.repo_id, "hashes": [bytes(row.hash) for row in rows]})
            released += _sum(rows, self._clock())
        return released

    def _entered(self, connection: Connection, leave: Leave) -> tuple[int, Usage | None]:
        """Lock the repo, and its namespace if that is limited; return the namespace, and then its usage."""
        homes = self._home.within(connection, {"repo": leave.repo_id})
        if not homes:
            raise RepoAbsent("The repository is gone.")
        namespace_id: int = homes[0].namespace_id
        return namespace_id, self._quotas.held(connection, namespace_id)


def count_again(connection: Connection, repo_id: int, file: bytes, moment: datetime) -> None:
    """Count what a refuted file of a repo is made of and no other file needs. The caller holds the lock of the repo."""
    insert = (sqlite if connection.dialect.name == "sqlite" else postgresql).insert(xet_arrivals)
    again = insert.from_select(xet_arrivals.c.keys(), _OF_FILE).on_conflict_do_nothing()
    connection.execute(again, {"repo": repo_id, "file": file, "until": moment + KEPT})


def _note(
    connection: Connection, row: tuple[int, bytes, int, datetime], moment: datetime, *, again: bool = False
) -> None:
    """Write a row of (namespace, hash, size, expiry), which lasts as long as one that is there; `again` adds to its
    size."""
    insert = (sqlite if connection.dialect.name == "sqlite" else postgresql).insert(xet_arrivals)
    old, new = xet_arrivals.c, insert.excluded
    before = sa.case((old.expires_at > moment, old.size), else_=0) if again else sa.literal(0)
    changes = {
        "size": before + new.size,
        "expires_at": sa.case((old.expires_at > new.expires_at, old.expires_at), else_=new.expires_at),
    }
    noted = insert.on_conflict_do_update(index_elements=["namespace_id", "hash"], set_=changes)
    connection.execute(noted, dict(zip(xet_arrivals.c.keys(), row, strict=True)))


def _sum(rows: Sequence[Any], moment: datetime) -> int:
    return sum(row.size for row in rows if row.expires_at > moment)
