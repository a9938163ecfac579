"""Transactions: a reader sees one instant, a writer all or nothing, and a busy database says so."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import sqlalchemy as sa

from registry.db import Database
from registry.errors import Busy, NoSpace
from registry.tables.identity import namespaces
from tests.registry import people

COUNT = sa.select(sa.func.count()).select_from(namespaces)


def test_a_reader_sees_one_instant(database: Database) -> None:
    with database.read() as connection:
        before = connection.execute(COUNT).scalar_one()
        writer = threading.Thread(target=people.add_namespace, args=(database, "ann"))
        writer.start()
        writer.join()
        assert connection.execute(COUNT).scalar_one() == before
    with database.read() as connection:
        assert connection.execute(COUNT).scalar_one() == before + 1


def test_a_write_that_fails_leaves_nothing(database: Database) -> None:
    row = {"name": "ann", "name_fold": "ann", "kind": "user", "created_at": people.START}

    def fail_after_writing() -> None:
        with database.write() as connection:
            connection.execute(sa.insert(namespaces).values(row))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_after_writing()
    with database.look() as connection:
        assert connection.execute(COUNT).scalar_one() == 0


def test_times_come_back_aware_and_in_utc(database: Database) -> None:
    people.add_namespace(database, "ann")
    with database.look() as connection:
        assert connection.execute(sa.select(namespaces.c.created_at)).scalar_one() == people.START


def test_a_prepared_look_up_finds_what_was_committed_a_moment_ago(database: Database) -> None:
    chosen = sa.select(namespaces.c.name, namespaces.c.created_at, sa.literal(7).label("seven"))
    find = database.prepare(chosen.where(namespaces.c.name_fold == sa.bindparam("fold")))
    assert find.first({"fold": "ann"}) is None
    people.add_namespace(database, "Ann")
    row = find.first({"fold": "ann"})
    assert row is not None
    assert (row.name, row.created_at, row.seven) == ("Ann", people.START, 7)


def test_many_threads_share_a_prepared_look_up(database: Database) -> None:
    names = [f"user{n}" for n in range(8)]
    for name in names:
        people.add_namespace(database, name)
    find = database.prepare(sa.select(namespaces.c.name).where(namespaces.c.name_fold == sa.bindparam("fold")))
    found: list[bool] = []

    def ask(name: str) -> None:
        found.extend(find.first({"fold": name}).name == name for _ in range(50))  # type: ignore[union-attr]

    threads = [threading.Thread(target=ask, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 400


def test_a_database_that_stays_locked_is_busy(sqlite_database: Database, tmp_path: Path) -> None:
    impatient = Database(f"sqlite:///{tmp_path / 'registry.db'}", busy_timeout_ms=10)
    with sqlite_database.write() as connection:
        connection.execute(sa.delete(namespaces))
        with pytest.raises(Busy):
            people.add_namespace(impatient, "ann")
    impatient.dispose()


def test_a_full_disk_is_told_from_a_busy_database(sqlite_database: Database) -> None:
    def grow() -> None:
        with sqlite_database.write() as connection:
            connection.execute(sa.text("PRAGMA max_page_count = 1"))
            for number in range(1000):
                row = {"name": f"user{number}", "name_fold": f"user{number}", "kind": "user"}
                connection.execute(sa.insert(namespaces).values(row | {"created_at": people.START}))

    with pytest.raises(NoSpace):
        grow()
    with sqlite_database.look() as connection:
        assert connection.execute(COUNT).scalar_one() == 0


def test_a_note_is_seen_by_others_at_once_and_undone_by_an_error(database: Database) -> None:
    row = {"name": "ann", "name_fold": "ann", "kind": "user", "created_at": people.START}

    def note(*, failing: bool) -> None:
        with database.note() as connection:
            connection.execute(sa.insert(namespaces).values(row))
            if failing:
                raise RuntimeError

    with pytest.raises(RuntimeError):
        note(failing=True)
    note(failing=False)
    with database.look() as connection:
        assert connection.execute(COUNT).scalar_one() == 1


def test_only_notes_do_not_wait_for_the_disk(sqlite_database: Database) -> None:
    wanted = {sqlite_database.note: 1, sqlite_database.write: 2, sqlite_database.read: None}
    for opened, level in wanted.items():
        for _ in range(2):
            with opened() as connection:
                found = connection.exec_driver_sql("PRAGMA synchronous").scalar()
            assert level in (None, found), opened


def test_rows_of_a_prepared_insert_read_as_they_were_written(database: Database) -> None:
    insert = database.prepare_insert(namespaces)
    rows = [(n, f"N{n}", f"n{n}", "org", "", None, people.START) for n in (5, 6)]
    with database.write() as connection:
        insert.put(connection, rows)
        insert.put(connection, [])
    with database.read() as connection:
        found = connection.execute(sa.select(namespaces).order_by(namespaces.c.id)).all()
    assert [tuple(row) for row in found] == rows


@pytest.mark.parametrize(("durable", "level"), [(True, 2), (False, 1)])
def test_a_commit_waits_for_the_disk_unless_that_was_given_up(tmp_path: Path, durable: bool, level: int) -> None:
    database = Database(f"sqlite:///{tmp_path}/x.db", durable=durable)
    with database.write() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == level
    database.dispose()
