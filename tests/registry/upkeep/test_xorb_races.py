"""Whatever is filed while a collection takes Xet apart, nobody meets an error of the rows, and nothing needed goes.

Several write at one time on PostgreSQL; SQLite has one writer.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lfs.errors import BadXet, Busy, ObjectAbsent
from registry.db import Database
from registry.errors import Busy as Taken
from registry.upkeep.gc import Gc
from registry.upkeep.reclaim import Step
from tests.lfs.xet.xorbs import random_xorb
from tests.registry.linked import until, waits_for_a_lock
from tests.registry.upkeep.chunking import XetCollected, chunking, whole
from tests.registry.upkeep.collecting import NO_GRACE

ONE, TWO = (random_xorb(seed, chunks=3, size=2000) for seed in range(2))


@pytest.fixture
def house(database: Database, tmp_path: Path) -> Iterator[XetCollected]:
    made = chunking(database, tmp_path)
    yield made
    made.gate.heavy.close()


@pytest.fixture
def large(emptied_database: Database, tmp_path: Path) -> Iterator[XetCollected]:
    """A house on PostgreSQL, without grace: there, several write at one time."""
    made = chunking(emptied_database, tmp_path)
    made.graces = NO_GRACE
    yield made
    made.gate.heavy.close()


def step_of(house: XetCollected, plan: Callable[[Gc], Iterator[Step]]) -> Callable[[], list[str]]:
    """Plan one step of a collection; return what does it and says how it went."""
    gc = house.gc()
    (step,) = plan(gc)
    run = gc.runs.begin(house.clock(), {})
    return lambda: [line.act for line in step.do(run)]


def held(house: XetCollected, act: Callable[[], Any], *, until_done: Callable[[], Any]) -> Any:
    """Begin an act that has to wait for a lock which another transaction holds, and end that one then."""
    met: list[Any] = []

    def run() -> None:
        try:
            met.append(act())
        except (ObjectAbsent, Busy, Taken) as error:
            met.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    until(lambda: waits_for_a_lock(house.database))
    until_done()
    thread.join(20)
    assert not thread.is_alive()
    return met[0]


def paused(house: XetCollected, act: Callable[[], Any], meanwhile: Callable[[], Any]) -> tuple[Any, Any]:
    """Stop an act right before its COMMIT, begin another one which has to wait for it, then let both go on.

    What it reads before, in a transaction of its own, is not stopped.
    """
    at_end, go = threading.Event(), threading.Event()
    real = house.database.engine.dialect.do_commit
    first = threading.Thread(target=lambda: results.append(act()))
    results: list[Any] = []

    def stopping(connection: Any) -> None:
        if threading.current_thread() is first and not connection.read_only and not go.is_set():
            at_end.set()
            assert go.wait(20)
        real(connection)

    house.database.engine.dialect.do_commit = stopping  # type: ignore[method-assign]
    try:
        first.start()
        assert at_end.wait(20)
        met = held(house, meanwhile, until_done=go.set)
        first.join(20)
    finally:
        go.set()
        house.database.engine.dialect.do_commit = real  # type: ignore[method-assign]
    return results[0], met


@pytest.mark.postgres
def test_a_shard_that_comes_while_its_file_is_dropped_files_it_anew(large: XetCollected) -> None:
    made = large.bring(ONE, TWO)
    for _ in range(3):
        large.run()
    assert large.links() == set()
    drop = step_of(large, lambda gc: gc._chunked.files(large.clock()))
    done, filed = paused(large, drop, lambda: large.file(made))
    assert (done, filed) == (["delete"], True)
    assert large.prove()[-1] == "done"
    assert large.read(made) == made.bytes
    assert large.findings() == []


@pytest.mark.postgres
def test_a_file_that_is_being_filed_is_not_dropped(large: XetCollected) -> None:
    made = large.bring(ONE, TWO)
    for _ in range(3):
        large.run()
    drop = step_of(large, lambda gc: gc._chunked.files(large.clock()))
    filed, done = paused(large, lambda: large.file(made), drop)
    assert (filed, done) == (True, ["keep"])
    assert large.prove()[-1] == "done"
    assert large.findings() == []


@pytest.mark.postgres
def test_a_xorb_that_a_shard_names_is_not_condemned(large: XetCollected) -> None:
    large.take(ONE)
    large.later(days=29)
    condemn = step_of(large, lambda gc: gc._xorbs.condemn(large.clock()))
    filed, done = paused(large, lambda: large.file(whole(ONE)), condemn)
    assert (filed, done) == (True, ["keep"])
    assert large.xorbs() == {ONE.hash: "live"}


@pytest.mark.postgres
def test_a_xorb_that_is_being_condemned_lives_again(large: XetCollected) -> None:
    large.take(ONE)
    large.later(days=29)
    condemn = step_of(large, lambda gc: gc._xorbs.condemn(large.clock()))
    done, filed = paused(large, condemn, lambda: large.file(whole(ONE)))
    assert (done, filed) == (["condemn"], True)
    assert large.xorbs() == {ONE.hash: "live"}
    assert large.prove() == ["done"]


@pytest.mark.postgres
def test_a_shard_that_comes_while_its_xorb_is_claimed_is_refused_and_then_heals(large: XetCollected) -> None:
    large.take(ONE)
    large.later(days=29)
    large.run()
    delete = step_of(large, lambda gc: gc._xorbs.delete(large.clock()))
    done, filed = paused(large, delete, lambda: large.file(whole(ONE)))
    assert done == ["delete"]
    assert isinstance(filed, ObjectAbsent)
    assert large.files() == set()
    large.take(ONE)
    assert large.file(whole(ONE))
    assert large.prove() == ["done"]


@pytest.mark.postgres
def test_bytes_that_come_while_their_xorb_is_claimed_are_kept(large: XetCollected) -> None:
    large.take(ONE)
    large.later(days=29)
    large.run()
    delete = step_of(large, lambda gc: gc._xorbs.delete(large.clock()))
    done, _ = paused(large, delete, lambda: large.take(ONE))
    assert done == ["delete"]
    assert large.xorbs() == {ONE.hash: "live"}
    assert large.file(whole(ONE))
    assert large.prove() == ["done"]
    assert large.findings() == []


@pytest.mark.timeout(180)
def test_filing_and_collections_at_the_same_time_lose_nothing(house: XetCollected) -> None:
    """Threads upload and file a handful of files over and over while collections without grace or promise run."""
    house.graces = NO_GRACE
    xorbs = [random_xorb(seed, chunks=2, size=500) for seed in range(10, 14)]
    files = [whole(xorbs[at], xorbs[(at + 1) % 4]) for at in range(4)] + [whole(xorb) for xorb in xorbs]
    failed: list[BaseException] = []
    filed: list[int] = []
    stop = threading.Event()

    def collect() -> None:
        while not stop.is_set():
            try:
                house.run_now()
            except Taken:
                continue
            except BaseException as error:
                failed.append(error)
                return

    def work(name: int) -> None:
        try:
            for round in range(12):
                wanted = files[(name + round) % len(files)]
                try:
                    house.take(*(xorb for xorb in xorbs if xorb.hash in wanted.file.terms))
                    filed.append(house.file(wanted, files[(name + round + 3) % 4]))
                except (ObjectAbsent, Busy, BadXet):
                    # What a client sends again.
                    continue
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
    collector = threading.Thread(target=collect)
    for thread in (*threads, collector):
        thread.start()
    for thread in threads:
        thread.join()
    stop.set()
    collector.join()
    assert failed == []
    assert filed
    assert set(house.prove()) <= {"done"}
    assert house.findings() == []
    for hash in house.files():
        (one,) = {each.file.hash: each for each in files if each.file.hash == hash}.values()
        assert house.read(one) == one.bytes
    for _ in range(8):
        house.run_now()
    house.later(hours=2)
    house.run_now()
    assert house.keys("xet/") == []
    assert house.xorbs() == {}
