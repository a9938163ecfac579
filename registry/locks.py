"""LFS file locks: one row per locked path of a repo."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from registry.db import Database, lock_repo, now
from registry.tables.identity import namespaces, users
from registry.tables.objects import lfs_locks
from registry.tables.repos import repos
from registry.tables.work import events


@dataclass(frozen=True, slots=True)
class LockRow:
    """A lock: who holds which path, since when. `serial` orders a repo's locks, pages through them, comes once."""

    id: str
    serial: int
    path: str
    ref: str
    owner_id: int
    owner: str
    locked_at: datetime


_ROWS = sa.select(
    lfs_locks.c.id,
    lfs_locks.c.serial,
    lfs_locks.c.path,
    lfs_locks.c.ref,
    lfs_locks.c.owner_id,
    namespaces.c.name.label("owner"),
    lfs_locks.c.locked_at,
).select_from(
    lfs_locks.join(users, users.c.id == lfs_locks.c.owner_id).join(namespaces, namespaces.c.id == users.c.namespace_id)
)


class LockRows:
    """Reads and writes lock rows. Thread-safe."""

    def __init__(self, database: Database, *, clock: Callable[[], datetime] = now) -> None:
        self._db = database
        self._clock = clock

    def create(self, repo_id: int, owner_id: int, path: str, ref: str = "") -> tuple[LockRow, bool]:
        """Lock a path; return the lock on it and whether it is the one just made."""
        with self._db.write() as connection:
            lock_repo(connection, repo_id)
            held = self._first(connection, *_at(repo_id, path))
            if held is not None:
                return held, False
            lock_id = secrets.token_hex(16)
            values = {"id": lock_id, "serial": _counted(connection, repo_id), "repo_id": repo_id}
            values |= {"path": path, "path_sha": _sha(path), "ref": ref}
            values |= {"owner_id": owner_id, "locked_at": self._clock()}
            connection.execute(sa.insert(lfs_locks).values(values))
            made = self._first(connection, lfs_locks.c.id == lock_id)
            assert made is not None
            return made, True

    def list(
        self,
        repo_id: int,
        *,
        path: str | None = None,
        lock_id: str | None = None,
        after: int = 0,
        limit: int = 100,
    ) -> list[LockRow]:
        """List a repo's locks in the order they were made, those with a serial above `after`, at most `limit`."""
        chosen = _ROWS.where(lfs_locks.c.repo_id == repo_id, lfs_locks.c.serial > after)
        if path is not None:
            chosen = chosen.where(*_at(repo_id, path))
        if lock_id is not None:
            chosen = chosen.where(lfs_locks.c.id == lock_id)
        with self._db.read() as connection:
            return [LockRow(*row) for row in connection.execute(chosen.order_by(lfs_locks.c.serial).limit(limit))]

    def remove(self, repo_id: int, lock_id: str, *, by: int, force: bool) -> tuple[LockRow | None, bool]:
        """Remove a lock; return it (None: no such lock) and whether it is gone now (not: held by another, no force).

        Taking one away from somebody else is noted among the events.
        """
        with self._db.write() as connection:
            lock_repo(connection, repo_id)
            held = self._first(connection, lfs_locks.c.repo_id == repo_id, lfs_locks.c.id == lock_id)
            if held is None or (held.owner_id != by and not force):
                return held, False
            connection.execute(sa.delete(lfs_locks).where(lfs_locks.c.id == lock_id))
            if held.owner_id != by:
                self._note(connection, repo_id, held, by)
            return held, True

    def of_others(self, repo_id: int, actor_id: int | None) -> dict[str, str]:
        """Map each path that somebody else has locked to that somebody's name; what the gate asks at every push."""
        chosen = _ROWS.where(lfs_locks.c.repo_id == repo_id, lfs_locks.c.owner_id.is_distinct_from(actor_id))
        with self._db.read() as connection:
            return {row.path: row.owner for row in connection.execute(chosen)}

    def _note(self, connection: Connection, repo_id: int, broken: LockRow, by: int) -> None:
        values = {"at": self._clock(), "actor_id": by, "act": "lock.break", "repo_id": repo_id}
        values |= {"subject": broken.path, "body": {"lock": broken.id, "owner": broken.owner}}
        connection.execute(sa.insert(events).values(values))

    def _first(self, connection: Connection, *where: sa.ColumnElement[Any]) -> LockRow | None:
        row = connection.execute(_ROWS.where(*where)).first()
        return None if row is None else LockRow(*row)


def forget(connection: Connection, repo_id: int) -> None:
    """Remove every lock of a repo that is being deleted, in the caller's transaction."""
    connection.execute(sa.delete(lfs_locks).where(lfs_locks.c.repo_id == repo_id))


def _counted(connection: Connection, repo_id: int) -> int:
    """Return the next serial of a repo; one whose lock is gone is never given again."""
    counted = sa.update(repos).where(repos.c.id == repo_id).values(locks_made=repos.c.locks_made + 1)
    return int(connection.execute(counted.returning(repos.c.locks_made)).scalar_one())


def _at(repo_id: int, path: str) -> tuple[sa.ColumnElement[bool], ...]:
    return lfs_locks.c.repo_id == repo_id, lfs_locks.c.path_sha == _sha(path)


def _sha(path: str) -> str:
    return hashlib.sha256(path.encode()).hexdigest()
