"""Proofs become links: each in its own words, many in one transaction, whatever else happens to the object."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from registry.db import Database, lock_repo
from registry.errors import Busy, DigestMismatch, ObjectAbsent, SizeMismatch
from registry.linking import Linker, Proven
from registry.prepared import PreparedInsert
from registry.tables.objects import lfs_links, lfs_objects, lfs_uploads
from registry.tables.repos import repos
from tests.registry import people
from tests.registry.linked import Linked, until, usual_key, waits_for_a_lock

OID, OTHER = "a" * 64, "b" * 64


@pytest.fixture
def linked(database: Database) -> Linked:
    """Links of two repos, 1 and 2, of one user."""
    people.add_user(database, "ann")
    people.add_repo(database, "ann", "one")
    people.add_repo(database, "ann", "two")
    return Linked(database)


def _set(database: Database, **values: object) -> None:
    with database.write() as connection:
        connection.execute(sa.update(lfs_objects).values(values))


def _one(database: Database, column: sa.Column[object]) -> object:
    with database.read() as connection:
        return connection.execute(sa.select(column)).scalar_one()


def test_finishing_twice_is_one_link_and_counts_once(linked: Linked, database: Database) -> None:
    upload = linked.begin(1, OID, 7)
    assert linked.finish(upload) == linked.finish(upload) == linked.link(1, OID, 7) == usual_key(OID)
    with database.read() as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(lfs_links)).scalar_one() == 1
        assert connection.execute(sa.select(repos.c.lfs_bytes).where(repos.c.id == 1)).scalar_one() == 7
    assert linked.uploads.upload(upload.id).state == "done"


def test_the_first_key_of_an_object_is_served(linked: Linked) -> None:
    assert linked.link(1, OID, 7, "first") == "first"
    assert linked.link(2, OID, 7, "second") == "first"
    held = linked.links.object_key(2, OID)
    assert held is not None
    assert held.key == "first"


def test_a_proof_of_something_else_is_refused(linked: Linked) -> None:
    upload = linked.begin(1, OID, 7)
    for proven, error in (
        (Proven(upload.id, "key", OTHER, 7), DigestMismatch),
        (Proven(upload.id, "key", OID, 8), SizeMismatch),
        (Proven("0" * 32, "key", OID, 7), ObjectAbsent),
    ):
        with pytest.raises(error):
            linked.linker.finish(proven)
    assert linked.links.held(1, [OID]) == {}


def test_a_failed_upload_and_one_of_a_deleted_repo_are_not_linked(linked: Linked, database: Database) -> None:
    failed, late = linked.begin(1, OID, 7), linked.begin(2, OID, 7)
    linked.uploads.fail(failed.id, "its bytes hash to something else.")
    with pytest.raises(ObjectAbsent, match="hash to something else"):
        linked.finish(failed)
    with database.write() as connection:
        connection.execute(sa.update(repos).where(repos.c.id == 2).values(deleted_at=people.START))
    with pytest.raises(ObjectAbsent, match="repo of this upload is gone"):
        linked.finish(late)
    with database.read() as connection:
        assert connection.execute(sa.select(lfs_objects.c.oid)).first() is None


@pytest.mark.parametrize("state", ["condemned", "damaged", "deleting"])
def test_a_new_proof_brings_an_object_back_under_its_own_key(linked: Linked, database: Database, state: str) -> None:
    upload = linked.begin(1, OID, 7)
    linked.finish(upload, "old")
    _set(database, state=state, condemned_at=people.START)
    assert linked.links.held(1, [OID]) == {}
    assert linked.finish(upload, "new") == "new"
    assert linked.links.object_key(1, OID).key == "new"
    assert _one(database, lfs_objects.c.condemned_at) is None


@pytest.mark.parametrize("state", ["damaged", "deleting"])
def test_bytes_under_the_very_key_that_is_damaged_or_going_prove_nothing(
    linked: Linked, database: Database, state: str
) -> None:
    linked.link(1, OID, 7, "key")
    _set(database, state=state)
    with pytest.raises(Busy):
        linked.link(2, OID, 7, "key")
    assert _one(database, lfs_objects.c.state) == state
    assert not linked.links.look(2, [OID])[OID].linked


def test_a_condemned_object_lives_on_under_the_key_it_had(linked: Linked, database: Database) -> None:
    linked.link(1, OID, 7, "key")
    _set(database, state="condemned")
    assert linked.link(2, OID, 7, "key") == "key"
    assert _one(database, lfs_objects.c.state) == "stored"


def test_the_sweeper_of_an_object_that_came_back_removes_no_row(linked: Linked, database: Database) -> None:
    linked.link(1, OID, 7, "old")
    _set(database, state="deleting")
    linked.link(1, OID, 7, "new")
    with database.write() as connection:
        swept = sa.delete(lfs_objects).where(lfs_objects.c.oid == OID, lfs_objects.c.state == "deleting")
        assert connection.execute(swept).rowcount == 0
    assert linked.links.held(1, [OID]) == {OID: 7}


def _race(count: int, work: Callable[[int], object]) -> list[object]:
    """Call `work` from as many threads, all at once; return results and errors in order."""
    start = threading.Barrier(count)

    def call(number: int) -> object:
        start.wait(timeout=10)
        try:
            return work(number)
        except Exception as error:
            return error

    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(call, range(count)))


def test_finishers_of_one_object_agree_on_one_key(linked: Linked, database: Database) -> None:
    # Each with a linker of its own, as in processes of their own; two repos, so that their locks differ.
    uploads = [linked.begin(1 + number % 2, OID, 7) for number in range(8)]
    linkers = [Linker(database, linked.quotas) for _ in uploads]
    served = _race(8, lambda n: linkers[n].finish(Proven(uploads[n].id, f"key{n}", OID, 7)))
    assert len(set(served)) == 1, served
    assert _one(database, lfs_objects.c.key) == served[0]
    with database.read() as connection:
        assert connection.execute(sa.select(repos.c.lfs_bytes)).scalars().all() == [7, 7]


def test_many_finishers_at_once_share_transactions_and_none_is_forgotten(linked: Linked, database: Database) -> None:
    oids = [f"{number:064x}" for number in range(64)]
    uploads = [linked.begin(1 + number % 2, oid, number) for number, oid in enumerate(oids)]
    commits: list[object] = []
    note = commits.append
    sa.event.listen(database.engine, "commit", note)
    served = _race(8, lambda n: [linked.finish(upload) for upload in uploads[n::8]])
    sa.event.remove(database.engine, "commit", note)
    assert [keys for keys in served if isinstance(keys, Exception)] == []
    assert 0 < len(commits) < len(uploads)
    assert set(linked.links.held(1, oids)) | set(linked.links.held(2, oids)) == set(oids)
    with database.read() as connection:
        assert sum(connection.execute(sa.select(repos.c.lfs_bytes)).scalars()) == sum(range(64))
        assert set(connection.execute(sa.select(lfs_uploads.c.state)).scalars()) == {"done"}


def test_one_bad_proof_in_a_group_spoils_no_other(linked: Linked) -> None:
    uploads = [linked.begin(1, f"{number:064x}", 7) for number in range(6)]
    proofs = [Proven(upload.id, usual_key(upload.oid), upload.oid, 7) for upload in uploads]
    proofs += [Proven(uploads[0].id, "key", OTHER, 7), Proven("0" * 32, "key", OID, 7)]
    found = _race(8, lambda n: linked.linker.finish(proofs[n]))
    assert found[:6] == [usual_key(upload.oid) for upload in uploads]
    assert [type(error) for error in found[6:]] == [DigestMismatch, ObjectAbsent]


def test_a_group_of_one_caller_is_judged_one_by_one(linked: Linked) -> None:
    upload, other = linked.begin(1, OID, 7), linked.begin(1, OTHER, 7)
    wishes = [Proven(upload.id, "key", OID, 7), Proven(other.id, "key", OID, 7), Proven(other.id, "other", OTHER, 7)]
    found = linked.linker.finish_all(wishes)
    assert [found[0], found[2]] == ["key", "other"]
    assert isinstance(found[1], DigestMismatch)


def test_linkers_in_several_processes_do_not_lock_each_other_out(linked: Linked, database: Database) -> None:
    # Groups over the same repos and objects, met in opposite orders.
    oids = [f"{number:064x}" for number in range(40)]
    pairs = [(linked.begin(1, oid, 1), linked.begin(2, oid, 1)) for oid in oids]
    linkers = [Linker(database, linked.quotas) for _ in range(2)]

    def work(number: int) -> None:
        ordered = pairs if number % 2 else pairs[::-1]
        for pair in ordered[number // 2 :: 4]:
            for upload in pair if number % 2 else pair[::-1]:
                linkers[number % 2].finish(Proven(upload.id, f"{upload.oid}.{number}", upload.oid, 1))

    assert _race(8, work) == [None] * 8
    assert set(linked.links.held(1, oids)) == set(linked.links.held(2, oids)) == set(oids)


def test_an_upload_that_fails_while_its_proof_waits_is_not_linked(linked: Linked, database: Database) -> None:
    """A proof that had read the row before waiting for the repo's lock linked bytes that were removed meanwhile."""
    upload = linked.begin(1, OID, 7)
    with ThreadPoolExecutor(1) as threads:
        with database.write() as connection:
            lock_repo(connection, 1)
            proof = threads.submit(linked.finish, upload)
            if not database.sqlite:
                until(lambda: waits_for_a_lock(database))
            failed = sa.update(lfs_uploads).where(lfs_uploads.c.id == upload.id)
            connection.execute(failed.values(state="failed", reason="It expired."))
        with pytest.raises(ObjectAbsent, match="It expired"):
            proof.result(timeout=10)
    assert linked.links.held(1, [OID]) == {}


def test_an_object_whose_row_a_sweeper_removes_at_this_moment_is_linked(
    linked: Linked, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the insert that found the row and the look at it the row went, and the link had nothing to refer to."""
    linked.link(1, OID, 7)
    _set(database, state="deleting")
    with database.write() as connection:
        connection.execute(sa.delete(lfs_links))
    insert, swept = PreparedInsert.put, []

    def sweeping(statement: PreparedInsert, connection: Connection, rows: Sequence[Sequence[Any]]) -> None:
        insert(statement, connection, rows)
        if not swept and rows[0][0] == OID:
            swept.append(connection.execute(sa.delete(lfs_objects)).rowcount)

    monkeypatch.setattr(PreparedInsert, "put", sweeping)
    assert linked.link(1, OID, 7, "own") == "own"
    assert linked.links.held(1, [OID]) == {OID: 7}
    assert swept == [1]
