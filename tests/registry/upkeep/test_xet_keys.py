"""Shards stay for as long as a file has its terms from them; grants, arrivals and keys of weeks end by themselves."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from lfs.store import shard_key
from registry.db import Database
from registry.tables.xet import xet_arrivals, xet_files, xet_keys
from registry.upkeep.xet_keys import named_keys
from registry.xet_domains import WEEK
from tests.lfs.xet.xorbs import random_xorb
from tests.registry import people
from tests.registry.upkeep.chunking import Whole, XetCollected, chunking
from tests.registry.upkeep.collecting import NO_GRACE

ONE, TWO = (random_xorb(seed, chunks=3, size=2000) for seed in range(2))


@pytest.fixture
def house(database: Database, tmp_path: Path) -> Iterator[XetCollected]:
    made = chunking(database, tmp_path)
    yield made
    made.gate.heavy.close()


def shard_of(house: XetCollected, *files: Whole, data: bytes = b"a shard") -> str:
    """Say that these files were told of by some bytes, which are kept; return their key."""
    sha256 = hashlib.sha256(data).hexdigest()
    house.raw.put(shard_key(sha256), data, len(data), sha256)
    with house.database.write() as connection:
        told = sa.update(xet_files).where(xet_files.c.hash.in_([one.file.hash for one in files]))
        connection.execute(told.values(shard=sha256))
    return shard_key(sha256)


def test_a_shard_goes_when_the_last_file_that_it_told_of_is_gone(house: XetCollected) -> None:
    kept, dropped = house.bring(ONE), house.bring(TWO)
    house.commit(kept)
    both = shard_of(house, kept, dropped)
    alone = shard_of(house, data=b"of nobody")
    house.later(days=8)
    # Neither is parsed: only rows are asked.
    assert [line.subject for line in house.run() if line.kind == "key"] == [alone]
    again = shard_of(house, kept, data=b"it was told of again")
    house.graces = NO_GRACE
    for _ in range(5):
        assert both in house.keys("xet/shards/")
        house.run()
    assert house.files() == {kept.file.hash}
    house.run()
    assert house.keys("xet/shards/") == [again]
    with house.database.read() as connection:
        assert named_keys(connection, [both, alone, again, "xet/files/x"]) == {again}


def test_a_shard_that_is_filed_again_between_plan_and_deed_stays(house: XetCollected) -> None:
    made = house.bring(ONE)
    shard = shard_of(house, data=b"a shard")
    house.later(days=8)
    (step,) = house.gc()._xet_keys.orphans(house.clock())
    assert shard_of(house, made, data=b"a shard") == shard
    assert [line.act for line in step.do(1)] == ["keep"]
    assert house.keys("xet/shards/") == [shard]


def test_a_file_whose_shard_went_under_it_is_served_and_filed_again(house: XetCollected) -> None:
    """An old shard came again, its bytes were found in place, and were swept before the rows named them."""
    made = house.bring(ONE)
    house.commit(made)
    shard = shard_of(house)
    house.later(days=8)
    house.run()
    assert house.keys("xet/shards/") == []
    with house.database.write() as connection:
        connection.execute(sa.update(xet_files).values(shard=shard.rpartition("/")[2]))
    assert house.findings() == []
    assert house.chunked() == []
    assert house.read(made) == made.bytes
    assert not house.file(made)


def test_the_key_of_a_week_goes_when_the_week_after_it_is_over(house: XetCollected) -> None:
    house.graces = NO_GRACE
    far = people.add_repo(house.database, "ann", "far", visibility="private")
    domains = [house.domain(), house.domain(far)]
    week = int(house.clock().timestamp()) // WEEK
    keys = {(domain, at): house.index.answer_key(domain, at)[0] for domain in domains for at in (week, week - 1)}
    assert house.run() == []
    house.later(weeks=1)
    assert [(line.act, line.kind, line.subject) for line in house.plan()] == [("forget", "week", "2 of them")]
    assert house.plan() == house.run()
    kept = {(row.domain_id, row.week): bytes(row.key) for row in house.rows(sa.select(xet_keys))}
    assert kept == {(domain, week): keys[domain, week] for domain in domains}
    house.later(weeks=1)
    house.run()
    assert house.rows(sa.select(xet_keys)) == []


def test_arrivals_go_when_they_expired(house: XetCollected) -> None:
    soon, late = (house.clock() + timedelta(hours=hours) for hours in (1, 48))
    with house.database.write() as connection:
        rows = [
            {"namespace_id": 1, "hash": bytes([at]) * 32, "size": 100, "expires_at": moment}
            for at, moment in enumerate((soon, soon, late))
        ]
        connection.execute(sa.insert(xet_arrivals), rows)
    assert house.run() == []
    house.later(hours=2, minutes=1)
    (line,) = house.plan()
    assert (line.act, line.kind, line.subject, line.size) == ("forget", "arrival", "2 of them", 200)
    assert house.run() == [line]
    assert [bytes(row.hash) for row in house.rows(sa.select(xet_arrivals.c.hash))] == [b"\2" * 32]
