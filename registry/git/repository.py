"""Opens one repo at one instant.

Ref listings and pack lists are immutable for a given version number, so they are kept by (repo, version) and read
again only when the repo row shows a newer number; the row itself is read on every request.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sized
from typing import Generic, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from registry.db import Database
from registry.errors import RepoAbsent
from registry.git.snapshot import PackRow, Ref, Snapshot
from registry.tables.objects import packs, repo_packs
from registry.tables.repos import refs, repos

K = TypeVar("K", bound=Hashable)
V = TypeVar("V", bound=Sized)

_REPO = sa.select(
    repos.c.default_branch,
    repos.c.refs_version,
    repos.c.manifest_version,
    repos.c.gc_epoch,
    repos.c.closure_tips,
).where(repos.c.id == sa.bindparam("id"), repos.c.deleted_at.is_(None))
_REFS = (
    sa.select(refs.c.name, refs.c.target, refs.c.peeled)
    .where(refs.c.repo_id == sa.bindparam("id"))
    .order_by(refs.c.name)
)
_PACKS = (
    sa.select(*(packs.c[name] for name in PackRow.__slots__))
    .select_from(packs.join(repo_packs, repo_packs.c.pack_id == packs.c.id))
    .where(repo_packs.c.repo_id == sa.bindparam("id"))
    .order_by(repo_packs.c.ordinal.desc())
)


class Repositories:
    """Reads snapshots. Thread-safe; `keep` bounds how many refs, and how many packs, stay in memory."""

    def __init__(self, database: Database, *, keep: int = 200_000) -> None:
        self._db = database
        self._refs: _Kept[tuple[int, int], Mapping[bytes, Ref]] = _Kept(keep)
        self._packs: _Kept[tuple[int, int], tuple[PackRow, ...]] = _Kept(keep)

    def snapshot(self, repo_id: int) -> Snapshot:
        """Read refs, default branch and pack list of one instant.

        Raises: RepoAbsent.
        """
        with self._db.read() as connection:
            return self.snapshot_in(connection, repo_id)

    def snapshot_in(self, connection: Connection, repo_id: int) -> Snapshot:
        """Do as `snapshot` does, inside a read transaction that the caller holds.

        Never after writing in the same transaction: what a rolled-back version number meant would be remembered.
        """
        row = connection.execute(_REPO, {"id": repo_id}).first()
        if row is None:
            raise RepoAbsent("The repository is gone.")
        return Snapshot(
            repo_id=repo_id,
            head=bytes(row.default_branch),
            refs=self._refs.get((repo_id, row.refs_version), lambda: _read_refs(connection, repo_id)),
            refs_version=row.refs_version,
            manifest_version=row.manifest_version,
            gc_epoch=row.gc_epoch,
            closure_tips=row.closure_tips,
            packs=self._packs.get((repo_id, row.manifest_version), lambda: _read_packs(connection, repo_id)),
        )

    def packs(self, repo_id: int, manifest_version: int) -> tuple[PackRow, ...]:
        """List the packs of one manifest version, newest first.

        A caller that read the version from the repo row asks the database only once per version. If the manifest has
        moved on meanwhile the newer list is returned: under an unchanged gc epoch no object is ever lost.
        """

        def read() -> tuple[PackRow, ...]:
            with self._db.read() as connection:
                return _read_packs(connection, repo_id)

        return self._packs.get((repo_id, manifest_version), read)


def _read_refs(connection: Connection, repo_id: int) -> Mapping[bytes, Ref]:
    rows = connection.execute(_REFS, {"id": repo_id})
    return {bytes(row.name): Ref(bytes(row.name), row.target, row.peeled) for row in rows}


def _read_packs(connection: Connection, repo_id: int) -> tuple[PackRow, ...]:
    return tuple(PackRow(*row) for row in connection.execute(_PACKS, {"id": repo_id}))


class _Kept(Generic[K, V]):
    """Least recently used listings, bounded by their entries together; the newest stays whatever its length.

    A listing is made outside the lock, so two threads may both make it.
    """

    def __init__(self, entries: int) -> None:
        self._entries = entries
        self._held = 0
        self._listings: OrderedDict[K, V] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: K, make: Callable[[], V]) -> V:
        """Return a listing, made if it is not here."""
        with self._lock:
            if key in self._listings:
                self._listings.move_to_end(key)
                return self._listings[key]
        value = make()
        with self._lock:
            before = self._listings.pop(key, None)
            self._held += 1 + len(value) - (0 if before is None else 1 + len(before))
            self._listings[key] = value
            while self._held > self._entries and len(self._listings) > 1:
                _, gone = self._listings.popitem(last=False)
                self._held -= 1 + len(gone)
        return value
