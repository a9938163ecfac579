"""Whatever is filed and collected while repos are opened and closed, nothing private stays where everybody may ask.

Several write at one time on PostgreSQL; SQLite has one writer.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lfs.errors import Busy, ObjectAbsent
from registry.db import Database
from registry.errors import Busy as Taken
from tests.lfs.xet.xorbs import random_xorb
from tests.registry.test_xet_following import CLOSED, ONE, OPEN, add_repo, change, changing, marked, shown
from tests.registry.upkeep.chunking import XetCollected, chunking, whole
from tests.registry.upkeep.collecting import NO_GRACE
from tests.registry.upkeep.test_xorb_races import paused, step_of


@pytest.fixture
def house(database: Database, tmp_path: Path) -> Iterator[XetCollected]:
    made = chunking(database, tmp_path)
    yield made
    made.gate.heavy.close()


@pytest.fixture
def large(emptied_database: Database, tmp_path: Path) -> Iterator[XetCollected]:
    made = chunking(emptied_database, tmp_path)
    yield made
    made.gate.heavy.close()


@pytest.mark.postgres
def test_who_files_a_xorb_just_before_its_repo_is_closed_may_lose_sight_of_it(large: XetCollected) -> None:
    """Not the file: what was filed while the change read ahead is not asked, so its xorb is sent once more."""
    made = large.bring(ONE)
    other, public = add_repo(large), large.domain()
    filed, _ = paused(large, lambda: large.file(whole(ONE), repo_id=other), changing(large, CLOSED))
    private = large.domain()
    assert filed
    assert (shown(large, public), shown(large, private)) == (set(), {ONE.hash})
    assert marked(large, public) == {}
    assert large.generations()[public] == 1
    assert large.read(made) == made.bytes
    large.bring(ONE, repo_id=other)
    assert shown(large, public) == {ONE.hash}


@pytest.mark.postgres
def test_who_files_a_xorb_just_after_its_repo_is_closed_is_refused(large: XetCollected) -> None:
    large.bring(ONE)
    other, public = add_repo(large), large.domain()
    _, filed = paused(large, changing(large, CLOSED), lambda: large.file(whole(ONE), repo_id=other))
    assert isinstance(filed, ObjectAbsent)
    assert (shown(large, public), shown(large, large.domain())) == (set(), {ONE.hash})
    assert large.links() == {(1, whole(ONE).file.hash, "proven")}


@pytest.mark.postgres
def test_what_a_repo_takes_along_is_not_forgotten_at_that_moment(large: XetCollected) -> None:
    change(large, CLOSED)
    made, private = large.bring(ONE), large.domain()
    change(large, OPEN)
    large.later(days=29)
    forget = step_of(large, lambda gc: gc._domains.steps(large.clock()))
    _, done = paused(large, changing(large, CLOSED), forget)
    assert done == ["keep"]
    assert shown(large, private) == {ONE.hash}
    assert set(marked(large, private).values()) == {made.file.hash}


def test_what_was_forgotten_is_brought_along_again(house: XetCollected) -> None:
    change(house, CLOSED)
    made, private = house.bring(ONE), house.domain()
    change(house, OPEN)
    house.later(days=29)
    forget = step_of(house, lambda gc: gc._domains.steps(house.clock()))
    assert forget() == ["forget"]
    assert (shown(house, private), marked(house, private)) == (set(), {})
    assert change(house, CLOSED) == private
    assert shown(house, private) == {ONE.hash}
    assert set(marked(house, private).values()) == {made.file.hash}


@pytest.mark.timeout(180)
def test_opening_closing_filing_and_collecting_at_once_show_nothing_private(house: XetCollected) -> None:
    xorbs = [random_xorb(seed, chunks=2, size=500) for seed in range(20, 23)]
    files = [whole(xorbs[at], xorbs[(at + 1) % 3]) for at in range(3)]
    ids = [1, add_repo(house, "two"), add_repo(house, "three", "private")]
    house.graces = NO_GRACE
    failed: list[BaseException] = []

    def often(act: Callable[[int], object]) -> threading.Thread:
        def run() -> None:
            for round in range(10):
                try:
                    act(round)
                except (ObjectAbsent, Busy, Taken):
                    continue
                except BaseException as error:
                    failed.append(error)
                    return

        return threading.Thread(target=run)

    def turn(repo_id: int) -> threading.Thread:
        return often(lambda round: change(house, CLOSED if round % 2 else OPEN, repo_id))

    def fill(repo_id: int) -> threading.Thread:
        def act(round: int) -> None:
            house.take(*xorbs, repo_id=repo_id)
            house.file(files[round % 3], files[(round + 1) % 3], repo_id=repo_id)

        return often(act)

    threads = [make(repo_id) for repo_id in ids for make in (turn, fill)]
    threads.append(often(lambda round: house.run_now()))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    for repo_id in ids:
        change(house, CLOSED, repo_id)
    # What was brought while a repo was open and never filed is there still; nothing leads to it.
    assert marked(house, house.domain(add_repo(house, "four"))) == {}
    assert house.prove()
    assert house.findings() == []
