"""The check of a shard: each word of it against our own tables.

xorb    the chunks that the shard describes are those that we have, no more and no less
term    its chunks are there, are as many bytes as it says, and who filed it knows their hashes
file    the chunks of its terms make its name, and are as large as clients cut them
mark    a chunk by which others may find the file: its first, and about one in a thousand
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence

from lfs.errors import BadXet
from lfs.xet import hashes
from lfs.xet.formats import XorbTable
from lfs.xet.index import File, Filing, Part, packed
from lfs.xet.naming import Run, named, rows
from lfs.xet.shards import FiledFile, FiledXorb, Shard

Load = Callable[[bytes], XorbTable]
"""Returns the table of a xorb that the shard names."""
Tell = Callable[[int, int], None]

SMALLEST = 8_000
"""Bytes of a chunk: hf_xet cuts none below 8,192, its older versions and JavaScript none below 8,128. A file of crumbs
would cost all who read it a fetch and a proof for each."""
SPARE = 64
"""Chunks that a file may have beyond that: its last may have any length, and so may those at the seams of edits."""

# How often a client hears how far its shard is.
_STEP = 64
# A row of a table begins with the hash of its chunk.
_ROW = 40


def check(shard: Shard, load: Load, run: Run, tell: Tell) -> list[Filing]:
    """Return what to file of a shard, all of whose words are true; the names of its files are made by `run`.

    `tell` hears of how many files of how many are checked, the last time of all.
    Raises: BadXet, with words for users, and what `load` and `run` raise.
    """
    spots = {xorb.hash: _described(xorb, load(xorb.hash)) for xorb in shard.xorbs}
    filings: list[Filing] = []

    def read() -> Iterator[tuple[int, Iterator[bytes]]]:
        for at, file in enumerate(shard.files):
            if at % _STEP == 0:
                tell(at, len(shard.files))
            parts = list(_parts(file, load))
            filings.append(_filing(file, parts, tuple(_marks(parts, load, spots).items())))
            yield sum(part.end - part.start for part in parts), _rows(parts, load)

    for file, name in zip(shard.files, named(read(), run), strict=True):
        if name != file.hash:
            raise BadXet(f"The chunks of file {hashes.text(file.hash)} make another one; upload it again.")
    tell(len(shard.files), len(shard.files))
    return filings


def _described(xorb: FiledXorb, table: XorbTable) -> list[int]:
    """Compare a xorb of a shard with ours, and return which of its chunks others may ask for, by number."""
    if not xorb.agrees(table.rows):
        raise BadXet(f"This upload describes xorb {hashes.text(xorb.hash)} not as it is; upload again.")
    return sorted({*xorb.eligible(), *_eligible(table)})


def _eligible(table: XorbTable) -> Iterator[int]:
    """Find the chunks that clients ask for wherever they stand: in one of 256 the first byte that tells is zero."""
    data = table.rows
    column = data[24::_ROW]
    at = column.find(0)
    while at >= 0:
        if hashes.eligible(data[at * _ROW : at * _ROW + 32]):
            yield at
        at = column.find(0, at + 1)


def _parts(file: FiledFile, load: Load) -> Iterator[Part]:
    """Pass on the terms of a file, each of which is as it says."""
    at = chunks = 0
    for term in file.terms:
        if not term.proof:
            raise BadXet("This upload proves nothing of its files; use hf_xet 1.1 or newer.")
        table = load(term.xorb)
        # The table refuses chunks that it does not have.
        if table.unpacked(term.start, term.end) != term.unpacked or table.span(term.start, term.end) != term.proof:
            raise BadXet(f"File {hashes.text(file.hash)} names chunks that are others here; upload it again.")
        yield Part(term.xorb, term.start, term.end, at)
        at += term.unpacked
        chunks += term.end - term.start
    most = SPARE + at // SMALLEST
    if chunks > most:
        name = hashes.text(file.hash)
        raise BadXet(f"File {name} is cut into {chunks} chunks, {most} may be of {at} bytes; upload it with hf_xet.")


def _marks(parts: Sequence[Part], load: Load, spots: dict[bytes, list[int]]) -> Mapping[bytes, bytes]:
    """Return the chunks by which others may find a file, each with its xorb.

    Whoever seeks out chunks that are marked gets no more rows than a few in a thousand.
    """
    marks: dict[bytes, bytes] = {}
    at = 0
    for part in parts:
        table = load(part.xorb)
        if part.xorb not in spots:
            spots[part.xorb] = list(_eligible(table))
        if not marks:
            marks[table.hash(part.start)] = part.xorb
        here = spots[part.xorb]
        for spot in here[bisect_left(here, part.start) : bisect_left(here, part.end)]:
            if len(marks) < 16 + (at + spot - part.start) // 256:
                marks.setdefault(table.hash(spot), part.xorb)
        at += part.end - part.start
    return marks


def _rows(parts: Sequence[Part], load: Load) -> Iterator[bytes]:
    return (rows(load(part.xorb).leaves(part.start, part.end)) for part in parts)


def _filing(file: FiledFile, parts: Sequence[Part], marks: tuple[tuple[bytes, bytes], ...]) -> Filing:
    # Of nothing, hf_xet says that it has a SHA-256 of zeros.
    sha256 = "" if file.hash == hashes.EMPTY and not file.sha256.strip("0") else file.sha256
    return Filing(File(file.hash, file.size, packed(parts)), sha256, marks)
