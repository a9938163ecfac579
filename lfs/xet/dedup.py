"""What is told to those who ask for a chunk: the keyed chunks of the xorbs around it.

    window   the xorb that has the chunk, those that follow it in the file, those before it: 64 at most, and near it
    answer   the same bytes for all who ask for a window of a domain in a week, made once and held while there is room

A xorb of one chunk is called like it, and who knows what a chunk is called may file and read it: such a one is named
only to who asked for it.
"""

from __future__ import annotations

import itertools
import logging
import struct
import time
from collections.abc import Callable, Iterator, Sequence

from lfs.errors import Damaged, Missing
from lfs.memory import Memory
from lfs.xet import shards
from lfs.xet.index import Leave, Marked, XetIndex, Xorb
from lfs.xet.tables import Tables

log = logging.getLogger(__name__)

WINDOW = 64
"""Xorbs in one answer: their chunks are 3 MB."""
WALK = 1 << 14
"""Terms that are read on either side of the chunk for an answer, of a million that a file may have: 8 GiB of it in
pieces as clients make them, twice what a full answer is about."""
WEEK = 7 * 24 * 3600
ROOM = 32 << 20
"""Bytes of answers that are held: ten full ones."""

# The xorb of a term, as `lfs.xet.index.File` lays it out.
_NAME = struct.Struct("<32s16x")
# What an answer costs beyond its bytes: the names of its xorbs, by which it is found.
_AROUND = 100 * WINDOW


class Dedup:
    """Answers who asks for a chunk; `clock` tells Unix seconds. Thread-safe."""

    def __init__(
        self, *, index: XetIndex, tables: Tables, clock: Callable[[], float] = time.time, room: int = ROOM
    ) -> None:
        self._index, self._tables, self._clock = index, tables, clock
        self._held: Memory[tuple[str, int, tuple[bytes, ...]], bytes] = Memory(
            room, lambda each: len(each) + _AROUND, largest=room
        )

    def answer(self, leave: Leave, chunk: bytes) -> bytes | None:
        """Return the keyed chunks of xorbs around a chunk that this domain has; None if nobody marked it.

        Each xorb that is named is promised: the client will send its chunks no more.
        """
        marked = self._index.around(leave.domain, chunk)
        if marked is None:
            return None
        order = window(marked)
        live = self._index.live(leave.domain, order)
        xorbs = [live[name] for name in order if name in live and (live[name].chunks > 1 or name == chunk)]
        if not xorbs:
            return None
        try:
            answer = self._answer(leave.domain, xorbs)
        except (Damaged, Missing) as error:
            # Clients take any answer but a shard and a 404 for the end of their upload.
            log.warning("a chunk was not looked for: %s", error.message)
            return None
        self._index.promise(leave.domain, [xorb.hash for xorb in xorbs])
        return answer

    def _answer(self, domain: str, xorbs: Sequence[Xorb]) -> bytes:
        now = int(self._clock())
        week = now // WEEK

        def make() -> bytes:
            key, expires = self._index.answer_key(domain, week)
            blocks = [(xorb.hash, self._tables.load(xorb).rows) for xorb in xorbs]
            return shards.dedup_answer(blocks, key=key, created=now, expires=expires)

        # By all its names: one that went since is in no answer.
        return self._held.get((domain, week, tuple(xorb.hash for xorb in xorbs)), make)


def window(marked: Marked) -> list[bytes]:
    """Return the xorb that has the chunk, those that follow it, those before it, each once."""
    terms, names = marked.file.terms, {marked.xorb: None}
    at = _place(terms, marked.xorb)
    for name in itertools.chain(_after(terms, at), _before(terms, at)):
        names[name] = None
        if len(names) == WINDOW:
            break
    return list(names)


def _place(terms: bytes, xorb: bytes) -> int:
    """Return where the first term of a xorb begins; 0 if none is of it."""
    at = terms.find(xorb)
    while at > 0 and at % _NAME.size:
        at = terms.find(xorb, at + 1)
    return max(at, 0)


def _after(terms: bytes, at: int) -> Iterator[bytes]:
    near = memoryview(terms)[at : at + WALK * _NAME.size]
    return (name for (name,) in _NAME.iter_unpack(near))


def _before(terms: bytes, at: int) -> Iterator[bytes]:
    near = memoryview(terms)[max(0, at - WALK * _NAME.size) : at]
    yield from (name for (name,) in reversed(list(_NAME.iter_unpack(near))))
