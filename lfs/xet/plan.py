"""Which chunks hold a range of a file, where they lie in their xorbs, and how a client is told; pure.

    term   chunks in a row of one xorb; a file is terms in a row, so a range is some of them, the outer two cut short
    run    chunks in a row of one xorb that some term needs, overlapping and adjacent terms merged: one range to fetch

    v2   {"offset_into_first_range": bytes of the first term that come before the range,
          "terms":  [{"hash", "unpacked_length", "range": {"start", "end"}}],
          "xorbs":  {hash: [{"url", "ranges": [{"chunks": {"start", "end"}, "bytes": {"start", "end"}}]}]}}
    v1   the same, but for "xorbs":
          "fetch_info": {hash: [{"range": {"start", "end"}, "url", "url_range": {"start", "end"}}]}

Ends of chunks are exclusive, ends of bytes inclusive. A URL opens one range, so each entry of v2 has one.
"""

from __future__ import annotations

import struct
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from lfs.errors import BadXet, Damaged, RangeUnsatisfiable
from lfs.store import Span
from lfs.xet import hashes
from lfs.xet.formats import XorbTable
from lfs.xet.index import File, Xorb

_TERM = struct.Struct("<32sIIQ")
_AT = struct.Struct("<40xQ")
_XORB = struct.Struct("<32s16x")

Located = Mapping[bytes, Xorb]
Load = Callable[[Xorb], XorbTable]
UrlOf = Callable[[str, Span], str]


class Term(NamedTuple):
    """Chunks `start` to `end` of a xorb, `size` bytes unpacked, the first of them at byte `at` of the file."""

    xorb: bytes
    start: int
    end: int
    size: int
    at: int


class Run(NamedTuple):
    """Chunks `start` to `end` of a xorb, and the bytes of its body that they are."""

    start: int
    end: int
    bytes: Span


@dataclass(frozen=True, slots=True)
class Needed:
    """What of one xorb a range needs, from the key that its body lies under."""

    key: str
    runs: tuple[Run, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """A range of a file: `skip` bytes into its first term it begins; what each xorb has to give, by its hash."""

    skip: int
    terms: tuple[Term, ...]
    xorbs: Mapping[bytes, Needed]


def plan(file: File, asked: Span | None, located: Callable[[set[bytes]], Located], load: Load) -> Plan:
    """Plan a range of a file, all of it for None; an end beyond the file's is cut. Each table is loaded once or twice.

    `located` finds xorbs by hash, `load` their tables. Raises: RangeUnsatisfiable (it begins at the end or behind it),
    Damaged (a xorb is gone, or not what the file needs), and what the two raise.
    """
    span = Span(0, file.size) if asked is None else Span(asked.start, min(asked.end, file.size))
    if asked is not None and not 0 <= span.start < span.end:
        raise RangeUnsatisfiable(f"The file has {file.size} bytes; ask for a range within them.", size=file.size)
    xorbs = find(file, span, located)
    terms = tuple(cut(file, span, xorbs, load))
    by_xorb: dict[bytes, list[Term]] = {}
    for term in terms:
        by_xorb.setdefault(term.xorb, []).append(term)
    needed = {hash: _needed(xorbs[hash], load(xorbs[hash]), needing) for hash, needing in by_xorb.items()}
    return Plan(span.start - terms[0].at if terms else 0, terms, needed)


def count(file: File, asked: Span | None) -> int:
    """Return how many terms of a file hold bytes of a span that lies within it, before one of them is read."""
    return len(_places(file, asked or Span(0, file.size)))


def find(file: File, span: Span, located: Callable[[set[bytes]], Located]) -> Located:
    """Look up the xorbs that a span of a file is in. Raises: Damaged (not all are to be had)."""
    places = _places(file, span)
    named = {hash for (hash,) in _XORB.iter_unpack(_slice(file, places))}
    found = located(named) if named else {}
    for hash in named - found.keys():
        raise Damaged(
            f"Xorb {hashes.text(hash)}, of file {hashes.text(file.hash)}, is gone or was found damaged; "
            "run `weightroom fsck`, or upload the file again."
        )
    return found


def cut(file: File, span: Span, xorbs: Located, load: Load) -> Iterator[Term]:
    """Yield the terms of a span of a file, the outer two without the chunks that it does not touch.

    Only the tables of those two are looked into. Raises: Damaged (one is not what the file needs).
    """
    for term in _terms(file, _places(file, span)):
        if term.at < span.start or term.at + term.size > span.end:
            yield _cut(term, span, load(xorbs[term.xorb]))
        else:
            yield term


def check(term: Term, table: XorbTable) -> None:
    """Refuse a term that has not as many bytes in its xorb as in its file. Raises: Damaged."""
    try:
        size = table.unpacked(term.start, term.end)
    except BadXet as error:
        raise Damaged(f"{_misfit(term)} ({error.message})") from error
    if size != term.size:
        raise Damaged(f"{_misfit(term)} (they have {size} bytes, not {term.size})")


def answer_v2(planned: Plan, url_of: UrlOf) -> dict[str, object]:
    """Say a plan as the second API does; `url_of` signs leave for one range of the body under a key."""
    xorbs = {
        hashes.text(hash): [
            {
                "url": url_of(needed.key, run.bytes),
                "ranges": [{"chunks": _chunks(run), "bytes": _bytes(run.bytes)}],
            }
            for run in needed.runs
        ]
        for hash, needed in planned.xorbs.items()
    }
    return {**_answer(planned), "xorbs": xorbs}


def answer_v1(planned: Plan, url_of: UrlOf) -> dict[str, object]:
    """Say a plan as the first API does; `url_of` signs leave for one range of the body under a key."""
    fetch = {
        hashes.text(hash): [
            {"range": _chunks(run), "url": url_of(needed.key, run.bytes), "url_range": _bytes(run.bytes)}
            for run in needed.runs
        ]
        for hash, needed in planned.xorbs.items()
    }
    return {**_answer(planned), "fetch_info": fetch}


def _answer(planned: Plan) -> dict[str, object]:
    names = {hash: hashes.text(hash) for hash in planned.xorbs}
    terms = [
        {"hash": names[term.xorb], "unpacked_length": term.size, "range": {"start": term.start, "end": term.end}}
        for term in planned.terms
    ]
    return {"offset_into_first_range": planned.skip, "terms": terms}


def _chunks(run: Run) -> dict[str, int]:
    return {"start": run.start, "end": run.end}


def _bytes(span: Span) -> dict[str, int]:
    return {"start": span.start, "end": span.end - 1}


def _places(file: File, span: Span) -> range:
    """Return which terms of a file hold bytes of a span. Raises: Damaged (none does)."""
    if not span.size:
        return range(0)
    every = range(len(file.terms) // _TERM.size)

    def at(place: int) -> int:
        return int(_AT.unpack_from(file.terms, place * _TERM.size)[0])

    first = bisect_right(every, span.start, key=at) - 1
    if first < 0:
        raise Damaged(f"File {hashes.text(file.hash)} has no bytes at {span.start}; run `weightroom fsck`.")
    return range(first, bisect_left(every, span.end, key=at))


def _slice(file: File, places: range) -> memoryview:
    return memoryview(file.terms)[places.start * _TERM.size : places.stop * _TERM.size]


def _terms(file: File, places: range) -> Iterator[Term]:
    """Read some terms of a file; a term ends where the next one begins."""
    rows = _TERM.iter_unpack(_slice(file, range(places.start, places.stop + 1)))
    xorb, start, end, at = next(rows, (b"", 0, 0, 0))
    for _ in places:
        following = next(rows, (b"", 0, 0, file.size))
        yield Term(xorb, start, end, following[3] - at, at)
        xorb, start, end, at = following


def _cut(term: Term, span: Span, table: XorbTable) -> Term:
    """Leave out the chunks of a term that end before a span or begin after it."""
    check(term, table)
    first, end = term.start, term.end
    before = table.unpacked(0, first) if first else 0
    if term.at < span.start:
        first = table.chunk_at(before + span.start - term.at)
    if term.at + term.size > span.end:
        end = table.chunk_at(before + span.end - 1 - term.at) + 1
    skipped = table.unpacked(term.start, first) if first > term.start else 0
    return Term(term.xorb, first, end, table.unpacked(first, end), term.at + skipped)


def _needed(xorb: Xorb, table: XorbTable, terms: Iterable[Term]) -> Needed:
    merged: list[list[int]] = []
    for start, end in sorted({(term.start, term.end) for term in terms}):
        if merged and start <= merged[-1][1]:
            merged[-1][1] = max(merged[-1][1], end)
        else:
            merged.append([start, end])
    for term in terms:
        check(term, table)
    return Needed(xorb.key, tuple(Run(start, end, Span(*table.physical(start, end))) for start, end in merged))


def _misfit(term: Term) -> str:
    chunks = f"Chunks {term.start} to {term.end} of xorb {hashes.text(term.xorb)}"
    return f"{chunks} are not what a file needs; run `weightroom fsck`"
