"""A repo with pushes and LFS objects on any shelf, and the ways in which a bad disk breaks it."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from lfs.pointer import Pointer, canonical
from lfs.store import ObjectStore, lfs_key
from registry.git.cache import PackCache
from registry.git.objects import ManifestStore
from registry.git.repository import Repositories
from registry.git.snapshot import ZERO, pack_key
from registry.tables.objects import lfs_objects, packs
from registry.tables.work import events
from registry.upkeep.faults import Found, Mended
from registry.upkeep.fsck import Fsck
from registry.upkeep.repair import Repair
from registry.upkeep.repair_objects import ObjectRepair
from registry.upkeep.repair_packs import PackRepair
from registry.upkeep.repair_xorbs import XorbRepair
from tests.registry.gate import MAIN, Gate


@dataclass
class Broken:
    """A house to be broken and repaired; each check has fresh caches, as the command has."""

    gate: Gate
    store: ObjectStore

    def fill(self, pushes: int = 2, objects: int = 2) -> None:
        """Push a history whose last commit has `objects` pointers."""
        tip = ""
        files: dict[str, bytes] = {"long.txt": b"".join(b"line %d\n" % at for at in range(500))}
        for number in range(objects):
            body = random.Random(number).randbytes(1000 + number)
            oid = hashlib.sha256(body).hexdigest()
            self.store.put(lfs_key(oid), body, len(body), oid)
            self.gate.link(oid, len(body))
            files[f"{number}.bin"] = canonical(Pointer(oid, len(body)))
        for number in range(pushes):
            files = files | {f"folder/{number}.txt": b"%d" % number, "long.txt": files["long.txt"] + b"%d\n" % number}
            new = self.gate.commit(files, on=tip or None, message=f"push {number}")
            assert self.gate.push((MAIN, tip or ZERO, new)).error is None
            tip = new

    def found(self, *, read_data: bool = True) -> list[Found]:
        """Check."""
        return [found for look in self._checked().looks(read_data=read_data) for found in list(look)]

    def repaired(self, *, read_data: bool = True) -> list[tuple[Found, Mended]]:
        """Check and repair, as the command does."""
        repair, done = self.repair(), []
        for look in self._checked().looks(read_data=read_data):
            done += [(found, repair.mend(found.fault)) for found in list(look)]
        return done

    def repair(self) -> Repair:
        """Make what repairs."""
        folder = self.gate.folder / "quarantine"
        copies = (self.gate.folder / "cache",)
        mended = PackRepair(self.gate.database, self.store, folder=folder, copies=copies)
        objects, xorbs = ObjectRepair(self.gate.database, self.store), XorbRepair(self.gate.database, self.store)
        return Repair(packs=mended, objects=objects, xorbs=xorbs)

    def _checked(self) -> Fsck:
        cache = PackCache(self.store, self.gate.folder / "cache2", 1 << 30)
        return Fsck(
            database=self.gate.database,
            store=self.store,
            packs=cache,
            manifests=ManifestStore(cache),
            repositories=Repositories(self.gate.database),
        )

    def rows(self) -> list[sa.Row[tuple[object, ...]]]:
        """The pack rows, oldest first."""
        with self.gate.database.read() as connection:
            return list(connection.execute(sa.select(packs).order_by(packs.c.created_at)))

    def objects(self) -> list[sa.Row[tuple[object, ...]]]:
        """The object rows."""
        with self.gate.database.read() as connection:
            return list(connection.execute(sa.select(lfs_objects).order_by(lfs_objects.c.oid)))

    def acts(self) -> list[str]:
        """What was told of repairs."""
        with self.gate.database.read() as connection:
            chosen = sa.select(events.c.act).where(events.c.act != "refs.update").order_by(events.c.id)
            return list(connection.execute(chosen).scalars())

    def pack_keys(self) -> list[str]:
        """The keys of all files of all packs."""
        return [pack_key(oid) for row in self.rows() for oid in (row.id, row.idx_oid, row.intro_oid)]

    def read(self, key: str) -> bytes:
        """Read all bytes under a key."""
        with self.store.open(key) as reader:
            return reader.read_all()

    def rot(self, key: str, *, seed: int = 1) -> None:
        """Flip one bit of what lies under a key, as a bad disk does."""
        body = bytearray(self.read(key))
        bit = random.Random(f"{seed} {key}").randrange(8 * len(body))
        body[bit // 8] ^= 1 << bit % 8
        self.overwrite(key, bytes(body))

    def overwrite(self, key: str, body: bytes) -> None:
        """Put other bytes under a key, as no put would."""
        path = self.store.stat(key).path
        if path is None:
            self.store.delete(key)
            self.store.put(key, body, len(body))
        else:
            path.chmod(0o644)
            path.write_bytes(body)


def path_of(store: ObjectStore, key: str) -> Path:
    """Where the bytes of a key are on a disk."""
    path = store.stat(key).path
    assert path is not None
    return path
