"""Which xorbs some files stand for: those of which they have every chunk.

Only then does a file count in the place of its xorbs: by one chunk, 64 MiB would cost 8 KiB. Files of one shard are put
together, and with what the namespace has filed before. Of two shards that are filed at the same time neither knows the
other: a xorb that they share counts on until it expires.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterable

import sqlalchemy as sa

from lfs.xet.index import File, Leave
from registry.db import Database
from registry.links import parts_of
from registry.tables.xet import xet_file_xorbs, xet_files, xet_xorbs
from registry.xet_arrivals import FILED, XetArrivals
from registry.xet_uses import Uses

_MOST_FILES, _MOST_TERMS = 1_000, 16 << 20
"""How many files that were filed before are asked, and how many bytes of terms of them are read."""
# A term as `lfs.xet.index.File` lays it out; there may be millions.
_XORB = struct.Struct("<32s16x")

_CHUNKS = sa.select(xet_xorbs.c.hash, xet_xorbs.c.chunks).where(
    xet_xorbs.c.hash.in_(sa.bindparam("hashes", expanding=True))
)
_SHARING = (
    FILED.with_only_columns(xet_file_xorbs.c.file)
    .where(xet_file_xorbs.c.xorb.in_(sa.bindparam("hashes", expanding=True)))
    .distinct()
    .limit(_MOST_FILES)
)
_LENGTH = sa.func.length(xet_files.c.terms)
_FILED_BEFORE = sa.select(xet_files.c.hash, _LENGTH.label("length")).where(xet_files.c.hash.in_(_SHARING))
_TERMS = sa.select(xet_files.c.terms).where(xet_files.c.hash == sa.bindparam("file"))


class XetCovered:
    """Puts files together. Thread-safe."""

    def __init__(self, database: Database, arrivals: XetArrivals) -> None:
        self._arrivals = arrivals
        self._chunks = database.prepare(_CHUNKS)
        self._before = database.prepare(_FILED_BEFORE.order_by(_LENGTH))
        self._terms = database.prepare(_TERMS)

    def whole(self, files: Collection[File]) -> set[bytes]:
        """Return the xorbs of which these files have every chunk."""
        return self._uses(files, xorbs_of(files)).whole

    def counting(self, leave: Leave, files: Collection[File]) -> set[bytes]:
        """Return the xorbs that count against a quota, and in whose place files of the namespace do with these."""
        noted = self._arrivals.noted(leave, xorbs_of(files))
        uses = self._uses(files, noted)
        if left := noted - uses.whole:
            self._read_before(leave, left, uses)
        return uses.whole

    def _uses(self, files: Collection[File], xorbs: Collection[bytes]) -> Uses:
        rows = [row for part in parts_of(xorbs) for row in self._chunks.every({"hashes": part})]
        uses = Uses({bytes(row.hash): row.chunks for row in rows})
        for file in files if rows else ():
            uses.read(file.hash, file.terms)
        return uses

    def _read_before(self, leave: Leave, xorbs: Collection[bytes], uses: Uses) -> None:
        """Let the files of the namespace help that have chunks of these xorbs, the shortest first."""
        room = _MOST_TERMS
        for part in parts_of(xorbs):
            for row in self._before.every({"repo": leave.repo_id, "hashes": part}):
                room -= row.length
                if room < 0:
                    return
                for found in self._terms.every({"file": row.hash}):
                    uses.read(bytes(row.hash), bytes(found.terms))


def xorbs_of(files: Iterable[File]) -> set[bytes]:
    """Return all xorbs that some files are made of."""
    return {xorb for file in files for (xorb,) in _XORB.iter_unpack(file.terms)}
