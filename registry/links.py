"""Repo → LFS object: the rows that open bytes to a repo.

A link exists only after proof that its maker holds the bytes; knowing an oid opens nothing. Objects are shared by
content across repos, links are not: what is linked elsewhere looks absent here. What is made of chunks is damaged as
long as some of them are.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection

from registry.db import Database, now
from registry.errors import Busy
from registry.tables.objects import lfs_links, lfs_objects
from registry.tables.repos import repos
from registry.xet_holes import HOLED, holed_among

_SEEN_EVERY = timedelta(days=1)
_CHUNK = 10_000
_Name = TypeVar("_Name", str, bytes)

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
# The time is compared there: to read a hundred of them costs more than all the rest.
_KNOWN = (
    sa.select(
        lfs_objects.c.oid,
        lfs_objects.c.size,
        lfs_objects.c.key,
        lfs_objects.c.state,
        lfs_links.c.oid.is_not(None).label("linked"),
        (lfs_links.c.seen_at < sa.bindparam("before")).label("stale"),
    )
    .select_from(
        lfs_objects.outerjoin(
            lfs_links,
            sa.and_(lfs_links.c.oid == lfs_objects.c.oid, lfs_links.c.repo_id == sa.bindparam("repo"), _ALIVE),
        )
    )
    .where(lfs_objects.c.oid.in_(sa.bindparam("oids", expanding=True)))
)


class Links:
    """Reads links; `registry/linking` makes them. Thread-safe."""

    def __init__(self, database: Database, *, clock: Callable[[], datetime] = now) -> None:
        self._db = database
        self._clock = clock
        self._known = database.prepare(_KNOWN)
        self._holed = database.prepare(HOLED)

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
        for part in parts_of(oids):
            asked = {"repo": repo_id, "before": moment - _SEEN_EVERY, "oids": part}
            for oid, size, key, state, linked, old in self._known.every(asked):
                found[oid] = Known(size, key, state, linked)
                if old:
                    stale.append(oid)
        if stale:
            self._refresh(repo_id, stale, moment)
        return found | self._damaged(found)

    def _damaged(self, found: Mapping[str, Known]) -> dict[str, Known]:
        """Return those objects that are made of chunks of which some are bad, as what they are."""
        stored = {known.key for known in found.values() if known.state == "stored"}
        bad = {key for part in parts_of(stored) for key in holed_among(part, self._holed.every)}
        return {oid: replace(known, state="damaged") for oid, known in found.items() if known.key in bad}

    def _refresh(self, repo_id: int, oids: Collection[str], moment: datetime) -> None:
        try:
            with self._db.note() as connection:
                for part in parts_of(oids):
                    here = sa.and_(lfs_links.c.repo_id == repo_id, lfs_links.c.oid.in_(part))
                    connection.execute(sa.update(lfs_links).where(here).values(seen_at=moment))
        except Busy:
            # A reader must not fail for it; the grace of a link is days, and the next batch tries again.
            pass


def find_in(connection: Connection, repo_id: int, oids: Collection[str]) -> dict[str, Held]:
    """Do as `Links.find` does, inside a transaction that the caller holds."""
    found: dict[str, Held] = {}
    for part in parts_of(oids):
        here = _LINKED.where(lfs_links.c.repo_id == repo_id, lfs_links.c.oid.in_(part))
        rows = connection.execute(here.where(lfs_objects.c.state == "stored")).all()
        bad = holed_among((row.key for row in rows), lambda files: connection.execute(HOLED, files))
        found |= {row.oid: Held(row.oid, row.size, row.key) for row in rows if row.key not in bad}
    return found


def insert_unless_there(connection: Connection, table: sa.Table, rows: Sequence[Mapping[str, object]]) -> None:
    """Insert rows; one whose primary key is there already changes nothing, also when two transactions race."""
    if not rows:
        return
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    connection.execute(dialect.insert(table).on_conflict_do_nothing(), [dict(row) for row in rows])


def parts_of(oids: Collection[_Name]) -> list[list[_Name]]:
    """Split oids, each once and in order, into lists short enough for one statement's bound variables."""
    ordered = sorted(set(oids))
    return [ordered[start : start + _CHUNK] for start in range(0, len(ordered), _CHUNK)]
