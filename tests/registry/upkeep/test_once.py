"""Within a week of the change a bad chunk costs nobody a byte: the object is what came again, by itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from lfs.errors import NoSpace, Unavailable
from lfs.store import ObjectStore, Reader, Source, Span, Stat, Verified, lfs_key
from registry.db import Database
from registry.upkeep.once import Once
from registry.upkeep.turn import turn
from tests.registry.test_xet_wholes import FILE, TWO, read, row, twice, wholes
from tests.registry.upkeep.chunking import XetCollected, chunking, whole

OTHER = whole(TWO)


@pytest.fixture
def house(database: Database, tmp_path: Path) -> Iterator[XetCollected]:
    """A house with an object that was changed just now."""
    made = chunking(database, tmp_path)
    twice(made)
    made.commit(FILE)
    made.later(days=2)
    wholes(made).run()
    assert row(made).kind == "xet"
    yield made
    made.gate.heavy.close()


def once(house: XetCollected, store: ObjectStore | None = None) -> Once:
    return Once(house.database, store or house.store, clock=house.clock)


def put_aside(house: XetCollected) -> None:
    house.index.quarantine(TWO.hash, house.index.located([TWO.hash])[TWO.hash].key)


class Watched(ObjectStore):
    """The part of a shelf that going back needs; writes nothing, and counts what is read."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self.opened: Counter[str] = Counter()
        self.away = ""

    def stat(self, key: str) -> Stat:
        if key == self.away:
            raise Unavailable("The bucket does not answer.")
        return self._store.stat(key)

    def open(self, key: str, span: Span | None = None) -> Reader:
        self.opened[key] += 1
        return self._store.open(key, span)

    def put(self, key: str, source: Source, size: int, sha256: str | None = None) -> Verified:
        raise NoSpace("The disk is full.")

    def copy(self, source: str, key: str) -> Stat:
        raise NoSpace("The disk is full.")


def test_it_goes_back_to_the_bytes_that_came_and_forward_again(house: XetCollected) -> None:
    looking = once(house)
    for _ in range(2):
        put_aside(house)
        assert house.gate.links.object_key(1, FILE.oid) is None
        looking.run()
        assert row(house).kind == "whole"
        assert read(house) == FILE.bytes
        looking.run()
        assert row(house).kind == "whole"
        # What is served now does not go with the next sweep.
        house.later(days=8)
        house.run()
        assert house.keys("lfs/") == [row(house).key] == [lfs_key(FILE.oid)]
        house.take(TWO)
        wholes(house).run()
        assert (row(house).kind, read(house)) == ("xet", FILE.bytes)
        assert house.findings() == []


def test_without_these_bytes_it_stays_as_bad_as_its_chunk(house: XetCollected) -> None:
    house.later(days=8)
    house.run()
    put_aside(house)
    once(house).run()
    assert (row(house).kind, row(house).state) == ("xet", "stored")
    house.take(TWO)
    assert read(house) == FILE.bytes


def test_bytes_that_are_bad_as_well_are_read_once(house: XetCollected) -> None:
    key = lfs_key(FILE.oid)
    house.raw.delete(key)
    house.raw.put(key, b"other" + FILE.bytes[5:], len(FILE.bytes))
    put_aside(house)
    looking = once(house)
    looking.run()
    house.raw.delete(key)
    house.raw.put(key, FILE.bytes, len(FILE.bytes))
    looking.run()
    assert row(house).kind == "xet"
    # Another process, or this one started anew, tries for itself.
    once(house).run()
    assert (row(house).kind, read(house)) == ("whole", FILE.bytes)


def test_it_needs_no_room_and_one_process_at_a_time_reads(house: XetCollected) -> None:
    put_aside(house)
    store = Watched(house.store)
    looking = once(house, store)
    with turn(house.database, "back"):
        looking.run()
    assert not store.opened
    looking.run()
    assert store.opened == {lfs_key(FILE.oid): 1}
    assert (row(house).kind, read(house)) == ("whole", FILE.bytes)


def test_what_cannot_be_read_now_keeps_no_other_waiting(house: XetCollected) -> None:
    twice(house, OTHER)
    house.later(days=2)
    wholes(house).run()
    assert {row(house, each).kind for each in (FILE, OTHER)} == {"xet"}
    put_aside(house)
    store = Watched(house.store)
    looking = once(house, store)
    for away, other in ((FILE, OTHER), (OTHER, FILE)):
        store.away = lfs_key(away.oid)
        looking.run()
        assert row(house, other).kind == "whole"
    assert row(house, FILE).kind == "whole"


@pytest.mark.parametrize("swept", [False, True])
def test_it_waits_for_a_collection_which_may_take_the_bytes(house: XetCollected, swept: bool) -> None:
    put_aside(house)
    store = Watched(house.store)
    looking = once(house, store)
    with turn(house.database):
        looking.run()
        assert row(house).kind == "xet"
        if swept:
            house.raw.delete(lfs_key(FILE.oid))
    looking.run()
    looking.run()
    assert row(house).kind == ("xet" if swept else "whole")
    assert store.opened == {lfs_key(FILE.oid): 1}
