"""What namespaces hold, told to people; and quotas, as operators set them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from registry.access import Actor
from registry.accounts import AccountAbsent
from registry.db import Database, now
from registry.errors import NeedsLogin, NotAllowed
from registry.names import RepoId
from registry.quota import Quotas, Usage
from registry.tables.identity import memberships, namespaces
from registry.tables.repos import repos
from registry.tables.work import events


@dataclass(frozen=True, slots=True)
class RepoUsage:
    """What one repo holds, in bytes: packs of git, and LFS objects that it links."""

    id: int
    name: RepoId
    git: int
    lfs: int


@dataclass(frozen=True, slots=True)
class UsagePage:
    """A namespace's numbers and some of its repos; `cursor` continues behind them, 0 at the end."""

    usage: Usage
    repos: tuple[RepoUsage, ...]
    cursor: int = 0


class Usages:
    """Tells of usage and sets quotas. Thread-safe."""

    def __init__(self, database: Database, quotas: Quotas, *, clock: Callable[[], datetime] = now) -> None:
        self._db = database
        self._quotas = quotas
        self._clock = clock

    def page(self, actor: Actor, name: str, *, after: int = 0, limit: int = 100) -> UsagePage:
        """Tell somebody what their own namespace holds, or that of their organisation; admins see all.

        Raises: NeedsLogin, NotAllowed (also when there is no such namespace, so that names do not leak).
        """
        if actor.anonymous:
            raise NeedsLogin("Log in with a token to see what a namespace holds.")
        member = sa.and_(memberships.c.namespace_id == namespaces.c.id, memberships.c.user_id == actor.user_id)
        chosen = sa.select(namespaces.c.id, namespaces.c.name, memberships.c.role)
        chosen = chosen.select_from(namespaces.outerjoin(memberships, member))
        with self._db.look() as connection:
            row = connection.execute(chosen.where(namespaces.c.name_fold == name.casefold())).first()
        if row is None or not (row.id == actor.namespace_id or row.role is not None or actor.superuser):
            raise NotAllowed(f"{actor.name} may not see what the namespace {name!r} holds.")
        found = self._repos(row.id, row.name, after, limit + 1)
        cursor = found[limit - 1].id if len(found) > limit else 0
        return UsagePage(self._quotas.usage(row.id), tuple(found[:limit]), cursor)

    def all(self) -> list[Usage]:
        """Tell of every namespace, by name."""
        with self._db.read() as connection:
            ids = connection.execute(sa.select(namespaces.c.id).order_by(namespaces.c.name_fold)).scalars().all()
        return [self._quotas.usage(namespace_id) for namespace_id in ids]

    def one(self, name: str) -> Usage:
        """Tell of one namespace. Raises: AccountAbsent."""
        return self._quotas.usage(self._id(name))

    def allow(self, name: str, quota: int | None, *, by: int | None = None) -> Usage:
        """Give a namespace a quota in bytes; None leaves it to the server's setting. `by` is the id of who does it.

        What it holds beyond the quota stays; only more is refused. Raises: AccountAbsent.
        """
        namespace_id = self._id(name)
        event = {"at": self._clock(), "actor_id": by, "act": "namespace.quota", "subject": name}
        with self._db.write() as connection:
            changed = sa.update(namespaces).where(namespaces.c.id == namespace_id)
            connection.execute(changed.values(quota=quota))
            connection.execute(sa.insert(events).values(event | {"body": {"quota": quota}}))
        return self._quotas.usage(namespace_id)

    def _id(self, name: str) -> int:
        chosen = sa.select(namespaces.c.id).where(namespaces.c.name_fold == name.casefold())
        with self._db.look() as connection:
            found = connection.execute(chosen).scalar()
        if found is None:
            raise AccountAbsent(f"There is no user or organisation {name}.")
        return int(found)

    def _repos(self, namespace_id: int, namespace: str, after: int, limit: int) -> list[RepoUsage]:
        here = sa.and_(repos.c.namespace_id == namespace_id, repos.c.deleted_at.is_(None), repos.c.id > after)
        columns = (repos.c.id, repos.c.type, repos.c.name, repos.c.git_bytes, repos.c.lfs_bytes)
        with self._db.look() as connection:
            rows = connection.execute(sa.select(*columns).where(here).order_by(repos.c.id).limit(limit)).all()
        return [RepoUsage(row.id, RepoId(row.type, namespace, row.name), row.git_bytes, row.lfs_bytes) for row in rows]
