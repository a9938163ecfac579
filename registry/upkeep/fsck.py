"""Checks rows against bytes and refs against objects. Changes nothing; may run while the server works.

packs     every file of a row is stored with its size and hash; index and sidecar belong to the pack
refs      every target is in the repo's packs, and everything it reaches
objects   every LFS object row has its bytes
links     every link has a stored object of its size; every reachable pointer has a link
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Row

from lfs.errors import LfsError
from lfs.store import ObjectStore
from registry.db import Database
from registry.errors import RegistryError, RepoAbsent
from registry.git.cache import PackCache
from registry.git.intro import Intro
from registry.git.objects import ManifestStore
from registry.git.packfile import PackFile
from registry.git.reach import Flaw, Pointing, walk
from registry.git.repository import Repositories
from registry.git.snapshot import PackRow, Snapshot, pack_key
from registry.names import RepoId
from registry.tables.identity import namespaces
from registry.tables.objects import lfs_links, lfs_objects, packs, repo_packs
from registry.tables.repos import repos
from registry.upkeep.findings import Finding

_PAGE = 1000
_CHECKSUM = 20

_PACKS = sa.select(*(packs.c[name] for name in PackRow.__slots__), packs.c.git_sha1, packs.c.state)
_REPOS = (
    sa.select(repos.c.id, repos.c.type, namespaces.c.name.label("namespace"), repos.c.name)
    .select_from(repos.join(namespaces, namespaces.c.id == repos.c.namespace_id))
    .where(repos.c.deleted_at.is_(None))
)
_ORPHANED = (
    sa.select(lfs_links.c.repo_id, lfs_links.c.oid, lfs_links.c.size, lfs_objects.c.size, lfs_objects.c.state)
    .select_from(lfs_links.outerjoin(lfs_objects, lfs_objects.c.oid == lfs_links.c.oid))
    .where(
        sa.or_(
            lfs_objects.c.oid.is_(None),
            lfs_objects.c.size != lfs_links.c.size,
            lfs_objects.c.state.in_(["deleting", "damaged"]),
        )
    )
)
_UNUSABLE = (
    sa.select(repo_packs.c.repo_id, repo_packs.c.pack_id, packs.c.state)
    .select_from(repo_packs.join(packs, packs.c.id == repo_packs.c.pack_id))
    .where(packs.c.state != "live")
)
_LINKED = sa.select(lfs_links.c.oid, lfs_links.c.size).where(lfs_links.c.repo_id == sa.bindparam("repo"))


class Fsck:
    """Checks one house."""

    def __init__(
        self,
        *,
        database: Database,
        store: ObjectStore,
        packs: PackCache,
        manifests: ManifestStore,
        repositories: Repositories,
    ) -> None:
        self._db = database
        self._store = store
        self._cache = packs
        self._manifests = manifests
        self._repositories = repositories

    def run(self, *, read_data: bool = False) -> Iterator[Finding]:
        """Yield what is wrong; with `read_data` every stored byte is read and hashed."""
        yield from self._packs(read_data=read_data)
        yield from self._repos()
        yield from self._objects(read_data=read_data)
        yield from self._links()

    def _packs(self, *, read_data: bool) -> Iterator[Finding]:
        for row in self._paged(_PACKS, packs.c.id):
            pack = PackRow(*(getattr(row, name) for name in PackRow.__slots__))
            files = (("pack", pack.id, pack.bytes), ("index", pack.idx_oid, pack.idx_bytes))
            wrong = False
            for noun, oid, size in (*files, ("sidecar", pack.intro_oid, pack.intro_bytes)):
                text = self._stored(pack_key(oid), oid, size, read_data=read_data)
                if text:
                    wrong = True
                    yield Finding("packs", noun, oid, text)
            if not wrong and row.state == "live":
                yield from self._belonging(pack, row.git_sha1)
        with self._db.read() as connection:
            for use in connection.execute(_UNUSABLE):
                yield Finding("packs", "pack", use.pack_id, f"is {use.state}, and repo {use.repo_id} uses it")

    def _belonging(self, row: PackRow, git_sha1: str) -> Iterator[Finding]:
        """Check that index and sidecar are those of the pack."""
        try:
            with self._cache.lease(row) as lease, Intro.open(lease.intro) as intro:
                pack = PackFile(row.id, lease.pack, lease.idx)
                index = lease.idx.read_bytes()
                commits = [commit.sha for commit in intro]
        except (RegistryError, LfsError) as error:
            yield Finding("packs", "pack", row.id, error.message)
            return
        trailer = bytes(pack.map[-_CHECKSUM:])
        if trailer.hex() != git_sha1:
            yield Finding("packs", "pack", row.id, "does not end with the checksum of its row")
        if index[-2 * _CHECKSUM : -_CHECKSUM] != trailer:
            yield Finding("packs", "index", row.idx_oid, f"is not of pack {row.id}")
        if pack.count != row.objects:
            yield Finding("packs", "pack", row.id, f"has {pack.count} objects, its row says {row.objects}")
        strangers = [sha.hex() for sha in commits if pack.find(sha) is None]
        if strangers:
            yield Finding("packs", "sidecar", row.intro_oid, f"lists commit {strangers[0]}, which pack {row.id} lacks")

    def _repos(self) -> Iterator[Finding]:
        for row in self._paged(_REPOS, repos.c.id):
            name = RepoId(row.type, row.namespace, row.name).web
            try:
                snapshot = self._repositories.snapshot(row.id)
            except RepoAbsent:
                # Deleted since the page was read.
                continue
            yield from self._repo(name, snapshot)

    def _repo(self, name: str, snapshot: Snapshot) -> Iterator[Finding]:
        try:
            manifest = self._manifests.manifest(snapshot.packs)
        except (RegistryError, LfsError, OSError) as error:
            yield Finding("refs", "repo", name, f"its packs cannot be opened: {error}")
            return
        for ref in snapshot.refs.values():
            if not manifest.contains(ref.target):
                shown = ref.name.decode(errors="replace")
                yield Finding("refs", "ref", f"{name} {shown}", f"points to {ref.target}, which no pack holds")
        linked = self._linked(snapshot.repo_id)
        for found in walk(manifest, {ref.target for ref in snapshot.refs.values()}):
            if isinstance(found, Flaw):
                by = f" (named by {found.named_by})" if found.named_by else ""
                yield Finding("refs", "object", f"{name} {found.sha}", found.text + by)
            elif linked.get(found.pointer.oid) != found.pointer.size:
                yield Finding("links", "pointer", f"{name} {found.blob}", self._unlinked(found, linked))

    def _unlinked(self, found: Pointing, linked: dict[str, int]) -> str:
        oid, size = found.pointer.oid, found.pointer.size
        if oid not in linked:
            return f"names LFS object {oid}, to which the repo has no link"
        return f"names LFS object {oid} with {size} bytes, its link has {linked[oid]}"

    def _linked(self, repo_id: int) -> dict[str, int]:
        with self._db.read() as connection:
            return {row.oid: row.size for row in connection.execute(_LINKED, {"repo": repo_id})}

    def _objects(self, *, read_data: bool) -> Iterator[Finding]:
        chosen = sa.select(lfs_objects.c.oid, lfs_objects.c.size, lfs_objects.c.key, lfs_objects.c.state)
        for row in self._paged(chosen, lfs_objects.c.oid):
            if row.state == "damaged":
                yield Finding("objects", "LFS object", row.oid, "is known to be damaged; push it again to heal it")
            elif row.state == "stored":
                text = self._stored(row.key, row.oid, row.size, read_data=read_data)
                if text:
                    yield Finding("objects", "LFS object", row.oid, text)

    def _links(self) -> Iterator[Finding]:
        with self._db.read() as connection:
            for row in connection.execute(_ORPHANED):
                text = f"repo {row.repo_id} links {row[2]} bytes, the object is {row.state or 'absent'} with {row[3]}"
                yield Finding("links", "LFS object", row.oid, text)

    def _stored(self, key: str, sha256: str, size: int, *, read_data: bool) -> str:
        """Say what is wrong with the bytes under a key; empty if nothing is."""
        try:
            found = self._store.stat(key).size
            if found != size:
                return f"has {found} bytes under {key}, its row says {size}"
            if read_data and self._hash(key) != sha256:
                return f"has other bytes under {key} than its hash says"
        except LfsError as error:
            return f"cannot be read under {key}: {error.code}: {error.message}"
        return ""

    def _hash(self, key: str) -> str:
        digest = hashlib.sha256()
        with self._store.open(key) as reader:
            for piece in reader:
                digest.update(piece)
        return digest.hexdigest()

    def _paged(self, chosen: sa.Select[Any], column: sa.Column[Any]) -> Iterator[Row[*tuple[Any, ...]]]:
        """Read rows in order of a key, in short transactions: none stays open while bytes are read."""
        last: object = None
        while True:
            where = [] if last is None else [column > last]
            with self._db.read() as connection:
                rows = connection.execute(chosen.where(*where).order_by(column).limit(_PAGE)).all()
            yield from rows
            if len(rows) < _PAGE:
                return
            last = rows[-1][0]
