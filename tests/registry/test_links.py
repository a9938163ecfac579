"""Links open objects to one repo at a time, and only after proof."""

from __future__ import annotations

from datetime import timedelta

import pytest
import sqlalchemy as sa

from registry.db import Database
from registry.errors import Busy, DigestMismatch, ObjectAbsent, SizeMismatch
from registry.links import Links
from registry.tables.objects import lfs_links, lfs_objects
from registry.tables.repos import repos
from tests.registry import people

OID, OTHER = "a" * 64, "b" * 64


@pytest.fixture
def links(database: Database) -> Links:
    """Links of two repos, 1 and 2, of one user."""
    people.add_user(database, "ann")
    people.add_repo(database, "ann", "one")
    people.add_repo(database, "ann", "two")
    return Links(database, clock=lambda: people.START)


def _link(links: Links, repo_id: int, oid: str = OID, size: int = 7) -> None:
    upload = links.begin(repo_id, 1, [(oid, size)])[oid]
    links.finish(upload, f"lfs/{oid}", oid, size)


def test_a_finished_upload_is_linked_to_its_repo_alone(links: Links) -> None:
    _link(links, 1)
    assert links.held(1, [OID, OTHER]) == {OID: 7}
    assert links.held(2, [OID]) == {}
    assert links.object_key(2, OID) is None


def test_an_announced_upload_opens_nothing(links: Links) -> None:
    links.begin(1, 1, [(OID, 7)])
    assert links.held(1, [OID]) == {}


def test_finishing_twice_is_one_link_and_counts_once(links: Links, database: Database) -> None:
    upload = links.begin(1, 1, [(OID, 7)])[OID]
    for _ in range(2):
        links.finish(upload, "key", OID, 7)
    _link(links, 1)
    with database.read() as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(lfs_links)).scalar_one() == 1
        assert connection.execute(sa.select(repos.c.lfs_bytes).where(repos.c.id == 1)).scalar_one() == 7


def test_the_first_key_of_an_object_stays(links: Links) -> None:
    for repo_id, key in ((1, "first"), (2, "second")):
        links.finish(links.begin(repo_id, 1, [(OID, 7)])[OID], key, OID, 7)
    held = links.object_key(2, OID)
    assert held is not None
    assert held.key == "first"


def test_a_proof_of_something_else_is_refused(links: Links) -> None:
    upload = links.begin(1, 1, [(OID, 7)])[OID]
    with pytest.raises(DigestMismatch):
        links.finish(upload, "key", OTHER, 7)
    with pytest.raises(SizeMismatch):
        links.finish(upload, "key", OID, 8)
    with pytest.raises(ObjectAbsent):
        links.finish("0" * 32, "key", OID, 7)
    assert links.held(1, [OID]) == {}


@pytest.mark.parametrize("state", ["condemned", "damaged"])
def test_a_new_proof_brings_an_object_back(links: Links, database: Database, state: str) -> None:
    _link(links, 1)
    with database.write() as connection:
        connection.execute(sa.update(lfs_objects).values(state=state))
    assert links.held(1, [OID]) == {}
    assert links.look(1, [OID])[OID].state == state
    _link(links, 1)
    assert links.held(1, [OID]) == {OID: 7}


def test_a_look_tells_the_state_of_objects_that_only_others_hold(links: Links, database: Database) -> None:
    _link(links, 1)
    with database.write() as connection:
        connection.execute(sa.update(lfs_objects).values(state="damaged"))
    known = links.look(2, [OID, OTHER])
    assert set(known) == {OID}
    assert (known[OID].state, known[OID].linked) == ("damaged", False)
    assert links.look(1, [OID])[OID].linked


def test_an_object_on_its_way_out_takes_no_link(links: Links, database: Database) -> None:
    _link(links, 1)
    upload = links.begin(2, 1, [(OID, 7)])[OID]
    with database.write() as connection:
        connection.execute(sa.update(lfs_objects).values(state="deleting"))
    with pytest.raises(Busy):
        links.finish(upload, "key", OID, 7)
    assert not links.look(2, [OID])[OID].linked


def test_finishing_again_heals_what_was_damaged_since(links: Links, database: Database) -> None:
    upload = links.begin(1, 1, [(OID, 7)])[OID]
    links.finish(upload, "first", OID, 7)
    with database.write() as connection:
        connection.execute(sa.update(lfs_objects).values(state="damaged"))
    links.finish(upload, "second", OID, 7)
    held = links.object_key(1, OID)
    assert held is not None
    assert held.key == "second"


def test_a_batch_answer_keeps_a_link_fresh_once_a_day(links: Links, database: Database) -> None:
    _link(links, 1)
    for days, seen in ((0.5, people.START), (2, people.START + timedelta(days=2))):
        later = Links(database, clock=lambda days=days: people.START + timedelta(days=days))
        assert set(later.look(1, [OID, OTHER])) == {OID}
        with database.read() as connection:
            assert connection.execute(sa.select(lfs_links.c.seen_at)).scalar_one() == seen


def test_many_oids_are_one_question(links: Links) -> None:
    _link(links, 1)
    assert links.held(1, [OID, *(f"{n:064x}" for n in range(12_000))]) == {OID: 7}
