"""Quotas: what counts, who is refused and with which numbers, whatever comes at the same time."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import sqlalchemy as sa

from lfs.host import Opening, Wanted
from registry.db import Database
from registry.errors import QuotaExceeded
from registry.linking import Linker, Proven
from registry.quota import Usage, shown
from registry.tables.identity import namespaces
from registry.tables.repos import repos
from tests.registry import people
from tests.registry.linked import Linked, usual_key

OID, OTHER, THIRD = "a" * 64, "b" * 64, "c" * 64


@pytest.fixture
def linked(database: Database) -> Linked:
    """Two repos of ann, who may hold 100 bytes, and one of bob, who may hold any amount."""
    for name in ("ann", "bob"):
        people.add_user(database, name)
    for owner, name in (("ann", "one"), ("ann", "two"), ("bob", "three")):
        people.add_repo(database, owner, name)
    _allow(database, 100)
    return Linked(database)


def _allow(database: Database, quota: int | None) -> None:
    with database.write() as connection:
        connection.execute(sa.update(namespaces).where(namespaces.c.id == 1).values(quota=quota))


def _usage(linked: Linked) -> tuple[int, int]:
    found = linked.quotas.usage(1)
    return found.used, found.reserved


def test_announced_and_linked_bytes_count_once_each(linked: Linked) -> None:
    upload = linked.begin(1, OID, 60)
    assert _usage(linked) == (0, 60)
    linked.begin(1, OID, 60)
    assert _usage(linked) == (0, 60)
    linked.finish(upload)
    assert _usage(linked) == (60, 0)
    linked.begin(1, OID, 60)
    assert _usage(linked) == (60, 0)
    linked.begin(2, OID, 30)
    assert _usage(linked) == (60, 30)


def test_what_others_wait_for_is_not_looked_through(linked: Linked) -> None:
    asked: list[tuple[str, object]] = []

    def note(connection: object, cursor: object, statement: str, values: object, *more: object) -> None:
        if "lfs_uploads" in statement:
            asked.append((statement, values))

    sa.event.listen(linked.database.engine, "before_cursor_execute", note)
    assert _usage(linked) == (0, 0)
    sa.event.remove(linked.database.engine, "before_cursor_execute", note)
    ((statement, values),) = asked
    if linked.database.sqlite:
        with linked.database.read() as connection:
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values).all()  # type: ignore[arg-type]
        assert any("ix_lfs_uploads_repo_id_state (repo_id=? AND state=?)" in row.detail for row in plan), plan


def test_what_does_not_fit_is_refused_whole_and_told_in_numbers(linked: Linked) -> None:
    linked.link(1, OID, 60)
    linked.begin(2, OTHER, 30)
    with pytest.raises(QuotaExceeded) as refused:
        linked.uploads.begin(1, 1, [Opening(Wanted(f"{n:064x}", 6), "proxy") for n in range(2)])
    for part in ("60 bytes", "30 bytes", "12 bytes", "100 bytes", "weightroom quota set ann"):
        assert part in refused.value.message
    assert _usage(linked) == (60, 30)
    linked.begin(1, THIRD, 10)


def test_sizes_that_nobody_has_are_summed_up_all_the_same(linked: Linked, database: Database) -> None:
    """Two announcements of 8 EiB made SQLite refuse the sum, and every list of usage with it."""
    _allow(database, None)
    for oid in (OID, OTHER):
        linked.begin(1, oid, (1 << 63) - 1)
    assert _usage(linked) == (0, pytest.approx(2 << 63))
    _allow(database, 100)
    with pytest.raises(QuotaExceeded):
        linked.begin(2, THIRD, 1)


def test_other_namespaces_and_those_without_quota_are_not_limited(linked: Linked, database: Database) -> None:
    linked.begin(3, OID, 1 << 50)
    _allow(database, None)
    linked.begin(1, OID, 1 << 50)


def test_the_setting_limits_who_has_no_quota_of_their_own(linked: Linked, database: Database) -> None:
    strict = Linked(database, quota=50)
    with pytest.raises(QuotaExceeded):
        strict.begin(3, OID, 51)
    strict.begin(1, OID, 51)


def test_an_upload_that_expired_or_failed_gives_its_room_back(linked: Linked, database: Database) -> None:
    upload = linked.begin(1, OID, 100)
    with pytest.raises(QuotaExceeded):
        linked.begin(1, OTHER, 1)
    linked.uploads.fail(upload.id, "bad")
    linked.begin(1, OTHER, 100)
    later = Linked(database, clock=lambda: people.START.replace(year=2100) + timedelta(days=8))
    assert _usage(later) == (0, 0)


def test_a_full_namespace_may_still_heal_what_it_has(linked: Linked, database: Database) -> None:
    linked.link(1, OID, 100)
    _allow(database, 10)
    linked.link(1, OID, 100)
    with pytest.raises(QuotaExceeded):
        linked.begin(1, OTHER, 1)


def test_a_quota_lowered_meanwhile_counts_at_arrival_and_at_proof(linked: Linked, database: Database) -> None:
    arriving, proven = linked.begin(1, OID, 40), linked.begin(1, OTHER, 40)
    _allow(database, 39)
    with pytest.raises(QuotaExceeded):
        linked.uploads.arrive(arriving.id, "key")
    with pytest.raises(QuotaExceeded):
        linked.finish(proven)
    assert _usage(linked) == (0, 80)
    assert linked.links.held(1, [OTHER]) == {}


def test_in_a_group_those_that_fit_are_linked(linked: Linked, database: Database) -> None:
    uploads = [linked.begin(1 + n % 2, f"{n:064x}", 10) for n in range(8)]
    _allow(database, 55)
    start = threading.Barrier(8)

    def finish(number: int) -> bool:
        start.wait(timeout=10)
        try:
            linked.finish(uploads[number])
        except QuotaExceeded:
            return False
        return True

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(finish, range(8))) == 5
    assert linked.quotas.usage(1).used == 50


@pytest.mark.parametrize("step", ["begin", "finish"])
def test_no_race_passes_a_quota(linked: Linked, database: Database, step: str) -> None:
    uploads = [linked.begin(1 + n % 2, f"{n:064x}", 10) for n in range(10)]
    linkers = [Linker(database, linked.quotas) for _ in uploads]
    if step == "finish":
        _allow(database, 45)
    start = threading.Barrier(10)

    def work(number: int) -> bool:
        start.wait(timeout=10)
        try:
            if step == "begin":
                linked.begin(1 + number % 2, f"{50 + number:064x}", 10)
            else:
                upload = uploads[number]
                linkers[number].finish(Proven(upload.id, usual_key(upload.oid), upload.oid, 10))
        except QuotaExceeded:
            return False
        return True

    if step == "begin":
        _allow(database, 145)
    with ThreadPoolExecutor(10) as threads:
        assert sum(threads.map(work, range(10))) == 4
    used, reserved = _usage(linked)
    assert (used, reserved) == ((0, 140) if step == "begin" else (40, 60))


def test_deleted_repos_do_not_count(linked: Linked, database: Database) -> None:
    linked.link(1, OID, 60)
    linked.begin(1, OTHER, 30)
    with database.write() as connection:
        connection.execute(sa.update(repos).where(repos.c.id == 1).values(deleted_at=people.START))
    assert _usage(linked) == (0, 0)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 bytes"),
        (1023, "1023 bytes"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        (5 << 40, "5 TiB"),
        (9 << 60, "9216 PiB"),
    ],
)
def test_sizes_are_written_for_people(size: int, text: str) -> None:
    assert shown(size) == text


def test_no_quota_refuses_nothing_and_an_exact_fit_fits() -> None:
    Usage("ann", None, 1 << 60, 0).check(1 << 60)
    Usage("ann", 10, 4, 3).check(3)
    Usage("ann", 10, 11, 0).check(0)
    with pytest.raises(QuotaExceeded):
        Usage("ann", 10, 4, 3).check(4)
