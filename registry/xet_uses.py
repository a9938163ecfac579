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
        self._chunks = xorbs
        self._met = {hash: bytearray() for hash in xorbs}
        self._room = room
        self._files: list[bytes] = []
        # Of each xorb the files by which more of it was found, by their numbers.
        self._by: dict[bytes, array[int]] = {}
        self.whole: set[bytes] = set()
        """Xorbs of which the files have every chunk."""
        self.file: dict[bytes, bytes] = {}
        """The first file that has some of a xorb."""

    @property
    def open(self) -> bool:
        """Whether another file can make any xorb whole."""
        return bool(self._met)

    def read(self, file: bytes, terms: bytes) -> None:
        """Note what a file has."""
        self._files.append(file)
        grown: set[bytes] = set()
        met = self._met
        for xorb, start, end in _SPAN.iter_unpack(terms):
            if (chunks := met.get(xorb)) is None or (not chunks and not self._meet(xorb)):
                continue
            if chunks.find(0, start, end) >= 0:
                end = min(end, len(chunks))
                chunks[start:end] = b"\1" * (end - start)
                grown.add(xorb)
        for hash in grown:
            self.file.setdefault(hash, file)
            self._by.setdefault(hash, array("I")).append(len(self._files) - 1)
            if 0 not in met[hash]:
                self.whole.add(hash)
                self._room += len(met.pop(hash))

    def proofs(self) -> set[bytes]:
        """Return the files by which whole xorbs were found to be whole."""
        return {self._files[number] for hash in self.whole for number in self._by[hash]}

    def whole_by(self, files: Collection[bytes]) -> set[bytes]:
        """Return the xorbs that were found to be whole by some of these files, and by no other."""
        left = {number for number, file in enumerate(self._files) if file not in files}
        return {hash for hash in self.whole if left.isdisjoint(self._by[hash])}

    def _meet(self, xorb: bytes) -> bool:
        """Make room for the chunks of a xorb; False, and it is not followed any more, if there is none."""
        size = self._chunks[xorb]
        if size > self._room:
            del self._met[xorb]
            return False
        self._room -= size
        self._met[xorb].extend(bytes(size))
        return True
