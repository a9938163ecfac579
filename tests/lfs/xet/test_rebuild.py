"""Any range of a file is its bytes, in pieces; a reader holds little and leaves nothing open."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lfs.errors import Damaged, Missing, RangeUnsatisfiable, Unavailable
from lfs.local import LocalStore
from lfs.store import PIECE, ObjectStore, Reader, Span
from lfs.xet import hashes
from lfs.xet.formats import LZ4, STORED
from lfs.xet.rebuild import FileReader
from tests.contracts.memory_store import MemoryStore
from tests.lfs.xet.drafts import Draft, Filed, drafts, large, ranges, read_until
from tests.lfs.xet.xorbs import made, random_xorb

MIB = 1 << 20


class Watched(MemoryStore):
    """A shelf that knows which readers are open; before each read of a body it calls `reading`."""

    def __init__(self, reading: Callable[[], None] = lambda: None) -> None:
        super().__init__()
        self.opened: list[str] = []
        self.left_open = 0
        self.reading = reading

    def open(self, key: str, span: Span | None = None) -> Reader:
        reader = super().open(key, span)
        if key.startswith("xet/xorbs/"):
            self.opened.append(key)
            self.left_open += 1
            return _Watched(self, reader)
        return reader


class _Watched(Reader):
    def __init__(self, store: Watched, inner: Reader) -> None:
        super().__init__(inner.size)
        self._store, self._inner, self._closed = store, inner, False

    def _piece(self, limit: int) -> bytes:
        self._store.reading()
        return self._inner.read(limit)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._store.left_open -= 1


@pytest.fixture(params=["memory", "local"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    return MemoryStore() if request.param == "memory" else LocalStore(tmp_path / "shelf", min_free=0, fsync=False)


@given(drafts(), st.data())
def test_any_range_of_any_file_is_its_bytes(draft: Draft, data: st.DataObject) -> None:
    filed = Filed(draft)
    span = data.draw(ranges(len(draft.body)))
    assert filed.read(span) == draft.body[span.start : span.end]
    assert filed.read() == draft.body
    assert filed.read(Span(span.start, span.start)) == b""


def test_large_files_come_in_pieces_from_any_byte_to_any(store: ObjectStore) -> None:
    filed, dice = Filed(large(scheme=LZ4), store), random.Random(5)
    size = filed.file.size
    for _ in range(12):
        start, end = sorted(dice.sample(range(size + 1), 2))
        with filed.shelf.open(filed.key, Span(start, end)) as reader:
            assert reader.size == end - start
            pieces = list(reader)
        assert b"".join(pieces) == filed.body[start:end]
        assert all(len(piece) == PIECE for piece in pieces[:-1])


@pytest.mark.parametrize("limit", [1, 70_000, 1 << 30, -1])
def test_a_read_is_as_small_as_it_is_asked_for(store: ObjectStore, limit: int) -> None:
    filed = Filed(large(), store)
    span = Span(2 * MIB - 5, 2 * MIB + 5 + max(0, limit % MIB))
    got = []
    with filed.shelf.open(filed.key, span) as reader:
        while piece := reader.read(limit):
            got.append(piece)
    assert b"".join(got) == filed.body[span.start : span.end]
    assert all(len(piece) <= (limit if limit > 0 else PIECE) for piece in got)


def test_an_empty_file_is_read_too(store: ObjectStore) -> None:
    filed = Filed(Draft((), []), store)
    assert filed.file.hash == hashes.EMPTY
    assert filed.read() == filed.read(Span(0, 0)) == b""


@pytest.mark.parametrize(("start", "end"), [(0, 101), (100, 101), (101, 101), (200, 300)])
def test_a_span_beyond_the_file_is_refused(start: int, end: int) -> None:
    filed = Filed(Draft((made(b"x" * 100),), [(0, 0, 1)]))
    with pytest.raises(RangeUnsatisfiable):
        filed.shelf.open(filed.key, Span(start, end))


def test_chunks_that_follow_each_other_are_one_read_of_the_body() -> None:
    store = Watched()
    dice = random.Random(4)
    one = made(*(dice.randbytes(100_000) for _ in range(40)))
    filed = Filed(Draft((one, random_xorb(9)), [(0, 0, 10), (0, 10, 40), (1, 0, 5), (0, 2, 3)]), store)
    assert filed.read() == filed.body
    key, other = (row.key for row in filed.rows.values())
    assert store.opened == [key, other, key]
    assert store.left_open == 0


def test_a_chunk_that_is_named_again_and_again_is_read_once() -> None:
    store = Watched()
    filed = Filed(Draft((made(bytes(131_072), b"tail"),), [(0, 0, 1)] * 50 + [(0, 1, 2)]), store)
    assert filed.read() == bytes(50 * 131_072) + b"tail"
    assert len(store.opened) == 2
    assert filed.read(Span(131_000, 300_000)) == bytes(169_000)


def test_many_small_chunks_that_pack_badly_are_read_a_piece_at_a_time() -> None:
    # The frame of one byte is longer than the byte; what counts is that no read is larger than a piece.
    store = Watched()
    filed = Filed(Draft((made(*(bytes([at % 251]) for at in range(3000))),), [(0, 0, 3000)]), store)
    assert filed.read(Span(7, 2999)) == filed.body[7:2999]


def reader_of(filed: Filed, ahead: ThreadPoolExecutor) -> FileReader:
    return FileReader(filed.file, None, store=filed.store, index=filed.index, tables=filed.tables, ahead=ahead)


def test_a_shelf_that_does_not_answer_is_no_damage_and_ends_the_read() -> None:
    calls = iter(range(100))

    def falter() -> None:
        if next(calls) == 3:
            raise Unavailable("Not now.")

    store = Watched(falter)
    filed = Filed(large(), store)
    with filed.shelf.open(filed.key) as reader:
        got = read_until(Unavailable, reader)
        assert 0 < len(got) < filed.file.size
        assert filed.body.startswith(got)
        # What was skipped must never be missing in the middle.
        with pytest.raises(Damaged):
            reader.read()
    assert store.left_open == 0
    assert not filed.quarantined()
    assert filed.read() == filed.body


@pytest.mark.parametrize("pieces", [0, 1, 3])
def test_a_reader_that_is_closed_early_leaves_nothing_open(pieces: int) -> None:
    store = Watched()
    filed = Filed(large(), store)
    with ThreadPoolExecutor(1) as ahead:
        reader = reader_of(filed, ahead)
        for _ in range(pieces):
            reader.read()
        reader.close()
        reader.close()
    assert store.left_open == 0


def test_a_reader_that_is_closed_while_a_batch_comes_lets_go_of_it_afterwards() -> None:
    arrived, go_on = threading.Event(), threading.Event()
    calls = iter(range(100))

    def hold() -> None:
        if next(calls) == 2:
            arrived.set()
            assert go_on.wait(30)

    store = Watched(hold)
    filed = Filed(large(), store)
    with ThreadPoolExecutor(1) as ahead:
        reader = reader_of(filed, ahead)
        assert reader.read() == filed.body[:PIECE]
        assert arrived.wait(30)
        reader.close()
        assert store.left_open == 1
        go_on.set()
    assert store.left_open == 0


def test_nobody_waits_for_a_thread_to_fetch_ahead() -> None:
    go_on = threading.Event()
    filed = Filed(large())
    with ThreadPoolExecutor(1) as ahead:
        blocked = ahead.submit(go_on.wait, 30)
        assert reader_of(filed, ahead).read_all() == filed.body
        assert not blocked.done()
        go_on.set()


def test_a_reader_holds_a_few_pieces_and_no_more() -> None:
    ahead_of, taken = [0], [0]
    filed = Filed(large(scheme=STORED), Counting(ahead_of))
    with filed.shelf.open(filed.key) as reader:
        for piece in reader:
            taken[0] += len(piece)
            assert ahead_of[0] - taken[0] <= 4 * PIECE
    assert taken[0] == filed.file.size


class Counting(MemoryStore):
    """A shelf that counts the bytes of bodies that were read."""

    def __init__(self, count: list[int]) -> None:
        super().__init__()
        self._count = count

    def open(self, key: str, span: Span | None = None) -> Reader:
        inner = super().open(key, span)
        return _Counting(inner, self._count) if key.startswith("xet/xorbs/") else inner


class _Counting(Reader):
    def __init__(self, inner: Reader, count: list[int]) -> None:
        super().__init__(inner.size)
        self._inner, self._count = inner, count

    def _piece(self, limit: int) -> bytes:
        piece = self._inner.read(limit)
        self._count[0] += len(piece)
        return piece

    def close(self) -> None:
        self._inner.close()


def test_readers_at_once_do_not_mix(store: ObjectStore) -> None:
    filed = Filed(large(scheme=LZ4), store)
    size = filed.file.size
    spans = [Span(at * 1000, size - at * 70_000) for at in range(8)]

    def alternately(one: Span, other: Span) -> Iterator[bytes]:
        with filed.shelf.open(filed.key, one) as first, filed.shelf.open(filed.key, other) as second:
            got = [b"", b""]
            while any(pieces := (first.read(), second.read())):
                got = [have + piece for have, piece in zip(got, pieces, strict=True)]
        yield from got

    assert list(alternately(*spans[:2])) == [filed.body[span.start : span.end] for span in spans[:2]]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(filed.read, spans)) == [filed.body[span.start : span.end] for span in spans]


def test_a_file_that_nobody_filed_is_missing() -> None:
    filed = Filed(Draft((random_xorb(1),), [(0, 0, 5)]))
    del filed.index.files[filed.file.hash]
    with pytest.raises(Missing):
        filed.read()
