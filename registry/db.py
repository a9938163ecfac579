"""The database: engine, read and write transactions, and what its failures mean.

SQLite runs in WAL mode with `synchronous=FULL`; a write transaction takes the write lock at once (`BEGIN IMMEDIATE`),
so two writers queue instead of failing half-way. PostgreSQL reads run in one snapshot (REPEATABLE READ, read only);
writes run in READ COMMITTED and lock the rows they decide on.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import Connection, make_url
from sqlalchemy.exc import DBAPIError, OperationalError, TimeoutError

from registry.errors import Busy
from registry.prepared import Prepared

_BEGIN = "weightroom_begin"


def now() -> datetime:
    """Tell the time, in UTC."""
    return datetime.now(UTC)


class Database:
    """One connection pool. Thread-safe; close it with `dispose`.

    Who finds all `pool` connections and a few more in use waits `patience` seconds for one.
    """

    def __init__(self, url: str, *, pool: int = 48, busy_timeout_ms: int = 5000, patience: float = 10.0) -> None:
        self.url = make_url(url)
        self.sqlite = self.url.get_backend_name() == "sqlite"
        shape = {"pool_size": pool, "max_overflow": 8, "pool_timeout": patience}
        self._engine = self._sqlite_engine(shape, busy_timeout_ms) if self.sqlite else self._server_engine(shape)
        self._looker, self._reader, self._writer = self._sqlite_modes() if self.sqlite else self._server_modes()

    def _sqlite_engine(self, shape: dict[str, Any], busy_timeout_ms: int) -> sa.Engine:
        engine = sa.create_engine(self.url, connect_args={"check_same_thread": False}, **shape)

        @event.listens_for(engine, "connect")
        def prepare(connection: Any, record: object) -> None:
            # The driver's own BEGIN is late and never IMMEDIATE; ours is issued below.
            connection.isolation_level = None
            for pragma in (f"busy_timeout={busy_timeout_ms}", "synchronous=FULL", "foreign_keys=ON"):
                connection.execute(f"PRAGMA {pragma}")
            _to_wal(connection, busy_timeout_ms / 1000)

        @event.listens_for(engine, "begin")
        def begin(connection: Connection) -> None:
            # Asked of the driver: as a statement of SQLAlchemy's own it would cost more than many a query.
            command = connection.get_execution_options().get(_BEGIN, "BEGIN")
            driver = connection.connection.driver_connection
            if command and driver is not None:
                driver.execute(command)

        return engine

    def _sqlite_modes(self) -> tuple[sa.Engine, sa.Engine, sa.Engine]:
        # Without BEGIN each statement is a transaction of its own.
        single = self._engine.execution_options(**{_BEGIN: ""})
        return single, self._engine, self._engine.execution_options(**{_BEGIN: "BEGIN IMMEDIATE"})

    def _server_engine(self, shape: dict[str, Any]) -> sa.Engine:
        # A pooled connection may have died with its server; the ping costs a round trip and saves a failed request.
        # A server takes 100 connections by default, and several processes share them.
        fewer = {"pool_size": min(shape["pool_size"], 20), "max_overflow": 4}
        return sa.create_engine(self.url, pool_pre_ping=True, **(shape | fewer))

    def _server_modes(self) -> tuple[sa.Engine, sa.Engine, sa.Engine]:
        single = self._engine.execution_options(isolation_level="AUTOCOMMIT")
        snapshot = self._engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        return single, snapshot, self._engine

    @contextlib.contextmanager
    def look(self) -> Iterator[Connection]:
        """Open a connection for one reading statement, without the round trips of a transaction.

        A second statement on it may see a later instant. Raises: Busy.
        """
        with _translated(), self._looker.begin() as connection:
            yield connection

    @contextlib.contextmanager
    def read(self) -> Iterator[Connection]:
        """Open a read transaction: every statement in it sees the same instant.

        Raises: Busy (the database does not answer).
        """
        with _translated(), self._reader.begin() as connection:
            yield connection

    @contextlib.contextmanager
    def write(self) -> Iterator[Connection]:
        """Open a write transaction; it commits when the block ends well and rolls back otherwise.

        Raises: Busy (locked for longer than the busy timeout, or the database does not answer).
        """
        with _translated(), self._writer.begin() as connection:
            yield connection

    def prepare(self, statement: sa.Select[*tuple[Any, ...]]) -> Prepared:
        """Compile a look-up of one row, for statements that every request runs."""
        return Prepared(self._engine, statement)

    @property
    def engine(self) -> sa.Engine:
        """The engine itself, for migrations."""
        return self._engine

    def dispose(self) -> None:
        """Close every pooled connection."""
        self._engine.dispose()


def _to_wal(connection: Any, patience: float) -> None:
    """Turn the write-ahead log on. The first who opens a new file does it, and SQLite lets nobody wait for that."""
    until = time.monotonic() + patience
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError:
            if time.monotonic() > until:
                raise
            time.sleep(0.01)


def lock_repo(connection: Connection, repo_id: int) -> None:
    """Take the repo's row lock until the transaction ends. SQLite holds the one write lock already."""
    if connection.dialect.name != "sqlite":
        connection.execute(sa.text("SELECT 1 FROM repos WHERE id = :id FOR UPDATE"), {"id": repo_id})


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (OperationalError, TimeoutError, sqlite3.OperationalError) as error:
        raise Busy("The database does not answer; try again in a few seconds.") from error
    except DBAPIError as error:
        if error.connection_invalidated or _is_conflict(error):
            raise Busy("The database could not finish this now; try again.") from error
        raise


def _is_conflict(error: DBAPIError) -> bool:
    """True for deadlocks and serialisation failures (SQLSTATE 40P01, 40001), which a repeat may not meet again."""
    original = error.orig
    if isinstance(original, sqlite3.Error):
        return False
    return getattr(original, "sqlstate", None) in ("40001", "40P01")
