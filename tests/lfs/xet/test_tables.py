"""A table comes from the store once, and from the xorb itself when the store has lost or spoiled it."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lfs.errors import Damaged, Denied, LfsError, Missing, Unavailable
from lfs.store import Reader, Source, Span, Verified
from lfs.xet.formats import XorbTable
from lfs.xet.tables import Tables
from tests.contracts.memory_store import MemoryStore
from tests.lfs.xet.xorbs import random_xorb

ONE, OTHER = random_xorb(1), random_xorb(2)


class Counting(MemoryStore):
    """A shelf that counts what is opened."""

    def __init__(self) -> None:
        super().__init__()
        self.opened: Counter[str] = Counter()

    def open(self, key: str, span: Span | None = None) -> Reader:
        self.opened[key] += 1
        return super().open(key, span)


class Slow(Counting):
    """A shelf that opens nothing until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.gate = threading.Event(), threading.Event()
        self.error: LfsError | None = None

    def open(self, key: str, span: Span | None = None) -> Reader:
        self.asked.set()
        assert self.gate.wait(20)
        if self.error is not None:
            raise self.error
        return super().open(key, span)


class Full(MemoryStore):
    """A shelf that takes nothing more."""

    full = False

    def put(self, key: str, source: Source, size: int, sha256: str | None = None) -> Verified:
        if self.full:
            raise Denied("read-only")
        return super().put(key, source, size, sha256)


def test_a_table_is_read_once() -> None:
    store = Counting()
    xorb = ONE.put(store)
    tables = Tables(store)
    assert tables.load(xorb).to_bytes() == ONE.table().to_bytes()
    assert tables.load(xorb) is tables.load(xorb)
    assert store.opened == {xorb.table: 1}


SPOILS: dict[str, Callable[[bytes], bytes]] = {
    "shorter by a chunk": lambda rows: rows[:-40],
    "torn": lambda rows: rows[:-7],
    "empty": lambda rows: b"",
    "longer": lambda rows: rows + rows[-40:],
    "flipped bit in a hash": lambda rows: bytes([rows[0] ^ 1]) + rows[1:],
    "flipped bit in a packed end": lambda rows: rows[:32] + bytes([rows[32] ^ 1]) + rows[33:],
    "flipped bit in the last end": lambda rows: rows[:-33] + bytes([rows[-33] ^ 1]) + rows[-32:],
    "flipped bit in the check": lambda rows: rows[:-1] + bytes([rows[-1] ^ 1]),
    "without a check": lambda rows: rows[:-32],
    "of other ends": lambda rows: XorbTable(rows[:32] + bytes([rows[32] ^ 1]) + rows[33:-32]).to_bytes()[:-40],
    "of another xorb": lambda rows: OTHER.table().to_bytes(),
}


@pytest.mark.parametrize("spoil", [None, *SPOILS])
def test_a_lost_or_spoiled_table_is_built_again_and_put_back(spoil: str | None) -> None:
    store = Counting()
    xorb = ONE.put(store)
    rows = store.objects.pop(xorb.table)
    if spoil is not None:
        store.objects[xorb.table] = SPOILS[spoil](rows)
    assert Tables(store).load(xorb).to_bytes() == rows
    assert store.objects[xorb.table] == rows
    assert Tables(store).load(xorb).to_bytes() == rows
    assert store.opened[xorb.key] == 1


@given(st.binary(max_size=250))
def test_garbage_is_never_taken_for_a_table(garbage: bytes) -> None:
    store = MemoryStore()
    xorb = ONE.put(store)
    store.objects[xorb.table] = garbage
    assert Tables(store).load(xorb).to_bytes() == ONE.table().to_bytes()


@given(st.data())
def test_a_stored_table_with_any_byte_changed_is_built_again(data: st.DataObject) -> None:
    store = Counting()
    xorb = ONE.put(store)
    rows = bytearray(store.objects[xorb.table])
    rows[data.draw(st.integers(0, len(rows) - 1))] ^= data.draw(st.integers(1, 255))
    store.objects[xorb.table] = bytes(rows)
    assert Tables(store).load(xorb).to_bytes() == ONE.table().to_bytes() == store.objects[xorb.table]
    assert store.opened[xorb.key] == 1


def test_a_table_whose_ends_are_wrong_is_replaced_when_somebody_says_so() -> None:
    store = MemoryStore()
    xorb = ONE.put(store)
    rows = store.objects[xorb.table]
    # With a check of its own: as if it had been wrong when it was made.
    store.objects[xorb.table] = XorbTable(rows[:32] + bytes([rows[32] ^ 1]) + rows[33:-32]).to_bytes()
    tables = Tables(store)
    assert tables.load(xorb).to_bytes() != rows
    assert tables.again(xorb).to_bytes() == rows
    assert tables.load(xorb).to_bytes() == store.objects[xorb.table] == rows


def test_a_store_that_takes_nothing_keeps_no_reader_from_a_table() -> None:
    store = Full()
    xorb = ONE.put(store)
    del store.objects[xorb.table]
    store.full = True
    assert Tables(store).load(xorb).raw_size == xorb.raw_size


def test_without_a_body_a_lost_table_is_missing() -> None:
    store = MemoryStore()
    xorb = ONE.put(store)
    store.objects.clear()
    with pytest.raises(Missing):
        Tables(store).load(xorb)


@pytest.mark.parametrize("body", [b"", ONE.body[:-1], ONE.body[:9] + b"x" + ONE.body[10:], OTHER.body, b"x" * 99])
def test_a_body_that_is_not_the_xorb_makes_no_table(body: bytes) -> None:
    store = MemoryStore()
    xorb = ONE.put(store)
    del store.objects[xorb.table]
    store.objects[xorb.key] = body
    with pytest.raises(Damaged):
        Tables(store).load(xorb)
    assert xorb.table not in store.objects


def test_tables_take_no_more_memory_than_they_may() -> None:
    store = Counting()
    xorbs = [random_xorb(seed).put(store) for seed in range(6)]
    tables = Tables(store, memory=3 * (200 + 512))
    for xorb in xorbs[:3]:
        tables.load(xorb)
    tables.load(xorbs[0])
    tables.load(xorbs[3])
    for at in (0, 2, 3):
        tables.load(xorbs[at])
    assert max(store.opened.values()) == 1
    tables.load(xorbs[1])
    assert store.opened[xorbs[1].table] == 2


def test_a_table_larger_than_the_memory_is_read_each_time() -> None:
    store = Counting()
    xorb = ONE.put(store)
    tables = Tables(store, memory=0)
    tables.load(xorb)
    tables.load(xorb)
    assert store.opened == {xorb.table: 2}


def test_all_who_ask_at_once_wait_for_one_read() -> None:
    store = Slow()
    xorb = ONE.put(store)
    tables = Tables(store)
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(tables.load, xorb) for _ in range(8)]
        assert store.asked.wait(20)
        store.gate.set()
        assert len({id(each.result(20)) for each in asked}) == 1
    assert store.opened == {xorb.table: 1}


class Narrow(MemoryStore):
    """A shelf that has one reader at a time for a body."""

    def __init__(self) -> None:
        super().__init__()
        self.within, self.gate = threading.Lock(), threading.Event()

    def open(self, key: str, span: Span | None = None) -> Reader:
        assert self.within.acquire(blocking=False)
        try:
            assert self.gate.wait(20)
            return super().open(key, span)
        finally:
            self.within.release()


def test_nobody_reads_a_body_beside_another_who_does() -> None:
    store = Narrow()
    xorb = ONE.put(store)
    tables = Tables(store)
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(tables.again, xorb) for _ in range(8)]
        store.gate.set()
        assert {each.result(20).rows for each in asked} == {ONE.table().rows}


def test_a_store_that_does_not_answer_is_asked_again_next_time() -> None:
    store = Slow()
    xorb = ONE.put(store)
    store.error = Unavailable("not now")
    store.gate.set()
    tables = Tables(store)
    with pytest.raises(Unavailable):
        tables.load(xorb)
    store.error = None
    assert tables.load(xorb).chunks == 5
