"""Which LFS objects a repo still names: every pointer that its refs reach, or reached within the grace.

Exact, or refused: a commit brings what none of its parents has, so all reachable commits bring, together, all
reachable objects, and the pointers among them are known from the sidecars of the packs and from the rows that pushes
left. What cannot be read is no reason to think that nothing is there.
"""

from __future__ import annotations

from binascii import a2b_hex
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from lfs.errors import LfsError
from registry.db import Database
from registry.errors import RegistryError
from registry.git.objects import Manifest, ManifestStore
from registry.git.reach import Flaw, walk
from registry.git.repository import Repositories
from registry.git.snapshot import ZERO
from registry.tables.objects import pointers
from registry.tables.repos import ref_log


class Unsure(Exception):
    """The roots of a repo cannot be told; says why."""


@dataclass(frozen=True, slots=True)
class Roots:
    """The oids that a repo names, and the versions of the refs and packs that say so."""

    oids: frozenset[str]
    refs_version: int
    manifest_version: int


class RootFinder:
    """Finds roots. Thread-safe."""

    def __init__(self, database: Database, repositories: Repositories, manifests: ManifestStore) -> None:
        self._db = database
        self._repositories = repositories
        self._manifests = manifests

    def find(self, repo_id: int, since: datetime) -> Roots:
        """Find what refs of any kind name, and what they named at `since` or later.

        Raises: Unsure, RepoAbsent.
        """
        with self._db.read() as connection:
            snapshot = self._repositories.snapshot_in(connection, repo_id)
            tips = {ref.target for ref in snapshot.refs.values()} | _logged(connection, repo_id, since)
            known = _known(connection, repo_id)
        try:
            manifest = self._manifests.manifest(snapshot.packs)
            oids = _reached(manifest, tips - {ZERO}, known)
        except (RegistryError, LfsError, OSError) as error:
            text = error.strerror if isinstance(error, OSError) else error.message
            raise Unsure(f"its packs cannot be read ({text}); run `weightroom fsck`") from error
        return Roots(frozenset(oids), snapshot.refs_version, snapshot.manifest_version)


def _logged(connection: Connection, repo_id: int, since: datetime) -> set[str]:
    chosen = sa.select(ref_log.c.old, ref_log.c.new).where(ref_log.c.repo_id == repo_id, ref_log.c.at >= since)
    return {sha for row in connection.execute(chosen.distinct()) for sha in row}


def _known(connection: Connection, repo_id: int) -> dict[bytes, str]:
    chosen = sa.select(pointers.c.blob, pointers.c.oid).where(pointers.c.repo_id == repo_id)
    return {a2b_hex(row.blob): row.oid for row in connection.execute(chosen)}


def _reached(manifest: Manifest, tips: set[str], known: Mapping[bytes, str]) -> set[str]:
    """Gather the oids of pointers that tips reach."""
    blobs = dict(known)
    for pack in manifest.packs:
        blobs |= {row.blob: row.oid.hex() for row in pack.intro.pointers()}
    graph, found = manifest.graph, set[str]()
    ids = {a2b_hex(tip) for tip in tips}
    commits = {id for id in ids if graph.node(id) is not None}
    for node in graph.new(commits, ()):
        found.update(blobs[id] for id in node.introduced if id in blobs)
    for one in walk(manifest, [id.hex() for id in ids - commits]):
        if isinstance(one, Flaw):
            raise Unsure(f"object {one.sha} {one.text}; run `weightroom fsck`")
        found.add(one.pointer.oid)
    return found
