"""What a namespace may hold, what it holds, and what is on its way to it.

    used      git and LFS bytes of its living repos; each repo counts what it links, also what others share
    reserved  objects announced to its repos and not linked yet: each (repo, object) once, until its upload expires;
              files of Xet that say no SHA-256, while a link lives; and xorbs that it brought or has leave to bring,
              while its files have not all of them: `registry/xet_arrivals`
    quota     its own, else the setting `QUOTA`, else none

Who decides by these numbers locks the namespace's row, after the repo's and before any object's; no quota, no lock.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from registry.db import Database, now
from registry.errors import QuotaExceeded
from registry.tables.identity import namespaces
from registry.tables.objects import lfs_links, lfs_uploads
from registry.tables.repos import repos
from registry.tables.xet import xet_arrivals, xet_links

_LIMITED = (
    sa.select(namespaces.c.id, namespaces.c.name, namespaces.c.quota)
    .join(repos, repos.c.namespace_id == namespaces.c.id)
    .where(repos.c.id == sa.bindparam("repo"))
)
_STEPS = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB")


@dataclass(frozen=True, slots=True)
class Usage:
    """The numbers of a namespace, in bytes; `quota` is None if it may hold any amount."""

    namespace: str
    quota: int | None
    used: int
    reserved: int

    def without(self, released: int) -> Usage:
        """Return these numbers as they are once so many bytes are reserved no more."""
        return replace(self, reserved=self.reserved - released)

    def check(self, asked: int, *, reserved: bool = True) -> None:
        """Refuse `asked` bytes more than fit; without `reserved` only what is held already stands in the way.

        Raises: QuotaExceeded.
        """
        taken = self.used + (self.reserved if reserved else 0)
        if self.quota is None or asked <= 0 or taken + asked <= self.quota:
            return
        coming = f" and expects uploads of {shown(self.reserved)}" if reserved and self.reserved else ""
        raise QuotaExceeded(
            f"{self.namespace} holds {shown(self.used)}{coming}; {shown(asked)} more do not fit into its quota of "
            f"{shown(self.quota)}. Delete repos or files that nobody needs, or ask this server's operator to raise it "
            f"(weightroom quota set {self.namespace} SIZE)."
        )


class Quotas:
    """Reads and judges usage; `default` is the quota of a namespace without one of its own, None for no limit."""

    def __init__(self, database: Database, *, default: int | None = None, clock: Callable[[], datetime] = now) -> None:
        self._db = database
        self._default = default
        self._clock = clock
        self._limited = database.prepare(_LIMITED)

    def applies(self, quota: int | None) -> bool:
        """Tell whether a namespace with this quota of its own is limited."""
        return quota is not None or self._default is not None

    def held(self, connection: Connection, namespace_id: int) -> Usage | None:
        """Return the usage of a namespace that is limited, with its row locked until the transaction ends; else None.

        The caller holds the lock of the repo that is about to grow, and none of an object.
        """
        chosen = sa.select(namespaces.c.name, namespaces.c.quota).where(namespaces.c.id == namespace_id)
        row = connection.execute(chosen).one()
        if not self.applies(row.quota):
            return None
        if connection.dialect.name != "sqlite":
            # What refers to the namespace, such as a new repo of it, need not wait.
            row = connection.execute(chosen.with_for_update(key_share=True)).one()
        return self._count(connection, namespace_id, row.name, row.quota)

    def check(self, repo_id: int, asked: int) -> None:
        """Look whether `asked` bytes more fit into the namespace of a repo, before work is done in vain.

        Raises: QuotaExceeded.
        """
        usage = self.look(repo_id)
        if usage is not None:
            usage.check(asked)

    def look(self, repo_id: int) -> Usage | None:
        """Return the usage of the namespace of a repo if it is limited, else None; nothing is locked."""
        row = self._limited.first({"repo": repo_id})
        if row is None or not self.applies(row.quota):
            return None
        with self._db.read() as connection:
            return self._count(connection, row.id, row.name, row.quota)

    def usage(self, namespace_id: int) -> Usage:
        """Return the numbers of a namespace, for people."""
        chosen = sa.select(namespaces.c.name, namespaces.c.quota).where(namespaces.c.id == namespace_id)
        with self._db.read() as connection:
            row = connection.execute(chosen).one()
            return self._count(connection, namespace_id, row.name, row.quota)

    def receive(self, connection: Connection, repo_id: int, namespace_id: int) -> None:
        """Look whether a namespace has room for a repo of another, and for what is announced to it.

        The caller holds the lock of the repo. Raises: QuotaExceeded.
        """
        usage = self.held(connection, namespace_id)
        if usage is not None:
            own = _number(connection, sa.select(repos.c.git_bytes + repos.c.lfs_bytes).where(repos.c.id == repo_id))
            usage.check(own + _announced(connection, sa.select(sa.literal(repo_id)), self._clock()))

    def _count(self, connection: Connection, namespace_id: int, name: str, quota: int | None) -> Usage:
        alive = sa.and_(repos.c.namespace_id == namespace_id, repos.c.deleted_at.is_(None))
        used = _number(connection, sa.select(sa.func.sum(repos.c.git_bytes + repos.c.lfs_bytes)).where(alive))
        moment = self._clock()
        reserved = _announced(connection, sa.select(repos.c.id).where(alive), moment)
        reserved += _number(connection, _brought(namespace_id, moment))
        return Usage(name, self._default if quota is None else quota, used, reserved)


def pending(moment: datetime) -> sa.ColumnElement[bool]:
    """Say of an upload that its bytes may still come, or came and wait for their proof."""
    coming = sa.and_(lfs_uploads.c.state == "open", lfs_uploads.c.expires_at > moment)
    return sa.or_(lfs_uploads.c.state == "arrived", coming)


def shown(size: int) -> str:
    """Write a size for people: `900 bytes`, `1.5 GiB`."""
    if size < 1024:
        return f"{size} bytes"
    step = min((size.bit_length() - 1) // 10, len(_STEPS) - 1)
    return f"{size / (1 << 10 * step):.1f}".removesuffix(".0") + f" {_STEPS[step]}"


def _announced(connection: Connection, here: sa.Select[tuple[int]], moment: datetime) -> int:
    """Sum up what is announced to repos and will be no link's yet, or never."""
    return _number(connection, _reserved(here, moment)) + _number(connection, _unnamed(here))


def _unnamed(here: sa.Select[tuple[int]]) -> sa.Select[Any]:
    files = sa.and_(xet_links.c.repo_id.in_(here), xet_links.c.sha256 == "")
    return sa.select(sa.func.sum(sa.cast(xet_links.c.size, sa.Float(53)))).where(files)


def _reserved(here: sa.Select[tuple[int]], moment: datetime) -> sa.Select[tuple[float]]:
    linked = sa.exists().where(lfs_links.c.repo_id == lfs_uploads.c.repo_id, lfs_links.c.oid == lfs_uploads.c.oid)
    # By the cast SQLite knows that it is to look by repo, and not through what all namespaces wait for.
    state = sa.cast(lfs_uploads.c.state, sa.Text)
    coming = sa.or_(state == "arrived", sa.and_(state == "open", lfs_uploads.c.expires_at > moment))
    each = (
        sa.select(sa.func.max(lfs_uploads.c.size).label("size"))
        .where(lfs_uploads.c.repo_id.in_(here), lfs_uploads.c.state.in_(["arrived", "open"]), coming, ~linked)
        .group_by(lfs_uploads.c.repo_id, lfs_uploads.c.oid)
        .subquery()
    )
    # Announced by whoever likes, up to 2^63 - 1 each: SQLite has no integers for a sum of these.
    return sa.select(sa.func.sum(sa.cast(each.c.size, sa.Float(53))))


def _brought(namespace_id: int, moment: datetime) -> sa.Select[tuple[int]]:
    mine = sa.and_(xet_arrivals.c.namespace_id == namespace_id, xet_arrivals.c.expires_at > moment)
    return sa.select(sa.func.sum(xet_arrivals.c.size)).where(mine)


def _number(connection: Connection, statement: sa.Select[Any]) -> int:
    # PostgreSQL sums to a decimal, and nothing to NULL.
    found: Any = connection.execute(statement).scalar()
    return int(found or 0)
