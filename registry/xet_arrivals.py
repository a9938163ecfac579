"""What a namespace brought by Xet and has not filed yet, or has leave to bring: it counts against the quota.

    grant   its length, until it expires; who asks again for the same xorb is counted again
    xorb    its own bytes instead, for as long as it is promised; none if a file of the namespace had it counted before
    file    a xorb of which the namespace's files have every chunk counts no more: from then on they count themselves
    shard   what it is longer than its files
    lie     the xorbs of a file that hashes to something else count again

A file without a SHA-256 becomes no object. It counts as announced while its link lives: `registry/quota`; and its xorbs
count as if it were not there. A row that has expired counts no more. What the server sends to itself, by leave in
nobody's name, counts as the object that it is, and is not noted here. Rows are noted where there is no quota, too:
there may be one tomorrow.

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
from lfs.xet.taking import GRANT_SECONDS
from registry.db import Database, now
from registry.errors import RepoAbsent
from registry.links import parts_of
from registry.quota import Quotas
from registry.tables.repos import repos
from registry.tables.xet import xet_arrivals, xet_file_xorbs, xet_links, xet_xorbs

KEPT = timedelta(days=28)
"""How long a xorb counts that no file stands for: no collection takes it away before."""
_GRANTED = timedelta(seconds=GRANT_SECONDS)

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
# Files that count themselves, or will.
FILED = (
    sa.select(xet_links.c.repo_id)
    .join(xet_file_xorbs, xet_file_xorbs.c.file == xet_links.c.file)
    .join(repos, repos.c.id == xet_links.c.repo_id)
    .where(xet_links.c.sha256 != "", xet_links.c.state != "refuted")
    .where(repos.c.namespace_id == _NAMESPACE, repos.c.deleted_at.is_(None))
)
_NEEDED = FILED.where(xet_file_xorbs.c.xorb == sa.bindparam("xorb")).limit(1)
# Counted already, with as many bytes; of a xorb that a file needs, by who brought it and not by a grant of it.
_COUNTED = sa.and_(
    xet_arrivals.c.namespace_id == _NAMESPACE,
    xet_arrivals.c.hash == sa.bindparam("xorb"),
    xet_arrivals.c.size >= sa.bindparam("bytes"),
    xet_arrivals.c.expires_at > sa.bindparam("moment"),
    sa.or_(xet_arrivals.c.expires_at > sa.bindparam("granted"), ~_NEEDED.exists()),
)
_MADE_OF = xet_file_xorbs.alias()
# The same file by another link. In the order of hashes, as every row here is locked.
_ELSEWHERE = FILED.where(xet_links.c.file == sa.bindparam("file")).exists()
_OF_FILE = (
    sa.select(
        _NAMESPACE, xet_xorbs.c.hash, xet_xorbs.c.size, sa.bindparam("until", type_=xet_arrivals.c.expires_at.type)
    )
    .select_from(_MADE_OF.join(xet_xorbs, xet_xorbs.c.hash == _MADE_OF.c.xorb))
    .where(_MADE_OF.c.file == sa.bindparam("file"), ~_ELSEWHERE)
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
        asked = size - self.counted(leave, [hash]) if leave.actor_id else 0
        usage = self._quotas.look(leave.repo_id) if asked > 0 else None
        if usage is not None and not self._needed.every({"repo": leave.repo_id, "xorb": hash}):
            usage.check(asked)

    def grant(self, connection: Connection, leave: Leave, hash: bytes, length: int, until: datetime) -> None:
        """Note leave to bring a xorb. Raises: QuotaExceeded, RepoAbsent."""
        if leave.actor_id:
            namespace_id = self._home_of(connection, leave)
            usage = self._quotas.held(connection, namespace_id)
            if usage is not None:
                usage.check(length)
            _note(connection, (namespace_id, hash, length, until), self._clock(), again=True)

    def keep(self, connection: Connection, leave: Leave, hash: bytes, size: int) -> None:
        """Note a xorb that came, before its row is locked. Raises: QuotaExceeded, RepoAbsent."""
        if leave.actor_id:
            namespace_id = self._home_of(connection, leave)
            if self._is_counted(connection, leave, hash, size):
                return
            usage, moment = self._quotas.held(connection, namespace_id), self._clock()
            noted = self._noted.within(connection, {"repo": leave.repo_id, "hashes": [hash]})
            brought = any(row.expires_at > moment + _GRANTED for row in noted)
            if not brought and self._needed.within(connection, {"repo": leave.repo_id, "xorb": hash}):
                self.release(connection, leave, [hash])
                return
            if usage is not None:
                usage.check(size - _sum(noted, moment))
            _note(connection, (namespace_id, hash, size, moment + KEPT), moment)

    def _is_counted(self, connection: Connection, leave: Leave, hash: bytes, size: int) -> bool:
        """Let a xorb that counts already do so from now on by what came; False if it does not, or for less.

        Then nothing has to be judged, and what the namespace holds need not be summed up.
        """
        moment = self._clock()
        known = {"repo": leave.repo_id, "xorb": hash, "bytes": size, "moment": moment, "granted": moment + _GRANTED}
        longer = sa.update(xet_arrivals).where(_COUNTED).values(size=size, expires_at=moment + KEPT)
        return connection.execute(longer, known).rowcount > 0

    def add(self, connection: Connection, leave: Leave, hash: bytes, size: int) -> None:
        """Note bytes of a shard, once however often it comes. The caller has judged them and holds the repo's lock."""
        if leave.actor_id and size > 0:
            moment = self._clock()
            _note(connection, (self._home_of(connection, leave), hash, size, moment + KEPT), moment)

    def noted(self, leave: Leave, hashes: Collection[bytes]) -> set[bytes]:
        """Return those of these that count at this moment."""
        moment = self._clock()
        asked = [{"repo": leave.repo_id, "hashes": part} for part in parts_of(hashes)]
        rows = [row for each in asked for row in self._noted.every(each)]
        return {bytes(row.hash) for row in rows if row.expires_at > moment}

    def counted(self, leave: Leave, hashes: Collection[bytes], *, within: Connection | None = None) -> int:
        """Return the bytes that count for these at this moment."""
        asked = [{"repo": leave.repo_id, "hashes": part} for part in parts_of(hashes)]
        if within is not None:
            return sum(_sum(self._noted.within(within, each), self._clock()) for each in asked)
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

    def _home_of(self, connection: Connection, leave: Leave) -> int:
        """Lock the repo; return its namespace."""
        homes = self._home.within(connection, {"repo": leave.repo_id})
        if not homes:
            raise RepoAbsent("The repository is gone.")
        namespace_id: int = homes[0].namespace_id
        return namespace_id


def count_again(connection: Connection, repo_id: int, file: bytes, moment: datetime) -> None:
    """Count what a refuted file of a repo is made of, unless the namespace has it by another link as well.

    Files that have some of its chunks are not asked: they may have few. The caller holds the lock of the repo.
    """
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
