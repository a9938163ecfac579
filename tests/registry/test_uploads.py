"""Upload rows: opened, resumed, arrived, leased, failed, and gone with their repo or their time."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

import pytest
import sqlalchemy as sa
from sqlalchemy.sql.compiler import SQLCompiler

from lfs.host import SMALL, Opening, Upload, UploadMode, Wanted
from registry.db import Database, lock_repo
from registry.errors import ObjectAbsent, RepoAbsent
from registry.proving import next_account
from registry.tables.objects import lfs_uploads
from registry.tables.repos import repos
from registry.uploads import Standing, lasting
from tests.registry import people
from tests.registry.linked import Linked, until, waits_for_a_lock

OID, OTHER = "a" * 64, "b" * 64
MIB, TIB = 1 << 20, 1 << 40
ANN, BOB = "1" * 32, "2" * 32


class Clock:
    """A clock that tests set."""

    def __init__(self) -> None:
        self.at = people.START

    def __call__(self) -> datetime:
        return self.at

    def pass_(self, **time: float) -> None:
        """Let time pass."""
        self.at += timedelta(**time)


@pytest.fixture
def clock() -> Clock:
    """Starts at people.START."""
    return Clock()


@pytest.fixture
def linked(database: Database, clock: Clock) -> Linked:
    """Uploads to two repos, 1 and 2, of one user."""
    people.add_user(database, "ann")
    people.add_repo(database, "ann", "one")
    people.add_repo(database, "ann", "two")
    return Linked(database, clock=clock)


def _arrived(linked: Linked, actor_id: int, oid: str = OID, size: int = 7) -> Upload:
    """Let an upload of an account arrive, after all before it."""
    threading.Event().wait(0.002)
    upload = linked.uploads.begin(1, actor_id, [Opening(Wanted(oid, size), "proxy")])[oid]
    linked.uploads.arrive(upload.id, "key")
    return upload


def _delete(database: Database, repo_id: int) -> None:
    with database.write() as connection:
        connection.execute(sa.update(repos).where(repos.c.id == repo_id).values(deleted_at=people.START))


def test_an_upload_reads_as_it_was_opened(linked: Linked) -> None:
    opened = linked.uploads.begin(
        1, 1, [Opening(Wanted(OID, 7), "multipart", 5 * MIB), Opening(Wanted(OTHER, 0), "proxy")]
    )
    assert {oid: linked.uploads.upload(upload.id) for oid, upload in opened.items()} == opened
    assert (opened[OID].mode, opened[OID].part_size, opened[OID].state) == ("multipart", 5 * MIB, "open")
    assert linked.uploads.begin(1, 1, []) == {}
    with pytest.raises(ObjectAbsent):
        linked.uploads.upload("0" * 32)


def test_ids_of_uploads_rise(linked: Linked) -> None:
    ids = []
    for _ in range(3):
        ids.append(linked.begin(1, OID, 7).id)
        threading.Event().wait(0.002)
    assert ids == sorted(ids)
    assert all(len(each) == 32 and int(each, 16) for each in ids)


@pytest.mark.parametrize(
    ("size", "mode", "days"), [(0, "proxy", 1), (TIB // 8, "direct", 131072 / 86400), (TIB, "proxy", 7), (1, "tus", 7)]
)
def test_an_upload_may_take_as_long_as_its_size_needs(size: int, mode: str, days: float) -> None:
    assert lasting(size, mode) == timedelta(days=days)


def test_an_upload_that_expired_is_gone_and_one_that_arrived_is_not(linked: Linked, clock: Clock) -> None:
    late, kept = linked.begin(1, OID, 7), linked.begin(1, OTHER, 7)
    linked.uploads.arrive(kept.id, "staging/x")
    clock.pass_(days=2)
    with pytest.raises(ObjectAbsent):
        linked.uploads.upload(late.id)
    found = linked.uploads.upload(kept.id)
    assert (found.state, found.key) == ("arrived", "staging/x")


def test_a_deleted_repo_takes_its_uploads_along(linked: Linked, database: Database) -> None:
    upload = linked.begin(1, OID, 7)
    _delete(database, 1)
    for ask in (linked.uploads.upload, lambda upload: linked.uploads.arrive(upload, "key")):
        with pytest.raises(ObjectAbsent):
            ask(upload.id)
    with pytest.raises(RepoAbsent):
        linked.begin(1, OID, 7)
    assert linked.uploads.arrived(ANN, 60, 5) == []


@pytest.mark.parametrize("mode", ["multipart", "staging", "tus"])
def test_what_waits_for_its_proof_is_given_again(linked: Linked, mode: UploadMode) -> None:
    first = linked.begin(1, OID, 7, mode, 5)
    linked.uploads.arrive(first.id, f"lfs/{first.id}")
    again = linked.begin(1, OID, 7, "multipart", 6)
    assert (again.id, again.state) == (first.id, "arrived")
    others = [
        linked.begin(1, OID, 8, mode, 5),
        linked.begin(2, OID, 7, mode, 5),
        linked.begin(1, OID, 7, "proxy"),
        linked.uploads.begin(1, 2, [Opening(Wanted(OID, 7), mode, 5)])[OID],
    ]
    assert {each.state for each in others} == {"open"}
    linked.uploads.fail(first.id, "other bytes")
    assert linked.begin(1, OID, 7, mode, 5).state == "open"


def test_a_tus_upload_goes_on_for_who_began_it(linked: Linked, clock: Clock) -> None:
    first = linked.begin(1, OID, 7, "tus", 5)
    clock.pass_(days=6)
    assert linked.begin(1, OID, 7, "tus", 5) == first
    clock.pass_(days=6)
    assert linked.uploads.upload(first.id) == first
    others = [
        linked.begin(1, OID, 8, "tus", 5),
        linked.begin(1, OID, 7, "tus", 6),
        linked.begin(2, OID, 7, "tus", 5),
        linked.begin(1, OID, 7),
        linked.uploads.begin(1, 2, [Opening(Wanted(OID, 7), "tus", 5)])[OID],
    ]
    assert first.id not in {other.id for other in others}
    clock.pass_(days=2)
    assert linked.begin(1, OID, 7, "tus", 5).id != first.id


def test_sessions_are_noted(linked: Linked) -> None:
    one, two = linked.begin(1, OID, 7, "multipart"), linked.begin(1, OTHER, 7, "multipart")
    linked.uploads.attach({one.id: "session"})
    linked.uploads.attach({})
    assert [linked.uploads.upload(each.id).session for each in (one, two)] == ["session", ""]


def test_arriving_twice_is_arriving_once_and_what_is_done_stays_done(linked: Linked) -> None:
    upload = linked.begin(1, OID, 7)
    linked.uploads.arrive(upload.id, "key")
    linked.uploads.arrive(upload.id, "other")
    assert linked.uploads.upload(upload.id).key == "key"
    linked.finish(upload, "key")
    linked.uploads.arrive(upload.id, "key")
    linked.uploads.fail(upload.id, "too late")
    assert linked.uploads.upload(upload.id).state == "done"


def test_a_failed_upload_says_why(linked: Linked) -> None:
    upload = linked.begin(1, OID, 7)
    linked.uploads.fail(upload.id, "Its bytes hash to something else.")
    assert linked.uploads.upload(upload.id).reason == "Its bytes hash to something else."
    with pytest.raises(ObjectAbsent, match="hash to something else"):
        linked.uploads.arrive(upload.id, "key")


def test_arrived_uploads_are_leased_oldest_first_and_to_one_at_a_time(linked: Linked, clock: Clock) -> None:
    uploads = [_arrived(linked, 1, oid).id for oid in (OID, OTHER, "c" * 64)]
    assert [each.id for each in linked.uploads.arrived(ANN, 60, 2)] == uploads[:2]
    assert [each.id for each in linked.uploads.arrived(BOB, 60, 2)] == uploads[2:]
    assert linked.uploads.arrived(BOB, 60, 2) == []
    linked.uploads.release(uploads[0], BOB)
    assert linked.uploads.arrived(BOB, 60, 2) == []
    linked.uploads.release(uploads[0], ANN)
    assert [each.id for each in linked.uploads.arrived(BOB, 60, 2)] == uploads[:1]
    clock.pass_(seconds=61)
    assert [each.id for each in linked.uploads.arrived(BOB, 60, 5)] == uploads


def test_of_several_accounts_the_one_that_waits_longest_is_first(linked: Linked) -> None:
    first, second, third = _arrived(linked, 3), _arrived(linked, 1), _arrived(linked, 3)
    nobodys = _arrived(linked, 0)
    assert linked.uploads.arrived(ANN, 60, 5, besides=[0, 1, 3]) == []
    assert [each.id for each in linked.uploads.arrived(ANN, 60, 1)] == [first.id]
    assert [each.id for each in linked.uploads.arrived(ANN, 60, 5, besides=[1, 2])] == [third.id]
    assert [each.id for each in linked.uploads.arrived(ANN, 60, 5)] == [second.id]
    assert [each.id for each in linked.uploads.arrived(ANN, 60, 5)] == [nobodys.id]


def test_only_small_uploads_are_leased_together(linked: Linked) -> None:
    sizes = (1, SMALL - 2, 1, 1, SMALL + 1, 5)
    uploads = [_arrived(linked, 1, f"{number:064x}", size).id for number, size in enumerate(sizes)]
    found = [[each.id for each in linked.uploads.arrived(ANN, 60, 5)] for _ in range(5)]
    assert found == [uploads[:3], uploads[3:4], uploads[4:5], uploads[5:], []]


def test_who_proves_small_uploads_passes_over_the_larger_ones(linked: Linked) -> None:
    large, small, others = _arrived(linked, 1, OID, SMALL + 1), _arrived(linked, 1, OTHER), _arrived(linked, 2)
    found = [[each.id for each in linked.uploads.arrived(ANN, 60, 5, largest=SMALL)] for _ in range(3)]
    assert found == [[small.id], [others.id], []]
    assert [each.id for each in linked.uploads.arrived(ANN, 60, 5)] == [large.id]


def test_what_is_proven_next_is_found_by_leaps(sqlite_database: Database) -> None:
    """Sorting what waits cost 150 ms for each of 100,000 small files of one upload."""
    asked = next_account().params(moment=people.START, largest=7, besides=[-1])
    compiled = asked.compile(sqlite_database.engine)
    assert isinstance(compiled, SQLCompiler)
    said = compiled.construct_expanded_state()
    with sqlite_database.read() as connection:
        values = tuple(map(str, said.positional_parameters))
        rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {said.statement}", values).all()
    searched = [row.detail for row in rows if "rows" in row.detail or "lfs_uploads" in row.detail]
    assert len(searched) >= 3
    assert all("SEARCH" in detail and "INDEX ix_lfs_uploads_actor_id_id (actor_id" in detail for detail in searched)


def test_a_lease_is_prolonged_by_its_holder_and_taken_when_it_ended(linked: Linked, clock: Clock) -> None:
    upload = linked.begin(1, OID, 7, "tus").id
    assert linked.uploads.hold(upload, ANN, 10)
    assert not linked.uploads.hold(upload, BOB, 10)
    clock.pass_(seconds=9)
    assert linked.uploads.hold(upload, ANN, 10)
    clock.pass_(seconds=9)
    assert not linked.uploads.hold(upload, BOB, 10)
    clock.pass_(seconds=1)
    assert linked.uploads.hold(upload, BOB, 10)
    assert not linked.uploads.hold(upload, ANN, 10)
    assert not linked.uploads.hold("0" * 32, ANN, 10)


def test_leases_are_prolonged_together_and_only_those_of_their_holder(linked: Linked, clock: Clock) -> None:
    mine, another, free = [linked.begin(1, f"{number:064x}", 7, "tus").id for number in range(3)]
    assert linked.uploads.hold(mine, ANN, 10)
    assert linked.uploads.hold(another, BOB, 10)
    assert linked.uploads.hold_all([mine, another, free, "0" * 32], ANN, 20) == {mine, free}
    clock.pass_(seconds=15)
    assert not linked.uploads.hold(mine, BOB, 10)
    assert linked.uploads.hold_all([mine, another], ANN, 20) == {mine, another}
    assert linked.uploads.hold_all([], ANN, 20) == set()


def test_many_workers_lease_each_upload_once(linked: Linked) -> None:
    for number in range(24):
        linked.uploads.arrive(linked.begin(1, f"{number:064x}", 1).id, "key")
    start = threading.Barrier(6)

    def work(number: int) -> list[str]:
        start.wait(timeout=10)
        return [each.id for _ in range(6) for each in linked.uploads.arrived(f"{number:032x}", 60, 2)]

    with ThreadPoolExecutor(6) as threads:
        taken = [upload for found in threads.map(work, range(6)) for upload in found]
    assert len(taken) == len(set(taken)) == 24


def test_uploads_tell_how_an_object_stands(linked: Linked) -> None:
    failed, arrived = linked.begin(1, OID, 7), linked.begin(1, OTHER, 7)
    linked.begin(1, "c" * 64, 7)
    linked.uploads.fail(failed.id, "bad")
    linked.uploads.arrive(arrived.id, "key")
    assert linked.uploads.standing(1, [OID, OTHER, "c" * 64]) == {
        OID: Standing(frozenset(), "bad"),
        OTHER: Standing(frozenset({7}), ""),
    }
    assert linked.uploads.unproven(1, [OID, OTHER]) == {OTHER: 7}
    assert linked.uploads.standing(2, [OID, OTHER]) == linked.uploads.unproven(2, [OTHER]) == {}


def test_rows_outlive_the_process_that_wrote_them(linked: Linked, database: Database) -> None:
    tus, arrived = linked.begin(1, OID, 7, "tus"), linked.begin(1, OTHER, 7)
    linked.uploads.arrive(arrived.id, "key")
    again = Database(database.url.render_as_string(hide_password=False))
    with again.read() as connection:
        states = dict(connection.execute(sa.select(lfs_uploads.c.id, lfs_uploads.c.state)).all())
    again.dispose()
    assert states == {tus.id: "open", arrived.id: "arrived"}


def test_an_upload_that_fails_while_its_arrival_waits_has_not_arrived(linked: Linked, database: Database) -> None:
    """An arrival that had read the row before waiting for the repo's lock answered success for bytes that were gone."""
    upload = linked.begin(1, OID, 7, "multipart", MIB)
    with ThreadPoolExecutor(1) as threads:
        with database.write() as connection:
            lock_repo(connection, 1)
            arrival = threads.submit(linked.uploads.arrive, upload.id, "key")
            if not database.sqlite:
                until(lambda: waits_for_a_lock(database))
            failed = sa.update(lfs_uploads).where(lfs_uploads.c.id == upload.id)
            connection.execute(failed.values(state="failed", reason="It has other bytes."))
        with pytest.raises(ObjectAbsent, match="It has other bytes"):
            arrival.result(timeout=10)
