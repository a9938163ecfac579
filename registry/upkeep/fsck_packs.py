"""Checks packs: all three files stored, each with the bytes of its name, index and sidecar those of their pack."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Row

from lfs import soundness
from lfs.errors import LfsError
from lfs.store import ObjectStore
from registry.db import Database
from registry.errors import RegistryError
from registry.git.cache import PackCache
from registry.git.intro import Intro
from registry.git.packfile import TRAILER, PackFile
from registry.git.snapshot import PackRow, pack_key
from registry.tables.objects import packs, repo_packs
from registry.tables.repos import repos
from registry.upkeep.faults import Fault, Found, IdlePack, LostCompanion, LostPack, Unopened, WrongFacts
from registry.upkeep.findings import Finding
from registry.upkeep.paging import paged

_PACKS = sa.select(*(packs.c[name] for name in PackRow.__slots__), packs.c.git_sha1, packs.c.state)
_IDLE = (
    sa.select(repo_packs.c.repo_id, repo_packs.c.pack_id, packs.c.state)
    .select_from(
        repo_packs.join(packs, packs.c.id == repo_packs.c.pack_id).join(repos, repos.c.id == repo_packs.c.repo_id)
    )
    .where(packs.c.state != "live", repos.c.deleted_at.is_(None))
)
_USED = (
    sa.select(repos.c.id)
    .select_from(repo_packs.join(repos, repos.c.id == repo_packs.c.repo_id))
    .where(repo_packs.c.pack_id == sa.bindparam("pack"), repos.c.deleted_at.is_(None))
    .limit(1)
)


class PackCheck:
    """Checks every pack that a repo uses.

    The bytes of others may be coming, since a push makes the row first, or going; whoever brings such a pack again
    reads what is stored before it is believed.
    """

    def __init__(self, database: Database, store: ObjectStore, cache: PackCache) -> None:
        self._db = database
        self._store = store
        self._cache = cache

    def run(self, *, read_data: bool) -> Iterator[Found]:
        """Yield what is wrong with packs."""
        for row in paged(self._db, _PACKS, packs.c.id):
            if not self._is_used(row.id):
                continue
            found = list(self._files(row, read_data=read_data))
            if found and self._changed(row):
                continue
            yield from found
        with self._db.read() as connection:
            used = connection.execute(_IDLE).all()
        for use in used:
            text = f"is {use.state}, and repo {use.repo_id} uses it"
            yield Found(Finding("packs", "pack", use.pack_id, text), IdlePack(use.pack_id))

    def _is_used(self, pack: str) -> bool:
        with self._db.look() as connection:
            return connection.execute(_USED, {"pack": pack}).first() is not None

    def _changed(self, row: Row[*tuple[Any, ...]]) -> bool:
        """True if the row is gone, or another, since it was read."""
        with self._db.read() as connection:
            return connection.execute(_PACKS.where(packs.c.id == row.id)).first() != row

    def _files(self, row: Row[*tuple[Any, ...]], *, read_data: bool) -> Iterator[Found]:
        pack = PackRow(*(getattr(row, name) for name in PackRow.__slots__))
        files: tuple[tuple[str, str, int, Fault], ...] = (
            ("pack", pack.id, pack.bytes, LostPack(pack)),
            ("index", pack.idx_oid, pack.idx_bytes, LostCompanion(pack, "index")),
            ("sidecar", pack.intro_oid, pack.intro_bytes, LostCompanion(pack, "sidecar")),
        )
        wrong = False
        for noun, oid, size, fault in files:
            try:
                text = soundness.flaw(self._store, pack_key(oid), oid, size, read=read_data)
            except LfsError as error:
                # A store that does not answer proves nothing; there is nothing to repair.
                yield Found(Finding("packs", noun, oid, f"cannot be read: {error.message}"))
                wrong = True
                continue
            if text:
                wrong = True
                yield Found(Finding("packs", noun, oid, text), fault)
        if not wrong and row.state == "live":
            yield from self._belonging(pack, row.git_sha1)

    def _belonging(self, row: PackRow, git_sha1: str) -> Iterator[Found]:
        """Check that index and sidecar are those of the pack."""
        try:
            with self._cache.lease(row) as lease, Intro.open(lease.intro) as intro:
                pack = PackFile(row.id, lease.pack, lease.idx)
                index = lease.idx.read_bytes()
                commits = [commit.sha for commit in intro]
        except (RegistryError, LfsError, ValueError) as error:
            yield Found(Finding("packs", "pack", row.id, f"cannot be opened: {error}"), Unopened((row,)))
            return
        trailer = bytes(pack.map[-TRAILER:])
        if trailer.hex() != git_sha1:
            text = "does not end with the checksum of its row"
            yield Found(Finding("packs", "pack", row.id, text), WrongFacts(row))
        if index[-2 * TRAILER : -TRAILER] != trailer:
            text = f"is not of pack {row.id}"
            yield Found(Finding("packs", "index", row.idx_oid, text), LostCompanion(row, "index"))
        if pack.count != row.objects:
            text = f"has {pack.count} objects, its row says {row.objects}"
            yield Found(Finding("packs", "pack", row.id, text), WrongFacts(row))
        strangers = [sha.hex() for sha in commits if pack.find(sha) is None]
        if strangers:
            text = f"lists commit {strangers[0]}, which pack {row.id} lacks"
            yield Found(Finding("packs", "sidecar", row.intro_oid, text), LostCompanion(row, "sidecar"))
