"""Which objects are due to be sent by their chunks, who may send each, and how often."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import pytest
import sqlalchemy as sa

from registry.db import Database
from registry.tables.objects import lfs_links, lfs_objects
from registry.tables.repos import repos
from registry.tables.xet import xet_files, xet_ingests, xet_links
from registry.xet_ingests import MOST, PAUSES, Due, Ingests
from tests.registry import people
from tests.registry.linked import Linked

SMALLEST = 1000
HASH = b"\x01" * 32


def oid(number: int) -> str:
    return f"{number:064x}"


@dataclass
class Ground:
    """A repo of ann's, objects linked to it, and a clock that a test moves."""

    database: Database
    moment: datetime = people.START
    repo: int = field(init=False)
    ingests: Ingests = field(init=False)

    def __post_init__(self) -> None:
        people.add_user(self.database, "ann")
        self.repo = people.add_repo(self.database, "ann", "one")
        self.ingests = self.another()

    def another(self, page: int = 100) -> Ingests:
        return Ingests(self.database, smallest=SMALLEST, page=page, clock=lambda: self.moment)

    def link(self, number: int, size: int = SMALLEST, repo: int = 0) -> str:
        Linked(self.database).link(repo or self.repo, oid(number), size)
        return oid(number)

    def by_xet(self, number: int, state: str) -> None:
        file = hashlib.sha256(oid(number).encode()).digest()
        rows = {"hash": file, "size": SMALLEST, "terms": b"", "created_at": self.moment}
        link = {"repo_id": self.repo, "file": file, "sha256": oid(number), "size": SMALLEST, "state": state}
        with self.database.write() as connection:
            connection.execute(sa.insert(xet_files).values(rows))
            connection.execute(sa.insert(xet_links).values(link | {"created_at": self.moment}))

    def change(self, table: sa.Table, number: int, **values: object) -> None:
        column = {"xet_links": "sha256"}.get(table.name, "oid")
        with self.database.write() as connection:
            connection.execute(sa.update(table).where(table.c[column] == oid(number)).values(values))

    def rows(self) -> Mapping[str, str]:
        """The states of rows by their oid."""
        with self.database.read() as connection:
            found = connection.execute(sa.select(xet_ingests.c.oid, xet_ingests.c.state)).all()
        return {row.oid: row.state for row in found}

    def row(self, number: int) -> sa.Row[tuple[object, ...]]:
        with self.database.read() as connection:
            return connection.execute(sa.select(xet_ingests).where(xet_ingests.c.oid == oid(number))).one()

    def taken(self, holder: str = "me") -> Due:
        found = self.ingests.take(holder, 60)
        assert found is not None
        return found


@pytest.fixture
def ground(database: Database) -> Ground:
    return Ground(database)


def test_what_is_linked_sound_and_large_is_due(ground: Ground) -> None:
    ground.link(1)
    ground.link(2, SMALLEST - 1)
    for number, values in ((4, {"state": "condemned"}), (5, {"state": "damaged"})):
        ground.link(number)
        ground.change(lfs_objects, number, **values)
    for number, state in ((6, "declared"), (7, "proven"), (8, "refuted")):
        ground.link(number)
        ground.by_xet(number, state)
    assert ground.ingests.look() == 2
    assert ground.rows() == {oid(1): "waiting", oid(8): "waiting"}
    assert ground.ingests.look() == 0
    due = ground.taken()
    assert due == Due(ground.repo, oid(1), SMALLEST, f"lfs/00/00/{oid(1)}", 1)


def test_what_another_repo_has_by_its_chunks_is_due_here_too(ground: Ground) -> None:
    key = f"xet/files/{oid(7)}"
    ground.link(1)
    ground.change(lfs_objects, 1, kind="xet", key=key)
    assert ground.ingests.look() == 1
    assert ground.taken() == Due(ground.repo, oid(1), SMALLEST, key, 1)


def test_an_object_is_due_for_each_repo_that_lives(ground: Ground) -> None:
    other, gone = (people.add_repo(ground.database, "ann", name) for name in ("two", "three"))
    for repo in (ground.repo, other, gone):
        ground.link(1, repo=repo)
    with ground.database.write() as connection:
        connection.execute(sa.update(repos).where(repos.c.id == gone).values(deleted_at=ground.moment))
    assert ground.ingests.look() == 2
    assert {ground.taken().repo_id, ground.taken().repo_id} == {ground.repo, other}
    assert ground.ingests.take("me", 60) is None


def test_a_repo_that_goes_takes_its_turn_with_it(ground: Ground) -> None:
    ground.link(1)
    ground.ingests.look()
    with ground.database.write() as connection:
        connection.execute(sa.update(repos).values(deleted_at=ground.moment))
    assert ground.ingests.take("me", 60) is None


def test_links_are_walked_over_page_by_page_and_again(ground: Ground) -> None:
    ingests = ground.another(page=2)
    for number in range(5):
        ground.link(number)
    assert [ingests.look() for _ in range(4)] == [2, 2, 1, 0]
    ground.link(9)
    ground.link(8)
    assert sum(ingests.look() for _ in range(4)) == 2
    assert set(ground.rows()) == {oid(number) for number in (0, 1, 2, 3, 4, 8, 9)}


def test_many_who_look_and_take_at_once_do_each_thing_once(ground: Ground) -> None:
    for number in range(20):
        ground.link(number)

    def work(holder: int) -> list[str]:
        ingests, found = ground.another(page=7), []
        for _ in range(3):
            ingests.look()
        while due := ingests.take(str(holder), 60):
            found.append(due.oid)
        return found

    with ThreadPoolExecutor(4) as pool:
        found = [name for mine in pool.map(work, range(4)) for name in mine]
    assert sorted(found) == [oid(number) for number in range(20)]


def test_a_lease_that_lapses_is_taken_over_and_counts(ground: Ground) -> None:
    ground.link(1)
    ground.ingests.look()
    mine = ground.taken("me")
    assert ground.ingests.take("you", 60) is None
    ground.moment += timedelta(seconds=40)
    assert ground.ingests.hold(mine, "me", 60)
    ground.moment += timedelta(seconds=40)
    assert ground.ingests.take("you", 60) is None
    ground.moment += timedelta(seconds=21)
    assert ground.taken("you").tries == 2
    assert not ground.ingests.hold(mine, "me", 60)
    ground.ingests.done(mine, "me")
    assert ground.rows() == {oid(1): "waiting"}


def test_what_is_given_back_is_anybodys_at_once_and_does_not_count(ground: Ground) -> None:
    ground.link(1)
    ground.ingests.look()
    for _ in range(2 * MOST):
        due = ground.taken()
        assert due.tries == 1
        ground.ingests.give_back(due, "me")


def test_failures_rest_longer_and_longer_and_then_end(ground: Ground) -> None:
    ground.link(1)
    ground.ingests.look()
    for pause in PAUSES:
        assert not ground.ingests.fail(ground.taken(), "me", "the child died")
        ground.moment += pause - timedelta(seconds=1)
        assert ground.ingests.take("me", 60) is None
        ground.moment += timedelta(seconds=1)
    assert ground.ingests.fail(ground.taken(), "me", "the child died again")
    assert (ground.row(1).state, ground.row(1).reason) == ("failed", "the child died again")
    ground.moment += timedelta(days=9)
    ground.ingests.look()
    assert ground.ingests.take("me", 60) is None


def test_what_waits_and_what_was_given_up_is_counted(ground: Ground) -> None:
    assert ground.ingests.counts() == {"waiting": 0, "failed": 0}
    for number in range(4):
        ground.link(number)
    ground.ingests.look()
    ground.change(xet_ingests, 1, state="failed")
    ground.change(xet_ingests, 2, state="done")
    assert ground.ingests.counts() == {"waiting": 2, "failed": 1}


def test_what_is_done_is_not_due_again(ground: Ground) -> None:
    ground.link(1)
    ground.ingests.look()
    ground.ingests.done(ground.taken(), "me")
    ground.by_xet(1, "declared")
    assert ground.ingests.look() == 0
    # Its bytes were read back and are others: sending them again would end the same way.
    ground.change(xet_links, 1, state="refuted")
    assert [ground.ingests.look() for _ in range(2)] == [0, 0]
    assert ground.rows() == {oid(1): "done"}


def test_what_was_done_and_collected_is_due_again(ground: Ground) -> None:
    ground.link(1)
    ground.ingests.look()
    ground.ingests.done(ground.taken(), "me")
    assert [ground.ingests.look() for _ in range(2)] == [0, 1]
    assert ground.rows() == {oid(1): "waiting"}


@pytest.mark.parametrize("state", ["waiting", "done", "failed"])
def test_a_row_goes_with_its_link(ground: Ground, state: str) -> None:
    ground.link(1)
    ground.ingests.look()
    ground.change(xet_ingests, 1, state=state)
    with ground.database.write() as connection:
        connection.execute(sa.delete(lfs_links))
    assert ground.ingests.take("me", 60) is None
    ground.ingests.look()
    assert ground.rows() == {}


@pytest.mark.parametrize("state", ["waiting", "failed"])
def test_a_row_goes_when_a_client_sends_the_file_by_xet(ground: Ground, state: str) -> None:
    ground.link(1)
    ground.ingests.look()
    ground.change(xet_ingests, 1, state=state)
    ground.by_xet(1, "declared")
    assert ground.ingests.take("me", 60) is None
    ground.ingests.look()
    assert ground.rows() == {}
