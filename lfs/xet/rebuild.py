"""Files put together from xorbs, every chunk proven before a byte of it leaves.

    run      chunks in a row of one xorb: one ranged read of its body
    batch    as many chunks of a run as make a piece of 1 MiB, packed as well as unpacked
    ahead    one batch is fetched while another is proven, unless the body lies in a file: there the kernel does it

A reader holds three batches at the most, whatever the file. If one does not prove, the body is read once more, and
whole. If it is sound after all, the table that it makes is taken from then on; else the xorb is quarantined.
"""

from __future__ import annotations

import contextlib
import logging
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import NamedTuple

from lfs.errors import BadXet, Busy, Damaged, Missing, RangeUnsatisfiable
from lfs.store import PIECE, ObjectStore, Reader, Span, check_span
from lfs.xet import formats, hashes, plan
from lfs.xet.formats import XorbTable
from lfs.xet.index import File, XetIndex, Xorb
from lfs.xet.plan import Term
from lfs.xet.tables import Tables

log = logging.getLogger(__name__)

# Chunks of a batch; clients make them of 8 KiB at least, but for the last of a file.
_MOST = 256


class _Batch(NamedTuple):
    """Chunks `start` to `end`, which are `bytes` of the body; `run_end` is where the run ends there, `at` in the file
    where its first byte belongs."""

    xorb: Xorb
    table: XorbTable
    start: int
    end: int
    bytes: Span
    run_end: int
    at: int

    def repeats(self, before: _Batch | None) -> bool:
        """True if it is one chunk, and the one that came before: zeros are stored once and named a thousand times."""
        return before is not None and self.end - self.start == 1 and self[:4] == before[:4]


class FileReader(Reader):
    """The bytes of a file, or of a span of it; for one thread at a time.

    Raises: RangeUnsatisfiable (a span that is not within the file), Damaged (a xorb is gone). Its reads raise Damaged
    (bytes that are not what they should be), Denied, Unavailable, and after any of these give nothing more.
    """

    def __init__(
        self, file: File, span: Span | None, *, store: ObjectStore, index: XetIndex, tables: Tables, ahead: Executor
    ) -> None:
        span = check_span(span, file.size)
        super().__init__(span.size)
        self._store, self._index, self._tables, self._ahead = store, index, tables, ahead
        self._span, self._xorbs = span, plan.find(file, span, index.located)
        self._batches = self._cut(plan.cut(file, span, self._xorbs, self._load))
        self._body = _Body(store)
        self._last: _Batch | None = None
        self._coming: Future[tuple[_Batch, bytes] | None] | None = None
        self._chunks: list[bytes] = []
        self._held = _Held()

    def _piece(self, limit: int) -> bytes:
        with contextlib.ExitStack() as failing:
            failing.callback(self.close)
            while self._held.size < limit and self._more():
                pass
            failing.pop_all()
        return self._held.take(limit)

    def close(self) -> None:
        """Let go of what is open, also if it is being read ahead; may be repeated."""
        self._batches = iter(())
        self._held.clear()
        coming, self._coming = self._coming, None
        if coming is None or coming.cancel():
            self._body.close()
        else:
            coming.add_done_callback(lambda _: self._body.close())

    def _more(self) -> bool:
        """Hold the next batch too, proven; False after the last."""
        coming, self._coming = self._coming, None
        # Where all threads are taken, nobody waits for one.
        fetched = self._fetch() if coming is None or coming.cancel() else coming.result()
        if fetched is None:
            return False
        batch, packed = fetched
        if not self._body.in_file and batch.at + batch.table.unpacked(batch.start, batch.end) < self._span.end:
            self._coming = self._ahead.submit(self._fetch)
        if packed:
            self._chunks = self._proven(batch, packed)
        self._held.add(self._chunks)
        if batch.at < self._span.start:
            self._held.take(self._span.start - batch.at)
        return True

    def _fetch(self) -> tuple[_Batch, bytes] | None:
        """Read the next batch as it is stored; no bytes if it repeats the one before."""
        batch = next(self._batches, None)
        if batch is None:
            return None
        before, self._last = self._last, batch
        if batch.repeats(before):
            return batch, b""
        with self._judging(batch.xorb):
            return batch, self._body.read(batch)

    def _proven(self, batch: _Batch, packed: bytes) -> list[bytes]:
        try:
            return _unpacked(batch, packed)
        except BadXet as error:
            log.warning("xorb %s does not fit its table: %s", hashes.text(batch.xorb.hash), error.message)
        with self._judging(batch.xorb):
            table = self._tables.again(batch.xorb)
            place = Span(*table.physical(batch.start, batch.end))
            with self._store.open(batch.xorb.key, place) as reader:
                return _unpacked(batch._replace(table=table), reader.read_all())

    def _cut(self, terms: Iterable[Term]) -> Iterator[_Batch]:
        for term in _joined(terms):
            xorb, start, at = self._xorbs[term.xorb], term.start, term.at
            while start < term.end:
                # Asked for each time: it may have been built again.
                table = self._load(xorb)
                plan.check(term, table)
                end = _fitting(table, start, term.end)
                place, run_end = Span(*table.physical(start, end)), table.physical(start, term.end)[1]
                yield _Batch(xorb, table, start, end, place, run_end, at)
                start, at = end, at + table.unpacked(start, end)

    def _load(self, xorb: Xorb) -> XorbTable:
        with self._judging(xorb):
            return self._tables.load(xorb)

    @contextlib.contextmanager
    def _judging(self, xorb: Xorb) -> Iterator[None]:
        """Say that a xorb is damaged, and see to it that nobody is sent to it any more.

        One that is missing stays as it is: a store that was mounted elsewhere is no reason to give up all xorbs.
        """
        try:
            yield
        except Missing as error:
            raise Damaged(f"Xorb {hashes.text(xorb.hash)} is gone ({xorb.key}); run `weightroom fsck`.") from error
        except (BadXet, Damaged, RangeUnsatisfiable) as error:
            what = f"Xorb {hashes.text(xorb.hash)} is damaged ({xorb.key})"
            log.error("%s and quarantined: %s", what, error.message)
            with contextlib.suppress(Busy):
                self._index.quarantine(xorb.hash, xorb.key, f"could not be read under {xorb.key}: {error.message}")
            raise Damaged(f"{what}; run `weightroom fsck`, or upload its files again.") from error


class _Held:
    """Proven bytes that nobody took yet; copied once, when they leave."""

    def __init__(self) -> None:
        self.size = 0
        self._chunks: deque[bytes | memoryview] = deque()

    def add(self, chunks: Iterable[bytes]) -> None:
        self._chunks.extend(chunks)
        self.size = sum(map(len, self._chunks))

    def take(self, most: int) -> bytes:
        """Return the first `most` bytes, or all there are."""
        taken, left = [], min(most, self.size)
        self.size -= left
        while left:
            chunk = self._chunks.popleft()
            if len(chunk) > left:
                view = memoryview(chunk)
                self._chunks.appendleft(view[left:])
                chunk = view[:left]
            taken.append(chunk)
            left -= len(chunk)
        return b"".join(taken)

    def clear(self) -> None:
        self._chunks.clear()
        self.size = 0


class _Body:
    """The bodies of xorbs one after another, each run by one read."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._reader: Reader | None = None
        self._key, self._at = "", 0
        self.in_file = False
        """Whether the last one lies in a file of ours."""

    def read(self, batch: _Batch) -> bytes:
        """Return the bytes of a batch. Raises: Missing, RangeUnsatisfiable, Damaged, Denied, Unavailable."""
        if self._reader is None or (self._key, self._at) != (batch.xorb.key, batch.bytes.start):
            self.close()
            self._reader = self._store.open(batch.xorb.key, Span(batch.bytes.start, batch.run_end))
            self._key, self.in_file = batch.xorb.key, self._reader.in_file() is not None
        packed = self._reader.read(batch.bytes.size)
        while len(packed) < batch.bytes.size:
            packed += self._reader.read(batch.bytes.size - len(packed))
        self._at = batch.bytes.end
        if self._at == batch.run_end:
            self.close()
        return packed

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None


def _unpacked(batch: _Batch, packed: bytes) -> list[bytes]:
    """Unpack the chunks of a batch, as long as each is the one that its table names. Raises: BadXet."""
    there = formats.chunks(packed)
    chunks: list[bytes] = []
    for name in batch.table.hashes(batch.start, batch.end):
        chunk = next(there, b"")
        if hashes.chunk(chunk) != name:
            raise BadXet(f"Chunk {batch.start + len(chunks)} of {batch.xorb.key} has another hash.")
        chunks.append(chunk)
    return chunks


def _joined(terms: Iterable[Term]) -> Iterator[Term]:
    """Make one of terms that follow each other in their xorb too."""
    before: Term | None = None
    for term in terms:
        if before is not None and (before.xorb, before.end) == (term.xorb, term.start):
            before = before._replace(end=term.end, size=before.size + term.size)
        else:
            if before is not None:
                yield before
            before = term
    if before is not None:
        yield before


def _fitting(table: XorbTable, start: int, end: int) -> int:
    """Return where a batch that begins at `start` ends: both ways within a piece, one chunk at least."""

    def size(till: int) -> int:
        first, last = table.physical(start, till)
        return max(last - first, table.unpacked(start, till))

    ends = range(start + 1, min(end, start + _MOST) + 1)
    return start + max(1, bisect_right(ends, PIECE, key=size))
