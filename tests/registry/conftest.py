"""Databases for the registry's tests: both kinds, migrated, empty at the start of each test."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from registry import schema
from registry.db import Database
from registry.tables.meta import metadata
from tests.services import postgres


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file to copy: migrating costs a hundred times more than copying."""
    path = tmp_path_factory.mktemp("template") / "registry.db"
    database = Database(f"sqlite:///{path}")
    schema.migrate(database)
    with database.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    database.dispose()
    return path


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """An empty PostgreSQL database of this worker."""
    with postgres.fresh_database(postgres.server()) as url:
        yield url


@pytest.fixture(scope="session")
def postgres_database(postgres_url: str) -> Iterator[Database]:
    """The worker's PostgreSQL database, migrated; use `database`, which empties it."""
    database = Database(postgres_url)
    schema.migrate(database)
    yield database
    database.dispose()


@pytest.fixture(scope="session")
def emptying(postgres_database: Database) -> str:
    """Statements that empty every table and start ids anew; forty times cheaper than TRUNCATE for a few rows."""
    found = sa.text("SELECT quote_ident(sequencename) FROM pg_sequences WHERE schemaname = 'public'")
    with postgres_database.read() as connection:
        sequences = connection.execute(found).scalars().all()
    deletes = [f'DELETE FROM "{table.name}"' for table in reversed(metadata.sorted_tables)]
    return "; ".join([*deletes, *(f"SELECT setval('{name}', 1, false)" for name in sequences)])


@pytest.fixture
def sqlite_database(sqlite_template: Path, tmp_path: Path) -> Iterator[Database]:
    """An empty SQLite database of this test."""
    path = tmp_path / "registry.db"
    shutil.copyfile(sqlite_template, path)
    database = Database(f"sqlite:///{path}")
    yield database
    database.dispose()


@pytest.fixture
def emptied_database(postgres_database: Database, emptying: str) -> Iterator[Database]:
    """The PostgreSQL database, empty at the start of this test."""
    yield postgres_database
    with postgres_database.engine.begin() as connection:
        connection.exec_driver_sql(emptying)


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def database(request: pytest.FixtureRequest) -> Database:
    """An empty, migrated database; each test that takes it runs on both kinds."""
    name = "sqlite_database" if request.param == "sqlite" else "emptied_database"
    found: Database = request.getfixturevalue(name)
    return found
