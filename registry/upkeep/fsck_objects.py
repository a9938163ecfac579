"""Checks LFS objects: their bytes, the links that open them, and the sums of the links."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Row

from lfs import soundness
from lfs.errors import LfsError
from lfs.store import ObjectStore
from registry.db import Database
from registry.tables.objects import lfs_links, lfs_objects, packs, repo_packs
from registry.tables.repos import repos
from registry.upkeep.faults import BadLink, BadObject, Found, WrongSum
from registry.upkeep.findings import Finding
from registry.upkeep.paging import paged
from registry.xet_holes import HOLED, holed_among

_OBJECTS = sa.select(lfs_objects.c.oid, lfs_objects.c.size, lfs_objects.c.key, lfs_objects.c.state)
_LINKED = sa.select(lfs_links.c.oid).where(lfs_links.c.oid == sa.bindparam("oid")).limit(1)
_ORPHANED = (
    sa.select(lfs_links.c.repo_id, lfs_links.c.oid, lfs_links.c.size, lfs_objects.c.size, lfs_objects.c.state)
    .select_from(lfs_links.outerjoin(lfs_objects, lfs_objects.c.oid == lfs_links.c.oid))
    .where(
        sa.or_(
            lfs_objects.c.oid.is_(None),
            lfs_objects.c.size != lfs_links.c.size,
            lfs_objects.c.state.in_(["condemned", "deleting"]),
        )
    )
    .order_by(lfs_links.c.repo_id, lfs_links.c.oid)
)
# The sums are part of the statement, so that every row is compared at one instant.
LFS_SUM = sa.select(sa.func.coalesce(sa.func.sum(lfs_links.c.size), 0)).where(lfs_links.c.repo_id == repos.c.id)
GIT_SUM = (
    sa.select(sa.func.coalesce(sa.func.sum(packs.c.bytes), 0))
    .select_from(repo_packs.join(packs, packs.c.id == repo_packs.c.pack_id))
    .where(repo_packs.c.repo_id == repos.c.id)
)
_SUMS = (
    sa.select(
        repos.c.id,
        repos.c.lfs_bytes,
        repos.c.git_bytes,
        LFS_SUM.scalar_subquery().label("lfs_sum"),
        GIT_SUM.scalar_subquery().label("git_sum"),
    )
).where(repos.c.deleted_at.is_(None))


class ObjectCheck:
    """Checks object rows, link rows and what is summed up from them."""

    def __init__(self, database: Database, store: ObjectStore) -> None:
        self._db = database
        self._store = store

    def objects(self, *, read_data: bool) -> Iterator[Found]:
        """Yield objects whose bytes are not those of their name. What waits for deletion may be asked back: it counts.

        A damaged object that no repo links is nobody's loss.
        """
        for row in paged(self._db, _OBJECTS, lfs_objects.c.oid):
            fault = BadObject(row.oid, row.size, row.key, row.state)
            if row.state == "damaged" or self._is_holed(row.key):
                if self._is_linked(row.oid):
                    text = "is known to be damaged; push it again to heal it"
                    yield Found(Finding("objects", "LFS object", row.oid, text), fault)
                continue
            if row.state == "deleting":
                continue
            try:
                text = soundness.flaw(self._store, row.key, row.oid, row.size, read=read_data)
            except LfsError as error:
                yield Found(Finding("objects", "LFS object", row.oid, f"cannot be read: {error.message}"))
                continue
            if text and not self._changed(row):
                yield Found(Finding("objects", "LFS object", row.oid, text), fault)

    def links(self) -> Iterator[Found]:
        """Yield links that open nothing, or something of another size."""
        with self._db.read() as connection:
            wrong = connection.execute(_ORPHANED).all()
        for row in wrong:
            held = "absent" if row.state is None else f"{row.state} with {row[3]}"
            text = f"repo {row.repo_id} links {row[2]} bytes, the object is {held}"
            yield Found(Finding("links", "LFS object", row.oid, text), BadLink(row.repo_id, row.oid))

    def sums(self) -> Iterator[Found]:
        """Yield repos whose row has other sums than their links and packs."""
        for row in paged(self._db, _SUMS, repos.c.id):
            for noun, kept, true in (("LFS", row.lfs_bytes, row.lfs_sum), ("git", row.git_bytes, row.git_sum)):
                if kept != true:
                    text = f"counts {kept} bytes of {noun}, and holds {true}"
                    yield Found(Finding("sums", "repo", str(row.id), text), WrongSum(row.id))

    def _is_holed(self, key: str) -> bool:
        with self._db.look() as connection:
            return bool(holed_among([key], lambda files: connection.execute(HOLED, files)))

    def _is_linked(self, oid: str) -> bool:
        with self._db.look() as connection:
            return connection.execute(_LINKED, {"oid": oid}).first() is not None

    def _changed(self, row: Row[*tuple[Any, ...]]) -> bool:
        """True if the row is gone, or another, since it was read."""
        with self._db.read() as connection:
            return connection.execute(_OBJECTS.where(lfs_objects.c.oid == row.oid)).first() != row
