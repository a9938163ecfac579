"""An object that is made of chunks is damaged as long as one of them is, whoever asks, and needs nobody to say so."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.sql.compiler import SQLCompiler

from registry.db import Database
from registry.links import find_in
from registry.tables.objects import lfs_objects
from registry.tables.xet import xet_file_xorbs, xet_files, xet_xorbs
from registry.xet_holes import HOLED
from tests.lfs.xet.xorbs import made as pack_of
from tests.lfs.xet.xorbs import random_xorb
from tests.registry.upkeep.chunking import Whole, XetCollected, chunking, whole

ONE, TWO, THREE = (random_xorb(seed, chunks=3, size=2000) for seed in range(3))


@pytest.fixture
def house(database: Database, tmp_path: Path) -> Iterator[XetCollected]:
    made = chunking(database, tmp_path)
    yield made
    made.gate.heavy.close()


def state(house: XetCollected, one: Whole) -> str:
    """How an object looks to the doors of its repo."""
    links = house.gate.links
    known = links.look(1, [one.oid])[one.oid]
    readable = known.state == "stored"
    assert (links.object_key(1, one.oid) is not None) == readable
    assert (one.oid in links.held(1, [one.oid])) == readable
    with house.database.read() as connection:
        assert (one.oid in find_in(connection, 1, [one.oid])) == readable
    return known.state


def put_aside(house: XetCollected, hash: bytes) -> None:
    house.index.quarantine(hash, house.index.located([hash])[hash].key)


def test_an_object_is_damaged_as_long_as_one_of_its_xorbs_is(house: XetCollected) -> None:
    both, other = house.bring(ONE, TWO), house.bring(THREE)
    assert (state(house, both), state(house, other)) == ("stored", "stored")
    put_aside(house, ONE.hash)
    put_aside(house, TWO.hash)
    assert (state(house, both), state(house, other)) == ("damaged", "stored")
    assert house.index.files.advertised(1, [both.oid, other.oid]) == {other.oid: other.file.hash}
    house.take(TWO)
    assert state(house, both) == "damaged"
    house.take(ONE)
    assert state(house, both) == "stored"
    assert house.index.files.advertised(1, [both.oid]) == {both.oid: both.file.hash}
    assert house.read(both) == both.bytes
    # Neither was anything marked, nor is anything to be proven again: the name of a xorb proves its bytes.
    assert house.states() == {both.oid: "stored", other.oid: "stored"}


def test_whole_bytes_take_the_place_of_chunks_that_are_bad(house: XetCollected) -> None:
    made = house.bring(ONE, TWO)
    put_aside(house, ONE.hash)
    house.upload(made.bytes)
    assert state(house, made) == "stored"
    held = house.gate.links.object_key(1, made.oid)
    assert held is not None
    with house.raw.open(held.key) as reader:
        assert reader.read_all() == made.bytes
    assert house.index.files.advertised(1, [made.oid]) == {}
    house.take(ONE)
    assert house.index.files.advertised(1, [made.oid]) == {made.oid: made.file.hash}


def test_other_chunks_of_the_same_bytes_take_the_place_of_bad_ones(house: XetCollected) -> None:
    """Clients may cut a file elsewhere: it is another file then, of the same SHA-256."""
    made = house.bring(ONE, TWO)
    put_aside(house, ONE.hash)
    data = made.bytes
    again = pack_of(data[:5000], data[5000:])
    assert whole(again).oid == made.oid
    house.take(again)
    assert house.file(whole(again))
    assert house.prove()[-1] == "done"
    assert state(house, made) == "stored"
    held = house.gate.links.object_key(1, made.oid)
    assert held is not None
    assert held.key == whole(again).key


def test_an_object_that_is_condemned_is_that_first(house: XetCollected) -> None:
    made = house.bring(ONE)
    put_aside(house, ONE.hash)
    with house.database.write() as connection:
        connection.execute(sa.update(lfs_objects).values(state="condemned"))
    assert state(house, made) == "condemned"


def test_to_look_for_holes_costs_nothing_where_there_are_none(sqlite_database: Database) -> None:
    """By state first, once; then by the xorbs of the file. PostgreSQL plans by what is in its tables."""
    compiled = HOLED.compile(sqlite_database.engine)
    assert isinstance(compiled, SQLCompiler)
    with sqlite_database.read() as connection:
        asked = compiled.construct_expanded_state({"files": [bytes(32)]})
        rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {asked.statement}", asked.positional_parameters).all()
        plan = [str(row[-1]) for row in rows]
    assert not [step for step in plan if step.startswith("SCAN") and "CONSTANT" not in step], plan
    assert any("ix_xet_xorbs_state_scrubbed_at" in step for step in plan), plan


def test_among_many_xorbs_the_bad_one_is_found(house: XetCollected) -> None:
    made = house.bring(ONE)
    many = [bytes([1]) + at.to_bytes(31, "big") for at in range(500)]
    with house.database.write() as connection:
        row = dict(connection.execute(sa.select(xet_xorbs)).mappings().one())
        connection.execute(sa.insert(xet_xorbs), [row | {"hash": hash} for hash in many])
        connection.execute(sa.insert(xet_file_xorbs), [{"file": made.file.hash, "xorb": hash} for hash in many])
        connection.execute(sa.update(xet_xorbs).where(xet_xorbs.c.hash == many[77]).values(state="quarantined"))
        found = connection.execute(HOLED, {"files": [made.file.hash]}).scalars().all()
        assert [bytes(hash) for hash in found] == [made.file.hash]
        assert connection.execute(sa.select(sa.func.count()).select_from(xet_files)).scalar() == 1
    assert state(house, made) == "damaged"
