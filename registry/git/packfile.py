"""One pack and its index on disk: find an object by id, read it, or hand out its bytes as they lie.

Ids are raw 20 bytes here. Nothing changes after opening except tables that are built once under a lock, so any
number of threads may read one `PackFile`; dulwich's own pack objects keep caches without locks and may not be shared.
The maps keep their bytes even when the files are removed meanwhile.
Source: gitformat-pack (pack version 2 and 3, index version 2).
"""

from __future__ import annotations

import mmap
import os
import sys
import threading
import zlib
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, cast

from dulwich.errors import ApplyDeltaError
from dulwich.pack import apply_delta as _apply_delta
from dulwich.pack import bisect_find_sha

from registry.errors import Damaged

COMMIT, TREE, BLOB, TAG, OFS_DELTA, REF_DELTA = 1, 2, 3, 4, 6, 7
KINDS = {COMMIT: b"commit", TREE: b"tree", BLOB: b"blob", TAG: b"tag"}
TRAILER = 20
_READ_WHOLE = 64 << 10
_IDX_HEADER = 8 + 256 * 4
_apply = cast(Callable[[bytes, bytes], list[bytes]], _apply_delta)


class Entry(NamedTuple):
    """The header of one pack entry; `base` is an offset for OFS_DELTA, an id for REF_DELTA, else None.

    A named tuple: one is made for each object of a fetch, and it costs a third of a frozen dataclass.
    """

    kind: int
    size: int
    """Inflated bytes: of the object, or of the delta."""
    base: int | bytes | None
    data: int
    """Offset of the compressed bytes."""


class PackFile:
    """A pack and its index, mapped.

    Raises: Damaged (files that are no pack and index of the same count).
    """

    def __init__(self, name: str, pack: Path, idx: Path) -> None:
        self.name = name
        self.map = _mapped(pack)
        self._idx = _mapped(idx)
        if self.map[:4] != b"PACK" or self._idx[:8] != b"\xfftOc\0\0\0\x02":
            raise Damaged(f"pack {name} or its index has a wrong header")
        self._fan = _big_endian(self._idx[8:_IDX_HEADER], "I")
        self.count = int(self._fan[255])
        if int.from_bytes(self.map[8:12], "big") != self.count:
            raise Damaged(f"pack {name} and its index disagree on the number of objects")
        self._offsets_at = _IDX_HEADER + self.count * 24
        self._order: tuple[array[int], array[int]] | None = None
        self._lock = threading.Lock()

    @property
    def size(self) -> int:
        """Bytes of the pack file."""
        return len(self.map)

    def find(self, id: bytes) -> int | None:
        """Find the offset of an object; None if it is not here."""
        first = id[0]
        low, high = (self._fan[first - 1] if first else 0), self._fan[first]
        if low == high:
            return None
        ordinal = bisect_find_sha(low, high - 1, id, self.id_at)
        return None if ordinal is None else self._offset(ordinal)

    def id_at(self, ordinal: int) -> bytes:
        """Give the id at a position of the sorted index."""
        start = _IDX_HEADER + ordinal * 20
        return self._idx[start : start + 20]

    def objects(self) -> Iterator[tuple[bytes, int]]:
        """Yield ids with offsets, in order of ids."""
        for ordinal in range(self.count):
            yield self.id_at(ordinal), self._offset(ordinal)

    def id_of(self, offset: int) -> bytes:
        """Name the object that starts at an offset.

        Raises: Damaged (none starts there).
        """
        offsets, ordinals = self._ordered()
        at = bisect_left(offsets, offset)
        if at == len(offsets) or offsets[at] != offset:
            raise Damaged(f"pack {self.name} has no object at {offset}")
        return self.id_at(ordinals[at])

    def offsets(self) -> array[int]:
        """Give the offsets of all entries in file order; not to be changed."""
        return self._ordered()[0]

    def end_of(self, offset: int) -> int:
        """Give the offset behind the entry that starts at `offset`."""
        offsets = self._ordered()[0]
        at = bisect_left(offsets, offset) + 1
        return offsets[at] if at < len(offsets) else len(self.map) - TRAILER

    def header(self, offset: int) -> Entry:
        """Parse the header of the entry at an offset."""
        data = self.map
        byte = data[offset]
        kind, size, shift, at = (byte >> 4) & 7, byte & 15, 4, offset + 1
        while byte & 0x80:
            byte = data[at]
            size |= (byte & 0x7F) << shift
            shift += 7
            at += 1
        if kind == OFS_DELTA:
            back, at = _back(data, at)
            return Entry(kind, size, offset - back, at)
        if kind == REF_DELTA:
            return Entry(kind, size, data[at : at + 20], at + 20)
        return Entry(kind, size, None, at)

    def base_of(self, entry: Entry) -> int:
        """Find where the base of a delta lies; stored packs hold all their bases.

        Raises: Damaged (it is not here).
        """
        if isinstance(entry.base, int):
            return entry.base
        found = None if entry.base is None else self.find(entry.base)
        if found is None:
            raise Damaged(f"pack {self.name} lacks the base of a delta")
        return found

    def kind_at(self, offset: int) -> int:
        """Tell the type of the object at an offset, through its delta chain, inflating nothing."""
        entry = self.header(offset)
        while entry.base is not None:
            entry = self.header(self.base_of(entry))
        return entry.kind

    def size_at(self, offset: int) -> int:
        """Tell the size of the object at an offset, inflating at most the first bytes of a delta."""
        entry = self.header(offset)
        if entry.base is None:
            return entry.size
        head = zlib.decompressobj().decompress(self.map[entry.data : entry.data + 1024], 32)
        return _varint(head, _varint(head, 0)[1])[0]

    def inflate(self, entry: Entry) -> bytes:
        """Inflate the bytes of an entry: the object itself, or its delta.

        Raises: Damaged (they are not the zlib stream that the header promises).
        """
        # Compressed data may exceed its content a little; the slack covers zlib's worst case.
        stop = entry.data + entry.size + (entry.size >> 9) + 128
        inflater = zlib.decompressobj()
        try:
            content = inflater.decompress(self.map[entry.data : stop], entry.size + 1)
        except zlib.error as error:
            raise Damaged(f"pack {self.name} does not inflate at {entry.data}") from error
        if len(content) != entry.size:
            raise Damaged(f"pack {self.name} has an object of the wrong size at {entry.data}")
        return content

    def _offset(self, ordinal: int) -> int:
        start = self._offsets_at + ordinal * 4
        offset = int.from_bytes(self._idx[start : start + 4], "big")
        if offset & 0x80000000:
            start = self._offsets_at + self.count * 4 + (offset & 0x7FFFFFFF) * 8
            offset = int.from_bytes(self._idx[start : start + 8], "big")
        return offset

    def _ordered(self) -> tuple[array[int], array[int]]:
        """Offsets in file order, and beside each its position in the index; sorted once, when first asked for."""
        with self._lock:
            if self._order is None:
                short = _big_endian(self._idx[self._offsets_at : self._offsets_at + self.count * 4], "I")
                offsets = [self._offset(n) if value & 0x80000000 else value for n, value in enumerate(short)]
                ordinals = sorted(range(self.count), key=offsets.__getitem__)
                self._order = array("Q", [offsets[n] for n in ordinals]), array("I", ordinals)
            return self._order


def apply(base: bytes, delta: bytes) -> bytes:
    """Apply a git delta to its base.

    Raises: Damaged.
    """
    try:
        return b"".join(_apply(base, delta))
    except (ApplyDeltaError, ValueError, IndexError) as error:
        raise Damaged("a stored delta does not fit its base") from error


def _mapped(path: Path) -> bytes | mmap.mmap:
    """Map a file, or read it if it is small: a map costs a file descriptor for as long as it lives."""
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size <= _READ_WHOLE:
            return file.read()
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _big_endian(data: bytes, code: str) -> array[int]:
    values: array[int] = array(code, data)
    if sys.byteorder == "little":
        values.byteswap()
    return values


def _back(data: bytes | mmap.mmap, at: int) -> tuple[int, int]:
    """Read the distance of an OFS_DELTA; also where it ends."""
    byte = data[at]
    back = byte & 0x7F
    while byte & 0x80:
        at += 1
        byte = data[at]
        back = ((back + 1) << 7) | (byte & 0x7F)
    return back, at + 1


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        shift += 7
        at += 1
        if not byte & 0x80:
            return value, at
