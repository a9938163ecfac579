"""Uses: which of a xorb's chunks some files have, and whether that is all of them.

A xorb may hold chunks of several repos, and whoever may name it can ask for each of them. So a domain learns of one by
the files of a repo only if they have it whole: no chunk of anybody else shows by it.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Collection, Mapping

# A term as `lfs.xet.index.File` lays it out, without its place in the file; there may be millions.
_SPAN = struct.Struct("<32sII8x")

ROOM = 64 << 20
"""Chunks of xorbs that were met and are not whole yet, a byte for each. What is met beyond is not followed."""


class Uses:
    """Which chunks of some xorbs a list of files has, a microsecond at most for each term that is read.

    `xorbs` are hashes with their number of chunks. That a file has chunks of a xorb lies in the hashes of both, and
    holds by whatever terms the file is kept.
    """

    def __init__(self, xorbs: Mapping[bytes, int], *, room: int = ROOM) -> None:
        self._chunks: dict[bytes, int] = {}
        self._met: dict[bytes, bytearray] = {}
        self._room = room
        self._numbers: dict[bytes, int] = {}
        # Of each xorb the files by which more of it was found, by their numbers.
        self._by: dict[bytes, array[int]] = {}
        self.whole: set[bytes] = set()
        """Xorbs of which the files have every chunk."""
        self.file: dict[bytes, bytes] = {}
        """The first file that has some of a xorb."""
        self.begin(xorbs)

    @property
    def open(self) -> bool:
        """Whether another file can make any xorb whole."""
        return bool(self._met)

    @property
    def files(self) -> Collection[bytes]:
        """The files that were read."""
        return self._numbers.keys()

    def begin(self, xorbs: Mapping[bytes, int]) -> None:
        """Follow further xorbs; those that are followed stay as they are."""
        self._chunks |= xorbs
        for hash in xorbs:
            if hash not in self.whole:
                self._met.setdefault(hash, bytearray())

    def read(self, file: bytes, terms: bytes) -> None:
        """Note what a file has."""
        number = self._numbers.setdefault(file, len(self._numbers))
        grown: set[bytes] = set()
        met = self._met
        for xorb, start, end in _SPAN.iter_unpack(terms):
            if (chunks := met.get(xorb)) is None or (not chunks and not self._meet(xorb, file)):
                continue
            if chunks.find(0, start, end) >= 0:
                end = min(end, len(chunks))
                chunks[start:end] = b"\1" * (end - start)
                grown.add(xorb)
        for hash in grown:
            self._by.setdefault(hash, array("I")).append(number)
            if 0 not in met[hash]:
                self.whole.add(hash)
                self._room += len(met.pop(hash))

    def count_only(self, files: Collection[bytes]) -> None:
        """Leave out all but some files: what the others helped to find is as if no file had any of it."""
        left = {number for file, number in self._numbers.items() if file not in files}
        for hash in [hash for hash, numbers in self._by.items() if not left.isdisjoint(numbers)]:
            self.whole.discard(hash)
            self._room += len(self._met.pop(hash, b""))
            del self._by[hash], self.file[hash]

    def _meet(self, xorb: bytes, file: bytes) -> bool:
        """Make room for the chunks of a xorb; False, and it is not followed any more, if there is none."""
        size = self._chunks[xorb]
        if size > self._room:
            del self._met[xorb]
            return False
        self._room -= size
        self._met[xorb].extend(bytes(size))
        self.file[xorb] = file
        return True
