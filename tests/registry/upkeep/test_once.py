"""Within a week of the change a bad chunk costs nobody a byte: the object is what came again, by itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lfs.store import lfs_key
from registry.db import Database
from registry.upkeep.once import Once
from tests.registry.test_xet_wholes import FILE, TWO, read, row, twice, wholes
from tests.registry.upkeep.chunking import XetCollected, chunking


@pytest.fixture
def house(database: Database, tmp_path: Path) -> Iterator[XetCollected]:
    """A house with an object that was changed just now."""
    made = chunking(database, tmp_path)
    twice(made)
    made.commit(FILE)
    made.later(days=2)
    once(made).run()
    assert row(made).kind == "xet"
    yield made
    made.gate.heavy.close()


def once(house: XetCollected) -> Once:
    return Once(house.database, house.store, wholes(house), clock=house.clock)


def put_aside(house: XetCollected) -> None:
    house.index.quarantine(TWO.hash, house.index.located([TWO.hash])[TWO.hash].key)


def test_it_goes_back_to_the_bytes_that_came_and_forward_again(house: XetCollected) -> None:
    put_aside(house)
    assert house.gate.links.object_key(1, FILE.oid) is None
    once(house).run()
    assert row(house).kind == "whole"
    assert read(house) == FILE.bytes
    once(house).run()
    assert row(house).kind == "whole"
    # What lay under the old key goes with the next sweep; what is served now does not.
    house.later(days=8)
    house.run()
    assert house.keys("lfs/") == [row(house).key] != [lfs_key(FILE.oid)]
    house.take(TWO)
    once(house).run()
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
