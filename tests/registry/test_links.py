"""Links open objects to one repo at a time, and only after proof."""

from __future__ import annotations

from datetime import timedelta

import pytest
import sqlalchemy as sa

from registry.db import Database
from registry.links import Links
from registry.tables.objects import lfs_links, lfs_objects
from registry.tables.repos import repos
from tests.registry import people
from tests.registry.linked import Linked

OID, OTHER = "a" * 64, "b" * 64


@pytest.fixture
def linked(database: Database) -> Linked:
    """Links of two repos, 1 and 2, of one user."""
    people.add_user(database, "ann")
    people.add_repo(database, "ann", "one")
    people.add_repo(database, "ann", "two")
    return Linked(database, clock=lambda: people.START)


def test_a_finished_upload_is_linked_to_its_repo_alone(linked: Linked) -> None:
    linked.link(1, OID, 7)
    assert linked.links.held(1, [OID, OTHER]) == {OID: 7}
    assert linked.links.held(2, [OID]) == {}
    assert linked.links.object_key(2, OID) is None


def test_an_announced_upload_opens_nothing(linked: Linked) -> None:
    linked.begin(1, OID, 7)
    assert linked.links.held(1, [OID]) == {}


def test_a_look_tells_the_state_of_objects_that_only_others_hold(linked: Linked, database: Database) -> None:
    linked.link(1, OID, 7)
    with database.write() as connection:
        connection.execute(sa.update(lfs_objects).values(state="damaged"))
    known = linked.links.look(2, [OID, OTHER])
    assert set(known) == {OID}
    assert (known[OID].state, known[OID].linked) == ("damaged", False)
    assert linked.links.look(1, [OID])[OID].linked


def test_a_deleted_repo_opens_nothing(linked: Linked, database: Database) -> None:
    linked.link(1, OID, 7)
    with database.write() as connection:
        connection.execute(sa.update(repos).where(repos.c.id == 1).values(deleted_at=people.START))
    assert not linked.links.look(1, [OID])[OID].linked


def test_a_batch_answer_keeps_a_link_fresh_once_a_day(linked: Linked, database: Database) -> None:
    linked.link(1, OID, 7)
    for days, seen in ((0.5, people.START), (2, people.START + timedelta(days=2))):
        later = Links(database, clock=lambda days=days: people.START + timedelta(days=days))
        assert set(later.look(1, [OID, OTHER])) == {OID}
        with database.read() as connection:
            assert connection.execute(sa.select(lfs_links.c.seen_at)).scalar_one() == seen


def test_many_oids_are_one_question(linked: Linked) -> None:
    linked.link(1, OID, 7)
    assert linked.links.held(1, [OID, *(f"{n:064x}" for n in range(12_000))]) == {OID: 7}
