"""Files in so many pieces that no object should be read by them, while its bytes can be had another way.

    piece    a term of a file: the store is asked for each, whatever repo the reader comes by
    strewn   more than one for 128 KiB, and 16 more: clients make pieces of 512 KiB on the average, of zeros of 128 KiB

Who brings an object first may strew its chunks over many xorbs, so that nobody reads it well, and all share its row.
"""

from __future__ import annotations

import sqlalchemy as sa

from registry.tables.xet import xet_files

PIECE = 128 << 10
"""Bytes that a file has for each of its terms, at the least."""
SPARE = 16
"""Terms that a file may have beyond that."""

# Bytes of a term, as `lfs.xet.index.File` lays it out. Both databases know the length without reading the terms.
_TERM = 48

IS_STREWN = sa.func.length(xet_files.c.terms, type_=sa.Integer) // _TERM > SPARE + xet_files.c.size // PIECE
"""Says it of rows of files."""
STREWN = sa.select(xet_files.c.hash).where(xet_files.c.hash.in_(sa.bindparam("files", expanding=True)), IS_STREWN)
"""Choose the strewn ones of some `files`."""
