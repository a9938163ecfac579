"""Files of our own making, on a shelf."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from hypothesis import strategies as st

from lfs.store import ObjectStore, Reader, Span, file_key
from lfs.xet import hashes
from lfs.xet.formats import BG4, LZ4, STORED
from lfs.xet.index import File, Part, packed
from lfs.xet.shelf import WithFiles
from lfs.xet.tables import Tables
from tests.contracts.memory_store import MemoryStore
from tests.lfs.xet.memory_index import ANN, MemoryIndex
from tests.lfs.xet.xorbs import Made, made

Runs = Sequence[tuple[int, int, int]]
"""Which xorb by its number, first chunk, chunk after the last."""


@dataclass(frozen=True, slots=True)
class Draft:
    """Xorbs, and a file that is runs of their chunks."""

    xorbs: tuple[Made, ...]
    runs: Runs

    @property
    def body(self) -> bytes:
        """The bytes of the file."""
        return b"".join(b"".join(self.xorbs[at].parts[start:end]) for at, start, end in self.runs)

    def file(self) -> File:
        """Return the file as an index keeps it."""
        parts, leaves, at = [], [], 0
        for number, start, end in self.runs:
            parts.append(Part(self.xorbs[number].hash, start, end, at))
            chunks = self.xorbs[number].parts[start:end]
            leaves += [(hashes.chunk(chunk), len(chunk)) for chunk in chunks]
            at += sum(map(len, chunks))
        return File(hashes.file(leaves), at, packed(parts))


class Filed:
    """A draft that lies on a shelf and is filed."""

    def __init__(self, draft: Draft, store: ObjectStore | None = None, index: MemoryIndex | None = None) -> None:
        self.store, self.index = store or MemoryStore(), index or MemoryIndex()
        self.body, self.file = draft.body, draft.file()
        self.rows = {xorb.hash: xorb.put(self.store) for xorb in draft.xorbs}
        for row in self.rows.values():
            self.index.keep(ANN, row)
        self.index.files[self.file.hash] = self.file
        self.key = file_key(hashes.text(self.file.hash))
        self.tables = Tables(self.store)
        self.shelf = WithFiles(self.store, self.index, self.tables)

    def read(self, span: Span | None = None) -> bytes:
        """Read the file, or a span of it."""
        with self.shelf.open(self.key, span) as reader:
            return reader.read_all()

    def quarantined(self) -> set[bytes]:
        """Return the xorbs that nobody is sent to any more."""
        return set(self.rows) - set(self.index.located(set(self.rows)))


@st.composite
def drafts(draw: st.DrawFn, *, largest: int = 3000) -> Draft:
    """Draw a file over some xorbs: several terms, repeated and shuffled."""
    dice = draw(st.randoms(use_true_random=False))
    xorbs: dict[bytes, Made] = {}
    for _ in range(draw(st.integers(1, 4))):
        sizes = draw(st.lists(st.integers(1, largest), min_size=1, max_size=8))
        chunks = [_chunk(size, dice.randrange(256), dice.randbytes(64)) for size in sizes]
        xorb = made(*chunks, scheme=draw(st.sampled_from([STORED, LZ4, BG4])))
        xorbs[xorb.hash] = xorb
    all_of_them = tuple(xorbs.values())
    return Draft(all_of_them, draw(st.lists(_runs(all_of_them), min_size=1, max_size=8)))


@st.composite
def ranges(draw: st.DrawFn, size: int) -> Span:
    """Draw a range of a file that has some bytes."""
    start = draw(st.integers(0, size - 1))
    return Span(start, draw(st.integers(start + 1, size)))


def _chunk(size: int, fill: int, start: bytes) -> bytes:
    return start[:size].ljust(size, bytes([fill]))


@st.composite
def _runs(draw: st.DrawFn, xorbs: Sequence[Made]) -> tuple[int, int, int]:
    number = draw(st.integers(0, len(xorbs) - 1))
    start = draw(st.integers(0, len(xorbs[number].parts) - 1))
    return number, start, draw(st.integers(start + 1, len(xorbs[number].parts)))


def large(seed: int = 1, xorbs: int = 3, scheme: int = STORED) -> Draft:
    """Make a file of several pieces, of runs of several batches."""
    dice = random.Random(seed)
    made_ones = tuple(
        made(*(dice.randbytes(dice.randrange(60_000, 131_073)) for _ in range(30)), scheme=scheme) for _ in range(xorbs)
    )
    return Draft(made_ones, [(0, 3, 30), (xorbs - 1, 0, 30), (0, 0, 1), (0, 0, 1), (1, 5, 6), (0, 1, 29)])


def read_until(kind: type[Exception], reader: Reader) -> bytes:
    """Return what comes before the error that comes."""
    got: list[bytes] = []
    with pytest.raises(kind):
        got.extend(iter(reader.read, b""))
    return b"".join(got)
