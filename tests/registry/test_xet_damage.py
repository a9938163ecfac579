"""A bad xorb is put aside once, whoever finds it, and told as events that name its files."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from lfs.errors import Damaged
from lfs.xet.index import Xorb
from lfs.xet.shelf import WithFiles
from lfs.xet.tables import Tables
from registry.db import Database
from registry.tables.work import events
from registry.tables.xet import xet_file_xorbs, xet_files, xet_links
from registry.xet_damage import Damage, holed, listed
from tests.lfs.xet.xorbs import Made, random_xorb
from tests.registry import people
from tests.registry.upkeep.broken import Broken
from tests.registry.upkeep.chunking import XetCollected, chunking

ONE, TWO = (random_xorb(seed, chunks=3, size=2000) for seed in range(2))


@pytest.fixture
def house(database: Database, tmp_path: Path) -> Iterator[XetCollected]:
    made = chunking(database, tmp_path)
    yield made
    made.gate.heavy.close()


def served(house: XetCollected, made: Made = ONE) -> Xorb:
    return house.index.located([made.hash])[made.hash]


def told(house: XetCollected) -> list[Any]:
    return house.rows(sa.select(events).where(events.c.act != "refs.update").order_by(events.c.id))


def acts(house: XetCollected) -> list[tuple[str, int | None]]:
    return [(each.act, each.repo_id) for each in told(house)]


def test_a_reader_that_meets_damage_tells_of_it_as_a_scrub_does(house: XetCollected) -> None:
    theirs = people.add_repo(house.database, "ann", "theirs")
    made = house.bring(ONE, TWO)
    house.bring(ONE, TWO, repo_id=theirs)
    key = served(house).key
    Broken(house.gate, house.raw).rot(key)
    for _ in range(2):
        with pytest.raises(Damaged):
            house.read(made)
    assert acts(house) == [("xorb.damaged", None), ("file.damaged", 1), ("file.damaged", theirs)]
    xorb, *files = told(house)
    assert (xorb.body["key"], xorb.body["files"]) == (key, 2)
    assert key in xorb.body["why"]
    assert [each.body for each in files] == [{"files": [made.oid]}] * 2
    assert house.xorbs() == {ONE.hash: "quarantined", TWO.hash: "live"}


def test_readers_who_meet_it_at_once_tell_of_it_once(house: XetCollected) -> None:
    made = house.bring(ONE, TWO)
    Broken(house.gate, house.raw).rot(served(house).key)
    # Each with tables of its own, as processes have them.
    shelves = [WithFiles(house.raw, house.index, Tables(house.raw)) for _ in range(8)]

    def read(shelf: WithFiles) -> str:
        try:
            with shelf.open(made.key) as reader:
                return hashlib.sha256(reader.read_all()).hexdigest()
        except Damaged:
            return "damaged"

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(read, shelves)) == {"damaged"}
    assert acts(house) == [("xorb.damaged", None), ("file.damaged", 1)]


def test_damage_and_new_bytes_at_once_leave_the_new_bytes(house: XetCollected) -> None:
    """Who speaks of bytes that were replaced changes nothing, in whatever order they come."""
    made = house.bring(ONE, TWO)
    for turn in range(8):
        old = served(house)
        found: list[Callable[[], object]] = [lambda old=old: house.index.quarantine(ONE.hash, old.key)] * 3  # type: ignore[misc]
        with ThreadPoolExecutor(6) as pool:
            asked = [pool.submit(act) for act in (*found, *[lambda: house.take(ONE)] * 3)]
            for each in asked:
                each.result(30)
        if house.xorbs()[ONE.hash] == "quarantined":
            house.take(ONE)
        assert house.xorbs() == {ONE.hash: "live", TWO.hash: "live"}
        assert served(house).key != old.key
        assert house.read(made) == made.bytes
        assert len([act for act, _ in acts(house) if act == "xorb.damaged"]) == turn + 1
        assert len([act for act, _ in acts(house) if act == "xorb.healed"]) == turn + 1


def test_what_cannot_be_told_is_not_put_aside(house: XetCollected) -> None:
    """All of it is one transaction: a death before its end leaves the xorb as it was, for the next reader to find."""
    house.bring(ONE)
    moments = iter([house.clock()])

    def dying() -> datetime:
        for moment in moments:
            return moment
        raise SystemExit

    with pytest.raises(SystemExit):
        Damage(house.database, clock=dying).put_aside(ONE.hash, served(house).key, "is another one")
    assert (house.xorbs(), acts(house)) == ({ONE.hash: "live"}, [])
    assert Damage(house.database).put_aside(ONE.hash, served(house).key, "is another one")
    assert acts(house) == [("xorb.damaged", None), ("file.damaged", 1)]


def test_a_xorb_of_very_many_files_is_told_with_some_of_their_names(house: XetCollected) -> None:
    made = house.bring(ONE)
    many = [bytes([1]) + at.to_bytes(31, "big") for at in range(1500)]
    with house.database.write() as connection:
        file = dict(connection.execute(sa.select(xet_files)).mappings().one())
        link = dict(connection.execute(sa.select(xet_links)).mappings().one())
        connection.execute(sa.insert(xet_files), [file | {"hash": hash} for hash in many])
        connection.execute(sa.insert(xet_file_xorbs), [{"file": hash, "xorb": ONE.hash} for hash in many])
        connection.execute(sa.insert(xet_links), [link | {"file": hash, "sha256": hash.hex()} for hash in many])
        text = listed(holed(connection, ONE.hash))
    assert text.count("ann/one") == 10
    assert text.endswith("1491 more")
    house.index.quarantine(ONE.hash, served(house).key)
    xorb, files = told(house)
    assert xorb.body["files"] == 1501
    assert len(files.body["files"]) == 1000
    assert set(files.body["files"]) <= {made.oid, *(hash.hex() for hash in many)}
