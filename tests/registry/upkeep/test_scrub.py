"""What lies there is read again within a month, and what rotted is put aside before anybody builds upon it."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from lfs.errors import Unavailable
from lfs.local import LocalStore
from lfs.store import Reader, Span
from lfs.xet.index import Xorb
from registry.db import Database
from registry.routes.meter import Meter
from registry.tables.work import events
from registry.tables.xet import xet_xorbs
from registry.upkeep.scrub import CLAIM, EVERY, Scrub
from tests.lfs.xet.xorbs import Made, random_xorb
from tests.registry import people
from tests.registry.linked import until
from tests.registry.upkeep.broken import Broken
from tests.registry.upkeep.chunking import XetCollected, chunking

ONE, TWO, THREE = (random_xorb(seed, chunks=3, size=2000) for seed in range(3))


class Watched(LocalStore):
    """A shelf that counts which bodies are opened, and does not answer for some keys."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, fsync=False, min_free=0)
        self.opened: Counter[str] = Counter()
        self.away: set[str] = set()

    def open(self, key: str, span: Span | None = None) -> Reader:
        if key in self.away:
            raise Unavailable("The store does not answer.")
        if key.startswith("xet/xorbs/"):
            self.opened[key] += 1
        return super().open(key, span)


@pytest.fixture
def store(tmp_path: Path) -> Watched:
    return Watched(tmp_path / "objects")


@pytest.fixture
def house(database: Database, tmp_path: Path, store: Watched) -> Iterator[XetCollected]:
    made = chunking(database, tmp_path, store)
    yield made
    made.gate.heavy.close()


def scrub(house: XetCollected, **more: Any) -> Scrub:
    return Scrub(database=house.database, store=house.store, clock=house.clock, **{"rate": 1 << 40} | more)


def row(house: XetCollected, made: Made) -> Any:
    (found,) = house.rows(sa.select(xet_xorbs).where(xet_xorbs.c.hash == made.hash))
    return found


def xorb(house: XetCollected, made: Made) -> Xorb:
    return house.index.located([made.hash])[made.hash]


def told(house: XetCollected) -> list[tuple[str, int | None]]:
    return [(each.act, each.repo_id) for each in house.rows(sa.select(events).order_by(events.c.id))]


def test_every_xorb_is_read_within_a_month_the_oldest_first(house: XetCollected, store: Watched) -> None:
    for made in (ONE, TWO, THREE):
        house.take(made)
        house.later(days=1)
    read: list[int] = []
    scrub(house, read=read.append).run()
    assert not store.opened
    house.later(seconds=EVERY.total_seconds() - 2 * 24 * 3600 + 60)
    scrub(house, read=read.append).run()
    assert list(store.opened) == [xorb(house, ONE).key, xorb(house, TWO).key]
    assert sum(read) == len(ONE.body) + len(TWO.body)
    house.later(days=1)
    scrub(house).run()
    assert list(store.opened) == [xorb(house, made).key for made in (ONE, TWO, THREE)]
    assert set(store.opened.values()) == {1}
    assert timedelta(days=30) > EVERY


def test_a_xorb_that_rotted_is_put_aside_and_its_files_are_listed(house: XetCollected) -> None:
    theirs = people.add_repo(house.database, "ann", "theirs")
    made = house.bring(ONE, TWO)
    house.bring(ONE, TWO, repo_id=theirs)
    house.bring(THREE)
    Broken(house.gate, house.raw).rot(xorb(house, ONE).key)
    house.later(days=30)
    damaged: list[int] = []
    scrub(house, damaged=damaged.append).run()
    assert house.xorbs() == {ONE.hash: "quarantined", TWO.hash: "live", THREE.hash: "live"}
    assert damaged == [0, 1]
    assert told(house) == [("xorb.damaged", None), ("file.damaged", 1), ("file.damaged", theirs)]
    bodies = [each.body for each in house.rows(sa.select(events).order_by(events.c.id))]
    assert bodies[0]["files"] == 2
    assert bodies[1] == bodies[2] == {"files": [made.oid]}
    # It is not looked at again until it came again, sound.
    house.later(days=30)
    scrub(house, damaged=damaged.append).run()
    assert len(told(house)) == 3
    house.take(ONE)
    house.later(days=30)
    scrub(house, damaged=damaged.append).run()
    assert damaged[-1] == 0
    assert house.read(made) == made.bytes


def test_a_body_that_is_gone_is_bad_but_an_empty_shelf_is_another_one(house: XetCollected) -> None:
    house.take(ONE, TWO)
    house.raw.delete(xorb(house, ONE).key)
    for key in (xorb(house, TWO).key, xorb(house, TWO).table):
        house.raw.delete(key)
    house.later(days=30)
    scrub(house).run()
    assert house.xorbs() == {ONE.hash: "quarantined", TWO.hash: "live"}


def test_nothing_is_given_up_when_a_shelf_is_mounted_elsewhere(house: XetCollected) -> None:
    made = [random_xorb(seed, chunks=1, size=100) for seed in range(20, 26)]
    house.take(*made)
    for key in house.keys("xet/"):
        house.raw.delete(key)
    house.later(days=30)
    with pytest.raises(Unavailable):
        scrub(house).run()
    assert set(house.xorbs().values()) == {"live"}


def test_a_shelf_that_does_not_answer_proves_nothing_and_is_asked_again(house: XetCollected, store: Watched) -> None:
    house.take(ONE, TWO)
    store.away = {xorb(house, ONE).key}
    house.later(days=30)
    scrub(house).run()
    # The other one had its turn all the same.
    assert list(store.opened) == [xorb(house, TWO).key]
    assert set(house.xorbs().values()) == {"live"}
    store.away = set()
    house.later(seconds=CLAIM.total_seconds() - 60)
    scrub(house).run()
    assert len(store.opened) == 1
    house.later(seconds=120)
    scrub(house).run()
    assert store.opened[xorb(house, ONE).key] == 1


def test_a_table_that_rotted_is_built_again(house: XetCollected) -> None:
    house.take(ONE)
    key = xorb(house, ONE).table
    Broken(house.gate, house.raw).rot(key)
    house.later(days=30)
    scrub(house).run()
    assert Broken(house.gate, house.raw).read(key) == ONE.table().to_bytes()
    assert house.xorbs() == {ONE.hash: "live"}


def test_processes_share_the_work(house: XetCollected, store: Watched) -> None:
    made = [random_xorb(seed, chunks=1, size=100) for seed in range(30, 60)]
    house.take(*made)
    house.later(days=30)
    threads = [threading.Thread(target=scrub(house).run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(store.opened) == {xorb(house, each).key for each in made}
    assert set(store.opened.values()) == {1}
    moment = house.clock() - timedelta(days=1)
    assert all(each.scrubbed_at > moment for each in house.rows(sa.select(xet_xorbs)))


def test_it_keeps_to_its_budget(house: XetCollected) -> None:
    house.take(ONE, TWO)
    house.later(days=30)
    slept: list[float] = []
    scrub(house, rate=1000, sleep=slept.append).run()
    # The sleeps were not slept: each counts from the time until which the bytes before it were paid for.
    assert max(slept) == pytest.approx((len(ONE.body) + len(TWO.body)) / 1000, abs=1)


def test_it_stops_in_the_middle_and_another_goes_on(house: XetCollected, store: Watched) -> None:
    house.take(ONE)
    house.later(days=30)
    slow = scrub(house, rate=1)
    slow.start()
    until(lambda: bool(store.opened))
    slow.close()
    assert row(house, ONE).scrubbed_at < house.clock() - EVERY + 2 * CLAIM
    house.later(hours=2)
    scrub(house).run()
    assert row(house, ONE).scrubbed_at > house.clock() - timedelta(hours=1)


def test_a_xorb_that_is_replaced_while_it_is_read_is_left_alone(house: XetCollected) -> None:
    house.bring(ONE)
    old = xorb(house, ONE)
    Broken(house.gate, house.raw).rot(old.key)
    house.later(days=30)

    def replaced(size: int) -> None:
        if xorb(house, ONE).key == old.key:
            house.index.quarantine(ONE.hash, old.key)
            house.take(ONE)

    scrub(house, read=replaced).run()
    assert house.xorbs() == {ONE.hash: "live"}
    # Told by who replaced it, and not by the scrub.
    assert told(house) == [("xorb.damaged", None), ("file.damaged", 1), ("xorb.healed", None)]


def test_the_counters_of_a_process_tell_of_it(house: XetCollected) -> None:
    house.take(ONE, TWO)
    Broken(house.gate, house.raw).overwrite(xorb(house, TWO).key, ONE.body)
    house.later(days=30)
    meter = Meter()
    scrub(house, read=meter.scrubbed.inc, damaged=meter.damaged.set).run()
    told = meter.text().decode()
    assert f"weightroom_xet_scrubbed_bytes_total {float(2 * len(ONE.body))}" in told
    assert "weightroom_xet_damaged_xorbs 1.0" in told
