"""Brings a database to the schema that this code reads, one revision per transaction.

Each step looks at the database's revision, applies the next one and commits, all under one lock, so any number of
processes may migrate at once: the first does the work, the others find it done. A death between two steps leaves a
whole schema of an older revision, from which the next attempt goes on.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.engine import Connection

import migrations
from registry.db import Database
from registry.errors import Damaged

BASE = "empty"
"""Stands for a database without a schema."""

# Any constant will do, as long as nothing else takes an advisory lock of this number in the same database.
_LOCK = 0x57E16874


def head() -> str:
    """Name the newest revision, the one that this code needs."""
    found = ScriptDirectory.from_config(_config()).get_current_head()
    assert found is not None
    return found


def current(database: Database) -> str:
    """Name the revision that a database is at, `BASE` if it has none.

    Raises: Busy (the database does not answer).
    """
    with database.read() as connection:
        return _revision(connection)


def migrate(database: Database) -> tuple[str, str]:
    """Bring a database to the newest revision; return the revisions before and after.

    Atomic per revision, repeatable, safe to run in several processes at once.
    Raises: Busy, Damaged (the database is newer than this program, or a revision left dangling rows).
    """
    before = at = current(database)
    _check_known(before)
    newest = head()
    while at != newest:
        with _step(database) as connection:
            # Another process may have got here first.
            if _revision(connection) == at:
                command.upgrade(_config(connection), "+1")
            at = _revision(connection)
    return before, at


def revert(database: Database, revision: str) -> None:
    """Take a database back to an older revision, `BASE` for none; for tests and for leaving a release."""
    with _step(database) as connection:
        command.downgrade(_config(connection), "base" if revision == BASE else revision)


def _check_known(revision: str) -> None:
    known = {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}
    if revision != BASE and revision not in known:
        raise Damaged(f"The database is at revision {revision}, which this program does not know; install a newer one.")


def _config(connection: Connection | None = None) -> Config:
    config = Config()
    # The folder goes through a ConfigParser, to which a percent sign means something.
    config.set_main_option("script_location", str(Path(migrations.__path__[0])).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def _revision(connection: Connection) -> str:
    return MigrationContext.configure(connection).get_current_revision() or BASE


@contextlib.contextmanager
def _step(database: Database) -> Iterator[Connection]:
    """Open the transaction of one revision, with every other migration shut out."""
    if not database.sqlite:
        with database.write() as connection:
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
            yield connection
        return
    with _foreign_keys_off(database), database.write() as connection:
        yield connection
        _check_foreign_keys(connection)


@contextlib.contextmanager
def _foreign_keys_off(database: Database) -> Iterator[None]:
    """Stop SQLite from following foreign keys while tables are rebuilt; it reads the switch only between transactions.

    The switch belongs to a connection, so it is thrown in the pool: connections opened in the block have it off and
    are closed after it.
    """
    database.dispose()

    @sa.event.listens_for(database.engine, "connect")
    def prepare(connection: sa.engine.interfaces.DBAPIConnection, record: object) -> None:
        connection.cursor().execute("PRAGMA foreign_keys=OFF")

    try:
        yield
    finally:
        sa.event.remove(database.engine, "connect", prepare)
        database.dispose()


def _check_foreign_keys(connection: Connection) -> None:
    dangling = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
    if dangling:
        raise Damaged(f"{len(dangling)} rows point to rows that do not exist, the first in table {dangling[0][0]}.")
