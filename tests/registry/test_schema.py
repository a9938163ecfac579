"""The schema that revisions build is the one that the tables describe, forwards, backwards and under races."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from registry import schema
from registry.db import Database, now
from registry.errors import Damaged
from registry.locks import LockRows
from registry.tables.identity import namespaces, users
from registry.tables.meta import metadata
from tests.registry.people import add_repo, add_user
from tests.services import postgres


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A database without a schema."""
    if request.param == "sqlite":
        database = Database(f"sqlite:///{tmp_path}/50%.db")
        yield database
        database.dispose()
        return
    with postgres.fresh_database(postgres.server()) as url:
        database = Database(url)
        yield database
        database.dispose()


def checks(database: Database) -> dict[str, set[str]]:
    """Name the check constraints of each table, which Alembic does not compare."""
    inspector = sa.inspect(database.engine)
    return {
        table: {f"{found['name']}: {found['sqltext']}" for found in inspector.get_check_constraints(table)}
        for table in inspector.get_table_names()
        if table != "alembic_version"
    }


def test_migrating_builds_what_the_tables_describe(empty: Database) -> None:
    assert schema.current(empty) == schema.BASE
    assert schema.migrate(empty) == (schema.BASE, schema.head())
    with empty.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
    migrated = checks(empty)
    schema.revert(empty, schema.BASE)
    metadata.create_all(empty.engine)
    assert migrated == checks(empty)


def test_migrating_twice_changes_nothing(empty: Database) -> None:
    schema.migrate(empty)
    assert schema.migrate(empty) == (schema.head(), schema.head())


def test_the_first_revision_goes_back_with_rows_in_place(empty: Database) -> None:
    schema.migrate(empty)
    with empty.write() as connection:
        values = {"name": "ada", "name_fold": "ada", "kind": "user", "fullname": "", "created_at": now()}
        made = connection.execute(sa.insert(namespaces).values(values)).inserted_primary_key
        connection.execute(sa.insert(users).values(namespace_id=made[0], created_at=now()))
    schema.revert(empty, schema.BASE)
    assert schema.current(empty) == schema.BASE
    assert sa.inspect(empty.engine).get_table_names() == ["alembic_version"]
    assert schema.migrate(empty) == (schema.BASE, schema.head())


def test_locks_pass_through_the_second_revision(empty: Database) -> None:
    schema.migrate(empty)
    add_user(empty, "ann")
    add_repo(empty, "ann", "one")
    locks = LockRows(empty)
    first, _ = locks.create(1, 1, "a.bin")
    schema.revert(empty, "0001")
    schema.migrate(empty)
    assert locks.create(1, 1, "a.bin") == (first, False)
    assert locks.create(1, 1, "b.bin")[0].serial == 2


def test_processes_that_migrate_at_once_all_end_at_head(empty: Database) -> None:
    others = [Database(empty.url.render_as_string(hide_password=False)) for _ in range(4)]
    ends: list[str] = []
    threads = [threading.Thread(target=lambda one=one: ends.append(schema.migrate(one)[1])) for one in others]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one in others:
        one.dispose()
    assert ends == [schema.head()] * 4


def test_a_failed_revision_leaves_nothing_behind(empty: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object) -> None:
        raise RuntimeError("the power went")

    with monkeypatch.context() as patch:
        patch.setattr("alembic.runtime.migration.HeadMaintainer.update_to_step", fail)
        with pytest.raises(RuntimeError):
            schema.migrate(empty)
    assert sa.inspect(empty.engine).get_table_names() == []
    assert schema.migrate(empty)[1] == schema.head()


def test_a_database_of_a_newer_program_is_refused(empty: Database) -> None:
    schema.migrate(empty)
    with empty.write() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(Damaged, match="install a newer"):
        schema.migrate(empty)


def test_foreign_keys_are_followed_again_after_a_migration(empty: Database) -> None:
    schema.migrate(empty)
    with pytest.raises(sa.exc.IntegrityError), empty.write() as connection:
        connection.execute(sa.insert(users).values(namespace_id=77, created_at=now()))
