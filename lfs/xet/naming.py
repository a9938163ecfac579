"""The names of files over their chunks: of many files, and of long ones, a batch at a time.

    row     hash[32] · u64 bytes, little-endian: a chunk, or a node of a level above
    batch   rows of many files, each file named at once; or of one level of one file, which gives rows of the next

A name costs 9 µs a chunk and holds the interpreter meanwhile, so a batch is run where the caller says.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import ParamSpec, Protocol, TypeVar

from lfs.xet import hashes

P = ParamSpec("P")
T = TypeVar("T")

BATCH = 1 << 16
"""Rows of a batch: 2.6 MB, and half a second of a core."""

_ROW = struct.Struct("<32sQ")


class Run(Protocol):
    """Runs a top-level function, here or elsewhere."""

    def __call__(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return its value. Raises: what it raises."""


def here(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a function at once."""
    return function(*args, **kwargs)


def rows(leaves: Iterable[tuple[bytes, int]]) -> bytes:
    """Lay chunks out, given as (hash, raw length)."""
    return b"".join([_ROW.pack(raw, size) for raw, size in leaves])


def named(files: Iterable[tuple[int, Iterator[bytes]]], run: Run) -> Iterator[bytes]:
    """Name files, each given as how many chunks it has and their rows in pieces; reads a batch ahead."""
    batch: list[bytes] = []
    room = BATCH
    for count, pieces in files:
        # At most so many: a group has three nodes, but for the last one.
        while count > BATCH:
            pieces, count = _climbed(pieces, run), count // 3 + 1
        batch.append(b"".join(pieces))
        room -= count
        if room < 0:
            yield from run(names, batch)
            batch, room = [], BATCH
    yield from run(names, batch)


def names(files: Sequence[bytes]) -> list[bytes]:
    """Name files, each given as the rows of all chunks or of all nodes of one level."""
    return [hashes.file(_ROW.iter_unpack(each)) for each in files]


def climb(rows: bytes, *, ends: bool) -> tuple[bytes, int]:
    """Return the rows of the parents of nodes in a row, and how many bytes are left over at the end.

    Unless the level `ends` here, a group may go on in the rows that follow.
    """
    parents: list[bytes] = []
    window: list[tuple[bytes, int]] = []
    for each in _ROW.iter_unpack(rows):
        window.append(each)
        if len(window) == hashes.MOST:
            parents.append(_ROW.pack(*hashes.node(hashes.cut(window))))
    while ends and window:
        parents.append(_ROW.pack(*hashes.node(hashes.cut(window))))
    return b"".join(parents), len(window) * _ROW.size


def _climbed(pieces: Iterator[bytes], run: Run) -> Iterator[bytes]:
    """Pass on the level above the one that comes in pieces of any size; a node that is alone has none above it."""
    held, alone = bytearray(), True
    for piece in pieces:
        held += piece
        if len(held) >= BATCH * _ROW.size:
            parents, left = run(climb, bytes(held), ends=False)
            del held[: len(held) - left]
            alone = False
            yield parents
    yield bytes(held) if alone and len(held) <= _ROW.size else run(climb, bytes(held), ends=True)[0]
