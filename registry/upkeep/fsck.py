"""Checks rows against bytes and refs against objects. Changes nothing; may run while the server works.

packs     every file of a row is stored with its size and hash; index and sidecar belong to the pack
refs      every target is in the repo's packs, and everything it reaches
xorbs     every xorb has its body and table; every Xet file has its xorbs, every link its file
objects   every LFS object row has its bytes
links     every link has a stored object of its size; every reachable pointer has a link
sums      every repo's row has the sums of its links and packs

A row that changed while its bytes were read was changed by somebody at work, and is no finding.
"""

from __future__ import annotations

from collections.abc import Iterator

import sqlalchemy as sa

from lfs.errors import LfsError
from lfs.store import ObjectStore
from registry.db import Database
from registry.errors import RegistryError, RepoAbsent
from registry.git.cache import PackCache
from registry.git.objects import Manifest, ManifestStore
from registry.git.reach import Flaw, Pointing, walk
from registry.git.repository import Repositories
from registry.git.snapshot import Snapshot
from registry.names import RepoId
from registry.tables.identity import namespaces
from registry.tables.objects import lfs_links
from registry.tables.repos import repos
from registry.upkeep.faults import Found, Unopened
from registry.upkeep.findings import Finding
from registry.upkeep.fsck_objects import ObjectCheck
from registry.upkeep.fsck_packs import PackCheck
from registry.upkeep.fsck_xorbs import XorbCheck
from registry.upkeep.paging import paged

_REPOS = (
    sa.select(repos.c.id, repos.c.type, namespaces.c.name.label("namespace"), repos.c.name)
    .select_from(repos.join(namespaces, namespaces.c.id == repos.c.namespace_id))
    .where(repos.c.deleted_at.is_(None))
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
        self._manifests = manifests
        self._repositories = repositories
        self._packs = PackCheck(database, store, packs)
        self._xorbs = XorbCheck(database, store)
        self._objects = ObjectCheck(database, store)

    def run(self, *, read_data: bool = False) -> Iterator[Finding]:
        """Yield what is wrong; with `read_data` every stored byte is read and hashed."""
        for look in self.looks(read_data=read_data):
            for found in look:
                yield found.finding

    def looks(self, *, read_data: bool = False) -> Iterator[Iterator[Found]]:
        """Yield one check after the other; each sees what was repaired after those before it."""
        yield self._packs.run(read_data=read_data)
        yield self._repos()
        yield self._xorbs.xorbs(read_data=read_data)
        yield self._xorbs.files()
        yield self._objects.objects(read_data=read_data)
        yield self._objects.links()
        yield self._objects.sums()

    def _repos(self) -> Iterator[Found]:
        for row in paged(self._db, _REPOS, repos.c.id):
            name = RepoId(row.type, row.namespace, row.name).web
            try:
                snapshot = self._repositories.snapshot(row.id)
            except RepoAbsent:
                # Deleted since the page was read.
                continue
            yield from self._opened(name, snapshot)

    def _opened(self, name: str, snapshot: Snapshot) -> Iterator[Found]:
        unopened = Unopened(snapshot.packs)
        try:
            manifest = self._manifests.manifest(snapshot.packs)
        except (RegistryError, LfsError, OSError) as error:
            yield Found(Finding("refs", "repo", name, f"its packs cannot be opened: {error}"), unopened)
            return
        try:
            for finding in self._reached(name, snapshot, manifest):
                yield Found(finding)
        except LfsError as error:
            yield Found(Finding("refs", "repo", name, f"cannot be walked: {error.message}"))
        except Exception as error:
            # Bytes that rotted fail below in any way that bytes can, and a check has to come to its end.
            text = f"cannot be walked: {type(error).__name__}: {error}; run with --read-data"
            yield Found(Finding("refs", "repo", name, text), unopened)

    def _reached(self, name: str, snapshot: Snapshot, manifest: Manifest) -> Iterator[Finding]:
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
            return f"names LFS object {oid}, to which the repo has no link; push it again: `git lfs push --all`"
        return f"names LFS object {oid} with {size} bytes, its link has {linked[oid]}"

    def _linked(self, repo_id: int) -> dict[str, int]:
        with self._db.read() as connection:
            return {row.oid: row.size for row in connection.execute(_LINKED, {"repo": repo_id})}
