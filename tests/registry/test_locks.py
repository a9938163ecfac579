"""Lock rows: one holder for each path, pages in order, and only the holder or force unlocks."""

from __future__ import annotations

import secrets
import threading

import pytest
import sqlalchemy as sa

from lfs.locks import MAX_PATH
from registry.db import Database
from registry.locks import LockRow, LockRows, forget
from registry.tables.objects import lfs_locks
from registry.tables.repos import repos
from registry.tables.work import events
from tests.registry import people


@pytest.fixture
def locks(database: Database) -> LockRows:
    """Locks of repo 1 with users 1 (ann) and 2 (bob)."""
    people.add_user(database, "ann")
    people.add_user(database, "bob")
    people.add_repo(database, "ann", "one")
    return LockRows(database, clock=lambda: people.START)


def test_a_path_has_one_holder(locks: LockRows) -> None:
    mine, made = locks.create(1, 1, "a.bin")
    again, made_again = locks.create(1, 2, "a.bin")
    assert (made, made_again) == (True, False)
    assert again == mine
    assert (mine.owner, mine.locked_at) == ("ann", people.START)


def test_of_many_who_ask_at_once_one_gets_it(locks: LockRows) -> None:
    won = []
    ask = [threading.Thread(target=lambda: won.append(locks.create(1, 1, "a.bin")[1])) for _ in range(8)]
    for thread in ask:
        thread.start()
    for thread in ask:
        thread.join()
    assert sorted(won) == [False] * 7 + [True]


def test_pages_follow_the_order_of_locking(locks: LockRows) -> None:
    made = [locks.create(1, 1, f"{n}.bin")[0] for n in range(5)]
    first = locks.list(1, limit=2)
    rest = locks.list(1, after=first[-1].serial, limit=10)
    assert [*first, *rest] == made
    assert locks.list(1, path="3.bin") == [made[3]]
    assert locks.list(1, lock_id=made[1].id) == [made[1]]
    assert locks.list(2) == []


def test_no_serial_is_given_twice(locks: LockRows) -> None:
    given = []
    for n in range(4):
        lock, _ = locks.create(1, 1, f"{n}.bin")
        given.append(lock.serial)
        locks.remove(1, lock.id, by=1, force=False)
    assert given == [1, 2, 3, 4]


def test_pages_lose_and_repeat_none_of_those_that_stay_while_others_come_and_go(
    locks: LockRows, database: Database
) -> None:
    with database.write() as connection:
        rows = [
            {"id": f"{n:032x}", "serial": n, "repo_id": 1, "path": f"{n}", "path_sha": f"{n:064x}"}
            | {"ref": "", "owner_id": 1, "locked_at": people.START}
            for n in range(1, 2001)
        ]
        connection.execute(sa.insert(lfs_locks), rows)
        connection.execute(sa.update(repos).values(locks_made=2000))
    leaving, stop = [f"{n:032x}" for n in range(1, 2001) if n % 2 == 0], threading.Event()

    def churn() -> None:
        for turn, lock_id in enumerate(leaving):
            if stop.is_set():
                return
            locks.remove(1, lock_id, by=1, force=False)
            if turn % 10 == 0:
                locks.create(1, 2, f"new/{turn}")

    busy = threading.Thread(target=churn)
    busy.start()
    seen: list[LockRow] = []
    while page := locks.list(1, after=seen[-1].serial if seen else 0, limit=100):
        seen += page
    stop.set()
    busy.join()
    serials = [row.serial for row in seen]
    assert serials == sorted(set(serials))
    assert {n for n in range(1, 2001) if n % 2} <= set(serials)


def test_taking_a_lock_from_somebody_is_noted(locks: LockRows, database: Database) -> None:
    own, _ = locks.create(1, 1, "own.bin")
    held, _ = locks.create(1, 1, "held.bin")
    locks.remove(1, own.id, by=1, force=True)
    locks.remove(1, held.id, by=2, force=True)
    with database.read() as connection:
        noted = connection.execute(sa.select(events.c.act, events.c.actor_id, events.c.subject, events.c.body)).all()
    assert noted == [("lock.break", 2, "held.bin", {"lock": held.id, "owner": "ann"})]


def test_a_repo_that_goes_takes_its_locks_with_it(locks: LockRows, database: Database) -> None:
    people.add_repo(database, "ann", "two")
    locks.create(1, 1, "a.bin")
    kept, _ = locks.create(2, 1, "a.bin")
    with database.write() as connection:
        forget(connection, 1)
    assert locks.list(1) == []
    assert locks.list(2) == [kept]


def test_only_the_holder_or_force_unlocks(locks: LockRows) -> None:
    lock, _ = locks.create(1, 1, "a.bin")
    assert locks.remove(1, lock.id, by=2, force=False) == (lock, False)
    assert locks.remove(2, lock.id, by=1, force=True) == (None, False)
    assert locks.remove(1, lock.id, by=2, force=True) == (lock, True)
    assert locks.list(1) == []


def test_the_gate_hears_of_the_locks_of_others(locks: LockRows) -> None:
    locks.create(1, 1, "mine.bin")
    locks.create(1, 2, "theirs.bin")
    assert locks.of_others(1, 1) == {"theirs.bin": "bob"}
    assert locks.of_others(1, None) == {"mine.bin": "ann", "theirs.bin": "bob"}


def test_the_longest_path_that_is_taken_fits_the_index(locks: LockRows) -> None:
    # Random letters: what the database can compress would fit in any case.
    path = "".join(chr(0x4E00 + secrets.randbelow(20_000)) for _ in range(MAX_PATH // 3))
    assert locks.create(1, 1, path)[1]
    assert locks.create(1, 1, path[:-1])[1]
    assert [row.path for row in locks.list(1, path=path)] == [path]
