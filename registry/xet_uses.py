"""Uses: which of a xorb's chunks some files have, and whether that is all of them.

A xorb may hold chunks of several repos, and whoever may name it can ask for each of them. So a domain learns of one by
the files of a repo only if they have it whole: no chunk of anybody else shows by it.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Mapping, Sequence

# A term as `lfs.xet.index.File` lays it out, without its place in the file; there may be millions.
_SPAN = struct.Struct("<32sII8x")


class Uses:
    """Which chunks of some xorbs a list of files has; files are read until all chunks are found.

    `xorbs` are hashes with their number of chunks.
    """

    def __init__(self, xorbs: Mapping[bytes, int], files: Sequence[bytes] = ()) -> None:
        self._chunks = xorbs
        self._open = {hash: set[tuple[int, int]]() for hash in xorbs}
        self._unread = [bytes(hash) for hash in reversed(files)]
        self.files = frozenset(self._unread)
        self.whole: set[bytes] = set()
        """Xorbs of which the files have every chunk."""
        self.file: dict[bytes, bytes] = {}
        """The first file of the list that has some of a xorb."""

    def unread(self, most: int) -> list[bytes]:
        """Return files to read next; none if nothing is open any more."""
        taken, self._unread = self._unread[-most:], self._unread[:-most]
        return taken[::-1] if self._open else []

    def read(self, file: bytes, terms: bytes) -> None:
        """Note what a file has."""
        touched: set[bytes] = set()
        for xorb, start, end in _SPAN.iter_unpack(terms):
            if (spans := self._open.get(xorb)) is not None:
                spans.add((start, end))
                touched.add(xorb)
        for hash in touched:
            self.file.setdefault(hash, file)
            if _covers(self._chunks[hash], self._open[hash]):
                self.whole.add(hash)
                del self._open[hash]


def _covers(chunks: int, spans: Collection[tuple[int, int]]) -> bool:
    """Say whether spans leave none of the first `chunks` numbers out."""
    reached = 0
    for start, end in sorted(spans):
        if start > reached:
            break
        reached = max(reached, end)
    return reached >= chunks
