"""The objects of a pinned list of packs.

`ManifestStore` is shared by all requests and keeps packs open; a `Manifest` is what one snapshot pins. Both are
thread-safe. Reading is all there is: objects enter a repo only through the gate.
Ids are 40 hex `str` in the plain methods; the fast paths of this folder use raw 20 bytes and say so.
"""

from __future__ import annotations

import threading
import weakref
from binascii import a2b_hex
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from dulwich.objects import ObjectID, ShaFile, parse_tree

from lfs.recent import Recent
from registry.errors import Damaged, RevisionAbsent
from registry.git.cache import PackCache
from registry.git.graph import Graph
from registry.git.intro import Intro
from registry.git.packfile import BLOB, TREE, PackFile, apply
from registry.git.snapshot import PackRow

GITLINK = 0o160000
TreeEntry = tuple[bytes, int, bytes]
"""Name, mode, raw id."""
_KEPT_BLOB = 64 << 10


@dataclass(frozen=True, slots=True, weakref_slot=True)
class OpenPack:
    """A pack and its sidecar, mapped."""

    file: PackFile
    intro: Intro


@dataclass(frozen=True, slots=True)
class Place:
    """Where an object lies."""

    file: PackFile
    offset: int


class ManifestStore:
    """Opens packs once for all requests.

    `open_packs` bounds the maps kept for later; `memory` the bytes of recently read objects.
    """

    def __init__(self, cache: PackCache, *, open_packs: int = 256, memory: int = 128 << 20) -> None:
        self._cache = cache
        self._limit = open_packs
        self._open: OrderedDict[str, OpenPack] = OrderedDict()
        self._manifests: OrderedDict[tuple[PackRow, ...], Manifest] = OrderedDict()
        self._lock = threading.Lock()
        self._contents: Recent[tuple[str, int], tuple[int, bytes]] = Recent(memory // 2)
        self._trees: Recent[bytes, tuple[TreeEntry, ...]] = Recent(memory // 2)

    def manifest(self, rows: Sequence[PackRow]) -> Manifest:
        """Open the packs of one snapshot; equal lists share one manifest.

        Raises: Damaged (a file is not what its name says), and what the store raises.
        """
        key = tuple(rows)
        with self._lock:
            found = self._manifests.get(key)
            if found is not None:
                self._manifests.move_to_end(key)
                return found
        made = Manifest([self._pack(row) for row in rows], self._contents, self._trees)
        with self._lock:
            self._manifests[key] = made
            while len(self._manifests) > self._limit // 4:
                self._manifests.popitem(last=False)
        return made

    def _pack(self, row: PackRow) -> OpenPack:
        with self._lock:
            found = self._open.get(row.id)
            if found is not None:
                self._open.move_to_end(row.id)
                return found
        lease = self._cache.lease(row)
        try:
            opened = OpenPack(PackFile(row.id, lease.pack, lease.idx), Intro.open(lease.intro))
        except BaseException:
            lease.release()
            raise
        # The copy may leave the disk cache only when the last reader of the map is gone.
        weakref.finalize(opened, lease.release)
        with self._lock:
            kept = self._open.setdefault(row.id, opened)
            while len(self._open) > self._limit:
                self._open.popitem(last=False)
        return kept


class Manifest:
    """The objects of one pinned list of packs, newest pack first."""

    def __init__(
        self,
        packs: Sequence[OpenPack],
        contents: Recent[tuple[str, int], tuple[int, bytes]],
        trees: Recent[bytes, tuple[TreeEntry, ...]],
    ) -> None:
        self.packs = tuple(packs)
        self.graph = Graph([pack.intro for pack in packs])
        self._files = tuple(pack.file for pack in packs)
        self._contents = contents
        self._trees = trees

    def contains(self, sha: str) -> bool:
        """True if one of the packs holds the object, reachable or not."""
        return self.find(a2b_hex(sha)) is not None

    def kind(self, sha: str) -> int:
        """Tell the type number of an object (1 commit, 2 tree, 3 blob, 4 tag), inflating nothing.

        Raises: RevisionAbsent.
        """
        place = self.place(a2b_hex(sha))
        return place.file.kind_at(place.offset)

    def size(self, sha: str) -> int:
        """Tell the size of an object in bytes, inflating next to nothing.

        Raises: RevisionAbsent.
        """
        place = self.place(a2b_hex(sha))
        return place.file.size_at(place.offset)

    def read(self, sha: str) -> tuple[int, bytes]:
        """Read type number and content of an object.

        Raises: RevisionAbsent, Damaged.
        """
        return self.read_id(a2b_hex(sha))

    def get(self, sha: str) -> ShaFile:
        """Read an object as dulwich parses it.

        Raises: RevisionAbsent, Damaged.
        """
        kind, content = self.read(sha)
        return ShaFile.from_raw_string(kind, content, sha=ObjectID(sha.encode()))

    def find(self, id: bytes) -> Place | None:
        """Locate an object by raw id; None if it is not here."""
        for file in self._files:
            offset = file.find(id)
            if offset is not None:
                return Place(file, offset)
        return None

    def place(self, id: bytes) -> Place:
        """Locate an object by raw id.

        Raises: RevisionAbsent.
        """
        found = self.find(id)
        if found is None:
            raise RevisionAbsent(f"no object {id.hex()}")
        return found

    def read_id(self, id: bytes) -> tuple[int, bytes]:
        """Read type number and content by raw id.

        Raises: RevisionAbsent, Damaged.
        """
        place = self.place(id)
        return self.read_at(place.file, place.offset)

    def read_at(self, file: PackFile, offset: int) -> tuple[int, bytes]:
        """Read the object at a place, applying its deltas; bases are remembered for the next in the chain."""
        chain = []
        at = offset
        while (found := self._contents.get((file.name, at))) is None:
            entry = file.header(at)
            chain.append((at, entry))
            if entry.base is None:
                break
            at = file.base_of(entry)
        kind, content = found or (entry.kind, b"")
        for at, entry in reversed(chain):
            delta = file.inflate(entry)
            content = delta if entry.base is None else apply(content, delta)
            if kind != BLOB or len(content) <= _KEPT_BLOB:
                self._contents.keep((file.name, at), (kind, content), len(content) + 200)
        return kind, content

    def is_tree(self, id: bytes) -> bool:
        """True if the object of a raw id is a tree.

        Raises: RevisionAbsent.
        """
        place = self.place(id)
        return place.file.kind_at(place.offset) == TREE

    def tree(self, id: bytes) -> tuple[TreeEntry, ...]:
        """Parse a tree by raw id.

        Raises: RevisionAbsent, Damaged (not a tree).
        """
        found = self._trees.get(id)
        if found is not None:
            return found
        kind, content = self.read_id(id)
        if kind != TREE:
            raise Damaged(f"object {id.hex()} is no tree")
        made = tuple((name, mode, a2b_hex(sha)) for name, mode, sha in parse_tree(content, 20))
        self._trees.keep(id, made, 200 + 180 * len(made))
        return made
