"""Packs on local disk: the shelf's own files where it is a disk, else checked copies, least recently used first out.

    folder/<sha256>           a file whose bytes were checked against its name
    folder/<sha256>.<n>.part  a download; left by a crash and removed at the next start

One process owns the folder: another may not evict files that this one has under a lease. Everything in it may be
removed while that process does not run.
"""

from __future__ import annotations

import hashlib
import itertools
import re
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from lfs.store import ObjectStore
from registry.errors import Damaged
from registry.git.snapshot import PackRow, pack_key

_NAME = re.compile(r"[0-9a-f]{64}\Z")


@dataclass(frozen=True, slots=True)
class Lease:
    """Paths of a pack and its companions; the files stay until `release`, which may be repeated."""

    pack: Path
    idx: Path
    intro: Path
    release: Callable[[], None]

    def __enter__(self) -> Lease:
        """Give the lease itself; the block's end releases it."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Release."""
        self.release()


class PackCache:
    """Hands out packs as local files. Thread-safe; equal downloads are done once.

    `limit_bytes` bounds the copies; files under a lease are never removed, so leases alone may exceed it.
    """

    def __init__(self, store: ObjectStore, folder: Path, limit_bytes: int) -> None:
        self._store = store
        self._folder = folder
        self._limit = limit_bytes
        self._changed = threading.Condition()
        self._sizes: OrderedDict[str, int] = OrderedDict()
        self._leases: Counter[str] = Counter()
        self._busy: set[str] = set()
        self._numbers = itertools.count()
        self._adopt()

    def lease(self, row: PackRow) -> Lease:
        """Bring a pack, its index and its sidecar to local disk and keep them there.

        Raises: Damaged (the stored bytes are not what their name says), and what the store raises.
        """
        taken: list[str] = []
        try:
            paths = [self._take(oid, size, taken) for oid, size in _files(row)]
        except BaseException:
            self._release(taken)
            raise
        return Lease(paths[0], paths[1], paths[2], lambda: self._release(taken))

    def _take(self, oid: str, size: int, taken: list[str]) -> Path:
        path = self._folder / oid
        with self._changed:
            self._changed.wait_for(lambda: oid not in self._busy)
            if oid in self._sizes:
                self._sizes.move_to_end(oid)
                self._leases[oid] += 1
                taken.append(oid)
                return path
            self._busy.add(oid)
        try:
            own = self._store.stat(pack_key(oid)).path
            if own is not None:
                return own
            self._download(oid, size, path)
            with self._changed:
                self._sizes[oid] = size
                self._leases[oid] += 1
                taken.append(oid)
                self._evict()
            return path
        finally:
            with self._changed:
                self._busy.discard(oid)
                self._changed.notify_all()

    def _download(self, oid: str, size: int, path: Path) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        aside = self._folder / f"{oid}.{next(self._numbers)}.part"
        digest = hashlib.sha256()
        try:
            with aside.open("wb") as file, self._store.open(pack_key(oid)) as reader:
                for piece in reader:
                    digest.update(piece)
                    file.write(piece)
                whole = file.tell() == size
            if not whole or digest.hexdigest() != oid:
                raise Damaged(f"stored file {pack_key(oid)} does not have the bytes of its name")
            aside.rename(path)
        finally:
            aside.unlink(missing_ok=True)

    def _release(self, taken: list[str]) -> None:
        with self._changed:
            self._leases.subtract(taken)
            taken.clear()
            self._evict()

    def _evict(self) -> None:
        """Remove the files unused for longest until the rest fits; called under the lock."""
        used = sum(self._sizes.values())
        for oid in [oid for oid in self._sizes if not self._leases[oid]]:
            if used <= self._limit:
                return
            used -= self._sizes.pop(oid)
            del self._leases[oid]
            (self._folder / oid).unlink(missing_ok=True)

    def _adopt(self) -> None:
        """Take over the copies of an earlier run: a file has its final name only after its check."""
        if not self._folder.is_dir():
            return
        for path in sorted(self._folder.iterdir(), key=lambda path: path.stat().st_mtime):
            if _NAME.match(path.name):
                self._sizes[path.name] = path.stat().st_size
            elif path.suffix == ".part":
                path.unlink()
        self._evict()


def _files(row: PackRow) -> tuple[tuple[str, int], ...]:
    return (row.id, row.bytes), (row.idx_oid, row.idx_bytes), (row.intro_oid, row.intro_bytes)
