"""Repo → LFS object: the rows that open bytes to a repo.

A link exists only after proof that its maker holds the bytes; knowing an oid opens nothing. Objects are shared by
content across repos, links are not: what is linked elsewhere looks absent here.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection

from registry.db import Database, lock_repo, now
from registry.errors import Busy, Damaged, DigestMismatch, ObjectAbsent, SizeMismatch
from registry.tables.objects import lfs_links, lfs_objects, lfs_uploads
from registry.tables.repos import repos

_SEEN_EVERY = timedelta(days=1)
_UPLOAD_TTL = timedelta(days=1)
_CHUNK = 10_000


ObjectState = Literal["stored", "condemned", "deleting", "damaged"]


@dataclass(frozen=True, slots=True)
class Held:
    """An object that a repo may serve: `size` in bytes, `key` in the store."""

    oid: str
    size: int
    key: str


@dataclass(frozen=True, slots=True)
class Known:
    """An object that the store knows: bytes, key, state, and whether the repo that asked has a link to it."""

    size: int
    key: str
    state: ObjectState
    linked: bool


# A deleted repo opens nothing, whatever leave was given while it was there.
_ALIVE = sa.exists().where(repos.c.id == lfs_links.c.repo_id, repos.c.deleted_at.is_(None))
_LINKED = sa.select(lfs_objects.c.oid, lfs_objects.c.size, lfs_objects.c.key).select_from(
    lfs_links.join(lfs_objects, lfs_objects.c.oid == lfs_links.c.oid)
)
_KNOWN = sa.select(
    lfs_objects.c.oid, lfs_objects.c.size, lfs_objects.c.key, lfs_objects.c.state, lfs_links.c.seen_at
).select_from(
    lfs_objects.outerjoin(
        lfs_links,
        sa.and_(lfs_links.c.oid == lfs_objects.c.oid, lfs_links.c.repo_id == sa.bindparam("repo"), _ALIVE),
    )
)


class Links:
    """Reads and makes links. Thread-safe."""

    def __init__(self, database: Database, *, clock: Callable[[], datetime] = now) -> None:
        self._db = database
        self._clock = clock

    def find(self, repo_id: int, oids: Collection[str]) -> dict[str, Held]:
        """Return the objects of these oids that this repo may serve."""
        with self._db.look() as connection:
            return find_in(connection, repo_id, oids)

    def held(self, repo_id: int, oids: Collection[str]) -> dict[str, int]:
        """Return the sizes of these oids that this repo has proven."""
        return {oid: held.size for oid, held in self.find(repo_id, oids).items()}

    def object_key(self, repo_id: int, oid: str) -> Held | None:
        """Return where one object of this repo lies, or None."""
        return self.find(repo_id, [oid]).get(oid)

    def look(self, repo_id: int, oids: Collection[str]) -> dict[str, Known]:
        """Return every object of these oids that the store knows, linked here or not, whatever its state.

        Notes, at most daily, that the links were seen: that keeps an upload whose commit is still to come.
        """
        moment = self._clock()
        stale: list[str] = []
        found: dict[str, Known] = {}
        with self._db.read() as connection:
            for part in _parts(oids):
                for row in connection.execute(_KNOWN.where(lfs_objects.c.oid.in_(part)), {"repo": repo_id}):
                    found[row.oid] = Known(row.size, row.key, row.state, row.seen_at is not None)
                    if row.seen_at is not None and row.seen_at < moment - _SEEN_EVERY:
                        stale.append(row.oid)
        if stale:
            self._refresh(repo_id, stale, moment)
        return found

    def _refresh(self, repo_id: int, oids: Collection[str], moment: datetime) -> None:
        try:
            with self._db.write() as connection:
                for part in _parts(oids):
                    here = sa.and_(lfs_links.c.repo_id == repo_id, lfs_links.c.oid.in_(part))
                    connection.execute(sa.update(lfs_links).where(here).values(seen_at=moment))
        except Busy:
            # A reader must not fail for it; the grace of a link is days, and the next batch tries again.
            pass

    def begin(
        self, repo_id: int, actor_id: int | None, objects: Sequence[tuple[str, int]], mode: str = "proxy"
    ) -> dict[str, str]:
        """Announce uploads of (oid, size); return the upload id of each oid."""
        moment = self._clock()
        made = {oid: secrets.token_hex(16) for oid, _ in objects}
        sizes = dict(objects)
        rows = [
            {
                "id": upload,
                "repo_id": repo_id,
                "actor_id": actor_id,
                "oid": oid,
                "size": sizes[oid],
                "mode": mode,
                "key": "",
                "state": "open",
                "created_at": moment,
                "expires_at": moment + _UPLOAD_TTL,
            }
            for oid, upload in made.items()
        ]
        if rows:
            with self._db.write() as connection:
                connection.execute(sa.insert(lfs_uploads), rows)
        return made

    def finish(self, upload_id: str, key: str, oid: str, size: int) -> None:
        """Record that the bytes of an upload are proven and lie at `key`: object row, link row, usage, upload done.

        One transaction; repeating it after success is success, and heals an object that was damaged since.
        Raises: ObjectAbsent (no such upload, or its repo is gone), Busy (the object is being deleted), DigestMismatch
        or SizeMismatch (the proof is of another object), Damaged (the oid is known with another size).
        """
        with self._db.write() as connection:
            row = connection.execute(sa.select(lfs_uploads).where(lfs_uploads.c.id == upload_id)).first()
            if row is None:
                raise ObjectAbsent("This upload is unknown or was closed; ask for a new one with a batch request.")
            if row.oid != oid:
                raise DigestMismatch(f"This upload is for LFS object {row.oid}, not {oid}.")
            if row.size != size:
                raise SizeMismatch(f"LFS object {oid} was announced with {row.size} bytes, not {size}.")
            if row.state == "done" and find_in(connection, row.repo_id, [oid]):
                return
            lock_repo(connection, row.repo_id)
            alive = sa.select(repos.c.id).where(repos.c.id == row.repo_id, repos.c.deleted_at.is_(None))
            if connection.execute(alive).first() is None:
                raise ObjectAbsent("The repo of this upload is gone.")
            self._store(connection, row.oid, row.size, key)
            self._link(connection, row.repo_id, row.oid, row.size, row.actor_id)
            done = sa.update(lfs_uploads).where(lfs_uploads.c.id == upload_id)
            connection.execute(done.values(state="done", key=key))

    def _store(self, connection: Connection, oid: str, size: int, key: str) -> None:
        """Make the object row, or bring it back to life; its first key stays."""
        moment = self._clock()
        values = {"oid": oid, "size": size, "key": key, "kind": "whole", "state": "stored", "stored_at": moment}
        insert_unless_there(connection, lfs_objects, [values])
        row = connection.execute(sa.select(lfs_objects).where(lfs_objects.c.oid == oid)).one()
        if row.size != size:
            raise Damaged(f"LFS object {oid} is recorded with {row.size} bytes, not {size}; run `weightroom fsck`.")
        if row.state == "deleting":
            raise Busy("This object is being removed at this moment; send it again in a few seconds.")
        if row.state != "stored":
            # Condemned or damaged: the bytes that were proven just now take its place.
            again = sa.update(lfs_objects).where(lfs_objects.c.oid == oid)
            connection.execute(again.values(state="stored", key=key, stored_at=moment, condemned_at=None))

    def _link(self, connection: Connection, repo_id: int, oid: str, size: int, actor_id: int | None) -> None:
        moment = self._clock()
        here = sa.and_(lfs_links.c.repo_id == repo_id, lfs_links.c.oid == oid)
        if connection.execute(sa.select(lfs_links.c.oid).where(here)).first() is not None:
            connection.execute(sa.update(lfs_links).where(here).values(seen_at=moment))
            return
        values = {"repo_id": repo_id, "oid": oid, "size": size, "linked_by": actor_id}
        connection.execute(sa.insert(lfs_links).values(values | {"linked_at": moment, "seen_at": moment}))
        grown = sa.update(repos).where(repos.c.id == repo_id)
        connection.execute(grown.values(lfs_bytes=repos.c.lfs_bytes + size))


def find_in(connection: Connection, repo_id: int, oids: Collection[str]) -> dict[str, Held]:
    """Do as `Links.find` does, inside a transaction that the caller holds."""
    found: dict[str, Held] = {}
    for part in _parts(oids):
        here = _LINKED.where(lfs_links.c.repo_id == repo_id, lfs_links.c.oid.in_(part))
        chosen = here.where(lfs_objects.c.state == "stored")
        found |= {row.oid: Held(row.oid, row.size, row.key) for row in connection.execute(chosen)}
    return found


def insert_unless_there(connection: Connection, table: sa.Table, rows: Sequence[Mapping[str, object]]) -> None:
    """Insert rows; one whose primary key is there already changes nothing, also when two transactions race."""
    if not rows:
        return
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    connection.execute(dialect.insert(table).on_conflict_do_nothing(), [dict(row) for row in rows])


def _parts(oids: Collection[str]) -> list[list[str]]:
    """Split into lists short enough for one statement's bound variables."""
    ordered = sorted(set(oids))
    return [ordered[start : start + _CHUNK] for start in range(0, len(ordered), _CHUNK)]
