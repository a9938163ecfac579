"""One pass over a pack in quarantine: every entry measured, every whole object hashed, nothing trusted, little held.

Declared sizes are checked before a byte is inflated and enforced while inflating. Blobs of 64 KiB and more pass in
pieces. Deltas are only measured here; `chains` applies them.
Source: gitformat-pack.
"""

from __future__ import annotations

import hashlib
import zlib
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from mmap import mmap
from typing import Protocol

from registry.git.packfile import BLOB, COMMIT, KINDS, OFS_DELTA, REF_DELTA, TAG, TRAILER, TREE
from registry.git.verdict import Limits, PackRefused, PackTooLarge

HELD_BLOB = 64 << 10
"""Blobs from this size on are never held whole, unless they are deltas."""
_PIECE = 64 << 10
_HELD_DELTAS = 32 << 20
_SMALL_DELTA = 4 << 10

Buffer = bytes | mmap


class Sink(Protocol):
    """Where objects go as they become known; raw ids."""

    def take(self, kind: int, sha: bytes, content: bytes) -> None:
        """Receive an object in full."""

    def passed(self, sha: bytes, size: int) -> None:
        """Hear of a blob that went by in pieces."""


@dataclass(slots=True)
class Entries:
    """The entries of a pack in file order; ids of deltas are b"" until their chains are resolved."""

    offsets: array[int] = field(default_factory=lambda: array("Q"))
    starts: array[int] = field(default_factory=lambda: array("Q"))
    """Where the compressed bytes begin."""
    inflated: array[int] = field(default_factory=lambda: array("Q"))
    """Bytes of the stream inflated: of the object or of the delta."""
    sizes: array[int] = field(default_factory=lambda: array("Q"))
    """Bytes of the object."""
    kinds: array[int] = field(default_factory=lambda: array("B"))
    crcs: array[int] = field(default_factory=lambda: array("L"))
    shas: list[bytes] = field(default_factory=list)
    by_offset: dict[int, list[int]] = field(default_factory=dict)
    """Offset of a base to its deltas."""
    by_id: dict[bytes, list[int]] = field(default_factory=dict)
    """Id of a base to its deltas."""
    held: dict[int, bytes] = field(default_factory=dict)
    """Inflated small deltas, while memory for them lasts."""


def object_id(kind: int, content: bytes) -> bytes:
    """Hash an object."""
    return hashlib.sha1(b"%b %d\0" % (KINDS[kind], len(content)) + content).digest()


def count_of(data: Buffer, limits: Limits) -> int:
    """Read the number of objects from a pack header.

    Raises: PackRefused.
    """
    if len(data) > limits.pack:
        raise PackTooLarge(f"pack of {len(data)} bytes; at most {limits.pack} are taken (WEIGHTROOM_MAX_PACK)")
    if len(data) < 12 + TRAILER or data[:4] != b"PACK":
        raise PackRefused("not a pack")
    if int.from_bytes(data[4:8], "big") not in (2, 3):
        raise PackRefused("pack version is neither 2 nor 3")
    count = int.from_bytes(data[8:12], "big")
    if count > limits.objects:
        raise PackTooLarge(f"pack of {count} objects; at most {limits.objects} are taken (WEIGHTROOM_MAX_OBJECTS)")
    # The smallest entry has one byte of header and eight of an empty zlib stream.
    if count * 9 > len(data):
        raise PackRefused("pack is too short for its number of objects")
    return count


class Scanner:
    """Walks a mapped pack once, then inflates single entries again on demand."""

    def __init__(self, data: Buffer, limits: Limits, sink: Sink) -> None:
        self._data, self._limits, self._sink = data, limits, sink
        self._end = len(data) - TRAILER
        self._budget = min(limits.inflated, max(limits.ratio_floor, limits.ratio * len(data)))
        self._inflated = self._expanded = self._held = 0
        self.entries = Entries()

    def run(self) -> Entries:
        """Measure all entries and hand whole objects to the sink.

        Raises: PackRefused.
        """
        count = count_of(self._data, self._limits)
        at = 12
        with memoryview(self._data) as view:
            for ordinal in range(count):
                start = at
                at = self._entry(ordinal, at)
                self.entries.crcs.append(zlib.crc32(view[start:at]))
        if at != self._end:
            raise PackRefused("bytes between the last object and the trailer")
        return self.entries

    def inflate(self, ordinal: int) -> bytes:
        """Inflate the stream of an entry that was scanned before.

        Raises: PackRefused.
        """
        entries = self.entries
        return self._whole(entries.starts[ordinal], entries.inflated[ordinal])[0]

    def _entry(self, ordinal: int, offset: int) -> int:
        """Take one entry; give the offset of the next."""
        kind, size, at = self._header(offset)
        entries = self.entries
        entries.offsets.append(offset)
        entries.kinds.append(kind)
        entries.inflated.append(size)
        if kind in (OFS_DELTA, REF_DELTA):
            at = self._base(ordinal, kind, offset, at)
            entries.starts.append(at)
            entries.shas.append(b"")
            return self._delta(ordinal, at, size)
        self.check_size(kind, size)
        self._expand(size)
        entries.starts.append(at)
        entries.sizes.append(size)
        if kind == BLOB and size >= HELD_BLOB:
            sha, at = self._stream(at, size)
            entries.shas.append(sha)
            self._sink.passed(sha, size)
            return at
        content, at = self._whole(at, size)
        sha = object_id(kind, content)
        entries.shas.append(sha)
        self._sink.take(kind, sha, content)
        return at

    def _header(self, at: int) -> tuple[int, int, int]:
        """Parse type and size, and charge the size before anything is inflated."""
        if at >= self._end:
            raise PackRefused("pack ends before its last object")
        data = self._data
        byte = data[at]
        kind, size, shift = (byte >> 4) & 7, byte & 15, 4
        at += 1
        while byte & 0x80:
            if shift > 60 or at >= self._end:
                raise PackRefused("bad object header")
            byte = data[at]
            size |= (byte & 0x7F) << shift
            shift += 7
            at += 1
        if kind not in (COMMIT, TREE, BLOB, TAG, OFS_DELTA, REF_DELTA):
            raise PackRefused(f"unknown object type {kind}")
        self._inflated += size
        if self._inflated > self._budget:
            raise PackTooLarge(
                f"pack inflates beyond {self._budget} bytes (WEIGHTROOM_MAX_INFLATED, or {self._limits.ratio}:1)"
            )
        return kind, size, at

    def check_size(self, kind: int, size: int) -> None:
        """Hold an object against the limit of its type.

        Raises: PackTooLarge.
        """
        limits = self._limits
        most = limits.blob_hard if kind == BLOB else limits.tree if kind == TREE else limits.header
        if size > most:
            raise PackTooLarge(f"{KINDS[kind].decode()} of {size} bytes; at most {most} are taken")

    def _expand(self, size: int) -> None:
        self._expanded += size
        if self._expanded > self._limits.expanded:
            raise PackTooLarge(f"objects unfold beyond {self._limits.expanded} bytes")

    def _base(self, ordinal: int, kind: int, offset: int, at: int) -> int:
        """Note which object a delta builds upon."""
        if kind == REF_DELTA:
            if at + 20 > self._end:
                raise PackRefused("bad object header")
            self.entries.by_id.setdefault(self._data[at : at + 20], []).append(ordinal)
            return at + 20
        back = -1
        while True:
            if at >= self._end or back > self._end:
                raise PackRefused("delta base offset is out of bound")
            byte = self._data[at]
            at += 1
            back = ((back + 1) << 7) | (byte & 0x7F)
            if not byte & 0x80:
                break
        if not 0 < back <= offset - 12:
            raise PackRefused("delta base offset is out of bound")
        self.entries.by_offset.setdefault(offset - back, []).append(ordinal)
        return at

    def _delta(self, ordinal: int, at: int, size: int) -> int:
        """Measure a delta: only its two sizes are read, and small ones are kept for when they are applied."""
        if size > self._limits.delta_target:
            raise self._fat_delta(size)
        if size <= _SMALL_DELTA:
            content, at = self._whole(at, size)
            if self._held + size <= _HELD_DELTAS:
                self._held += size
                self.entries.held[ordinal] = content
        else:
            content = b""
            start = at
            for piece, stop in self._pieces(start, size):
                content, at = content or piece, stop
        target = _target_size(content)
        if target > self._limits.delta_target:
            raise self._fat_delta(target)
        self._expand(target)
        self.entries.sizes.append(target)
        return at

    def _fat_delta(self, size: int) -> PackTooLarge:
        most = self._limits.delta_target
        return PackTooLarge(f"a delta of {size} bytes; at most {most}: set core.bigFileThreshold or use LFS")

    def _whole(self, at: int, size: int) -> tuple[bytes, int]:
        """Inflate one stream; give its content and the offset behind it."""
        # zlib's worst case adds less than this; longer streams take the slow way.
        window = self._data[at : min(self._end, at + size + (size >> 9) + 64)]
        if size <= _PIECE:
            inflater = zlib.decompressobj()
            try:
                content = inflater.decompress(window, size + 1)
            except zlib.error as error:
                raise PackRefused("an object does not inflate") from error
            if inflater.eof and len(content) == size:
                return content, at + len(window) - len(inflater.unused_data)
        pieces = list(self._pieces(at, size))
        return b"".join(piece for piece, _ in pieces), pieces[-1][1]

    def _stream(self, at: int, size: int) -> tuple[bytes, int]:
        """Hash a blob as it inflates."""
        digest = hashlib.sha1(b"blob %d\0" % size)
        end = at
        for piece, stop in self._pieces(at, size):
            digest.update(piece)
            end = stop
        return digest.digest(), end

    def _pieces(self, at: int, size: int) -> Iterator[tuple[bytes, int]]:
        return inflate(self._data, at, self._end, size)


def inflate(data: Buffer, at: int, end: int, size: int) -> Iterator[tuple[bytes, int]]:
    """Inflate one stream of `size` bytes in small pieces, each with the offset read so far: at last the stream's end.

    Raises: PackRefused.
    """
    inflater = zlib.decompressobj()
    got, chunk = 0, b""
    while not inflater.eof:
        if not chunk:
            chunk = data[at : min(end, at + _PIECE)]
            at += len(chunk)
        try:
            piece = inflater.decompress(chunk, min(_PIECE, size - got + 1))
        except zlib.error as error:
            raise PackRefused("an object does not inflate") from error
        got += len(piece)
        if got > size:
            raise PackRefused("an object is larger than it declares")
        if not (piece or chunk or inflater.eof):
            raise PackRefused("pack ends within an object")
        # At the end the tail may repeat what is unused already.
        chunk = b"" if inflater.eof else inflater.unconsumed_tail
        yield piece, at - len(chunk) - len(inflater.unused_data)
    if got != size:
        raise PackRefused("an object is smaller than it declares")


def _target_size(delta: bytes) -> int:
    """Read how large the object is that a delta makes."""
    at = 0
    for _ in range(2):
        value = shift = 0
        while True:
            if at >= len(delta) or shift > 63:
                raise PackRefused("a delta is cut short")
            byte = delta[at]
            value |= (byte & 0x7F) << shift
            shift += 7
            at += 1
            if not byte & 0x80:
                break
    return value
