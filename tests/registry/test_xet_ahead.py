"""What is read before a change of circles is bounded, and only what holds under the locks is believed of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from registry import xet_ahead
from registry.db import Database
from registry.tables.repos import repos
from registry.tables.xet import xet_links
from registry.xet_following import Following
from tests.registry.test_xet_following import (
    CLOSED,
    ONE,
    OPEN,
    TWO,
    add_repo,
    bring_part,
    change,
    lab,
    marked,
    marks_of,
    move,
    shown,
)
from tests.registry.upkeep.chunking import XetCollected, chunking


@pytest.fixture
def house(database: Database, tmp_path: Path) -> Iterator[XetCollected]:
    made = chunking(database, tmp_path)
    yield made
    made.gate.heavy.close()


def read_ahead(house: XetCollected, visibility: str, *, ahead: str = "") -> Callable[[], None]:
    """Read what a change of the first repo asks, maybe for another one; return what then does it."""
    following = Following(house.database, "namespace", clock=house.clock)
    read = following.ahead(1, {"visibility": ahead or visibility})

    def act() -> None:
        with house.database.write() as connection:
            before = following.circle(connection, 1)
            connection.execute(sa.update(repos).where(repos.c.id == 1).values(visibility=visibility))
            following.follow(connection, 1, before, read)

    return act


def test_nobody_waits_while_terms_are_read(house: XetCollected) -> None:
    """A hostile repo has gigabytes of them, and SQLite has one writer: inside, no statement reads any."""
    other = add_repo(house)
    made = [house.bring(ONE, TWO), bring_part(house, ONE, 0, 2, other)]
    house.bring(TWO, repo_id=other)
    lab(house)
    writing: list[str] = []
    reading: list[str] = []

    def note(connection: Any, cursor: object, statement: str, *rest: object) -> None:
        inside = "BEGIN IMMEDIATE" in connection.get_execution_options().get("weightroom_begin", ())
        (writing if inside else reading).append(statement)

    sa.event.listen(house.database.engine, "before_cursor_execute", note)
    change(house, CLOSED)
    move(house, "lab")
    change(house, OPEN)
    sa.event.remove(house.database.engine, "before_cursor_execute", note)
    assert any("terms" in statement for statement in reading)
    assert [statement for statement in writing if "terms" in statement] == []
    assert any("DELETE FROM xet_xorb_domains" in statement for statement in writing) == house.database.sqlite
    assert house.read(made[0]) == made[0].bytes


def test_what_is_too_scattered_to_be_read_follows_nobody(house: XetCollected, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not proven that the xorb is theirs alone: it comes to no circle, and does not stay in the one that was."""
    monkeypatch.setattr(xet_ahead, "MOST", 1)
    other = add_repo(house)
    made = house.bring(ONE, TWO)
    house.bring(ONE, TWO, repo_id=other)
    public, private = house.domain(), change(house, CLOSED)
    for domain in (public, private):
        assert (shown(house, domain), marked(house, domain)) == (set(), {})
    assert house.read(made) == made.bytes
    # One that fits still goes along, after one that does not.
    alone = house.bring(ONE)
    house.bring(ONE, TWO)
    assert change(house, OPEN) == public
    assert (shown(house, public), marked(house, public)) == ({ONE.hash}, marks_of(alone))


@pytest.mark.parametrize("leaves", [True, False])
def test_what_rests_on_a_file_that_went_since_is_not_believed(house: XetCollected, leaves: bool) -> None:
    """Between what is read ahead and the change, a repo loses the file by which the xorb would be theirs."""
    other = add_repo(house)
    for repo_id in (1, other):
        bring_part(house, ONE, 0, 2, repo_id)
    public = house.domain()
    rest, _ = (bring_part(house, ONE, 2, 4, repo_id) for repo_id in (1, other))
    close = read_ahead(house, "private")
    loser = 1 if leaves else other
    with house.database.write() as connection:
        gone = sa.and_(xet_links.c.repo_id == loser, xet_links.c.file == rest.file.hash)
        assert connection.execute(sa.delete(xet_links).where(gone)).rowcount == 1
    close()
    assert shown(house, public) == ({ONE.hash} if leaves else set())
    assert shown(house, house.domain()) == (set() if leaves else {ONE.hash})


def test_what_is_filed_after_it_was_read_leaves_all_the_same(house: XetCollected) -> None:
    house.bring(ONE)
    close, public = read_ahead(house, "private"), house.domain()
    house.bring(TWO)
    house.bring(ONE, TWO)
    close()
    assert (shown(house, public), marked(house, public)) == (set(), {})
    assert shown(house, house.domain()) == {ONE.hash}
    assert house.generations()[public] == 1


def test_who_reads_ahead_for_another_change_hides_all_the_same(house: XetCollected) -> None:
    house.bring(ONE)
    public, nothing = house.domain(), read_ahead(house, "private", ahead="public")
    nothing()
    assert (shown(house, public), shown(house, house.domain())) == (set(), set())
