"""A gate, a clock that tests turn, and a collection over them."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import sqlalchemy as sa

from lfs.host import Opening, Upload, Wanted
from lfs.pointer import Pointer, canonical
from lfs.store import ObjectStore, lfs_key
from registry.db import Database
from registry.git.cache import PackCache
from registry.git.objects import ManifestStore
from registry.git.repository import Repositories
from registry.git.snapshot import ZERO
from registry.linking import Linker, Proven
from registry.quota import Quotas
from registry.tables.objects import lfs_links, lfs_objects
from registry.tables.repos import repos
from registry.upkeep.fsck import Fsck
from registry.upkeep.gc import Gc, Scope
from registry.upkeep.reclaim import Graces, Line
from registry.uploads import Uploads
from tests.registry.gate import MAIN, Gate

NONE = timedelta(0)
NO_GRACE = replace(Graces(*[NONE] * len(fields(Graces))), run=timedelta(days=1))


@dataclass
class Collected:
    """One repo behind a gate. `later` turns the collection's clock; `run` collects at that time."""

    gate: Gate
    graces: Graces = field(default_factory=Graces)

    def __post_init__(self) -> None:
        self.moment = datetime.now(UTC)
        self.database, self.store = self.gate.database, self.gate.store
        quotas = Quotas(self.database, default=None)
        self.uploads = Uploads(self.database, quotas)
        self.linker = Linker(self.database, quotas)
        self._numbers = itertools.count()

    def later(self, **delta: float) -> None:
        """Let time pass."""
        self.moment += timedelta(**delta)

    def clock(self) -> datetime:
        """Tell the collection's time: no earlier than the real one, so that what was just made is past."""
        return max(self.moment, datetime.now(UTC))

    def gc(self, graces: Graces | None = None, store: ObjectStore | None = None) -> Gc:
        """A collection as another process would have it."""
        cache = PackCache(self.store, self.gate.folder / f"cache-gc{next(self._numbers)}", 1 << 30)
        return Gc(
            database=self.database,
            store=store or self.store,
            repositories=Repositories(self.database),
            manifests=ManifestStore(cache),
            graces=graces or self.graces,
            clock=self.clock,
        )

    def run(self, *, yes: bool = True) -> list[Line]:
        """Collect."""
        return list(self.gc().run(Scope(yes=yes)))

    def plan(self, *, yes: bool = True) -> list[Line]:
        """Say what would go."""
        return list(self.gc().plan(Scope(yes=yes)))

    def begin(self, data: bytes, mode: str = "proxy", repo_id: int = 1) -> Upload:
        """Open an upload."""
        oid = hashlib.sha256(data).hexdigest()
        opening = Opening(Wanted(oid, len(data)), mode, 1 << 20 if mode in ("tus", "multipart") else 0)  # type: ignore[arg-type]
        return self.uploads.begin(repo_id, 1, [opening])[oid]

    def put(self, upload: Upload, data: bytes) -> str:
        """Send the bytes of an upload as the door does; return the key."""
        known = self.gate.links.look(upload.repo_id, [upload.oid]).get(upload.oid)
        shared = known is None or known.state == "stored"
        key = lfs_key(upload.oid, "" if shared else upload.id)
        self.store.put(key, data, len(data), upload.oid)
        return key

    def finish(self, upload: Upload, key: str) -> str:
        """Make the link."""
        return self.linker.finish(Proven(upload.id, key, upload.oid, upload.size))

    def upload(self, data: bytes, repo_id: int = 1) -> str:
        """Upload an object whole; return its oid."""
        upload = self.begin(data, repo_id=repo_id)
        self.finish(upload, self.put(upload, data))
        return upload.oid

    def push(self, files: dict[str, bytes], *, ref: bytes = MAIN, on: str | None = None, force: bool = False) -> str:
        """Push a commit with these files as LFS objects, uploaded before; return its sha."""
        for data in files.values():
            self.upload(data)
        sha = self.gate.commit({path: pointer(data) for path, data in files.items()}, on=on)
        old = self.gate.targets().get(ref, ZERO)
        assert force or on == (None if old == ZERO else old)
        assert self.gate.push((ref, old, sha)).error is None
        return sha

    def linked(self, repo_id: int = 1) -> set[str]:
        """The oids that a repo links."""
        with self.database.read() as connection:
            chosen = sa.select(lfs_links.c.oid).where(lfs_links.c.repo_id == repo_id)
            return set(connection.execute(chosen).scalars())

    def states(self) -> dict[str, str]:
        """The states of all objects."""
        with self.database.read() as connection:
            rows = connection.execute(sa.select(lfs_objects.c.oid, lfs_objects.c.state))
            return {row.oid: row.state for row in rows}

    def lfs_bytes(self, repo_id: int = 1) -> int:
        """What the repo's row counts."""
        with self.database.read() as connection:
            return int(connection.execute(sa.select(repos.c.lfs_bytes).where(repos.c.id == repo_id)).scalar_one())

    def keys(self, prefix: str = "") -> list[str]:
        """What the store holds."""
        return list(self.store.walk(prefix))

    def findings(self) -> list[str]:
        """What fsck says of rows, bytes and refs."""
        cache = PackCache(self.store, self.gate.folder / f"cache-fsck{next(self._numbers)}", 1 << 30)
        checked = Fsck(
            database=self.database,
            store=self.store,
            packs=cache,
            manifests=ManifestStore(cache),
            repositories=Repositories(self.database),
        )
        return [finding.line() for finding in checked.run(read_data=True)]


def collected(database: Database, folder: Path, store: ObjectStore | None = None) -> Collected:
    """Make one; with `store` upon that shelf."""
    return Collected(Gate(database, folder, shelf=store))


def pointer(data: bytes) -> bytes:
    """The pointer to some bytes."""
    return canonical(Pointer(hashlib.sha256(data).hexdigest(), len(data)))


def oid_of(data: bytes) -> str:
    """The oid of some bytes."""
    return hashlib.sha256(data).hexdigest()


def acts(lines: Sequence[Line]) -> list[tuple[str, str]]:
    """What was done, in order: act and kind."""
    return [(line.act, line.kind) for line in lines]
