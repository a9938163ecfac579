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

from registry.errors import Busy, NoSpace, RegistryError
from registry.prepared import Prepared, PreparedChange, PreparedInsert

_BEGIN = "weightroom_begin"
_UNHURRIED = sa.text("SET LOCAL synchronous_commit TO off")


def now() -> datetime:
    """Tell the time, in UTC."""
    return datetime.now(UTC)


class Database:
    """One connection pool. Thread-safe; close it with `dispose`.

    Who finds all `pool` connections and a few more in use waits `patience` seconds for one. `durable=False` gives up
    on SQLite that a COMMIT survives a power cut; a server has a setting of its own for that.
    """

    def __init__(
        self,
        url: str,
        *,
        durable: bool = True,
        pool: int = 48,
        busy_timeout_ms: int = 5000,
        patience: float = 10.0,
    ) -> None:
        self.url = make_url(url)
        self._synchronous = "FULL" if durable else "NORMAL"
        self.sqlite = self.url.get_backend_name() == "sqlite"
        shape = {"pool_size": pool, "max_overflow": 8, "pool_timeout": patience}
        self._engine = self._sqlite_engine(shape, busy_timeout_ms) if self.sqlite else self._server_engine(shape)
        modes = self._sqlite_modes() if self.sqlite else self._server_modes()
        self._looker, self._reader, self._writer, self._noter = modes

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
            commands = connection.get_execution_options().get(_BEGIN, ("BEGIN",))
            driver = connection.connection.driver_connection
            if driver is not None:
                for command in commands:
                    driver.execute(command)

        return engine

    def _sqlite_modes(self) -> tuple[sa.Engine, sa.Engine, sa.Engine, sa.Engine]:
        def mode(*commands: str) -> sa.Engine:
            return self._engine.execution_options(**{_BEGIN: commands})

        # Without BEGIN each statement is a transaction of its own.
        writer = mode(f"PRAGMA synchronous={self._synchronous}", "BEGIN IMMEDIATE")
        return mode(), self._engine, writer, mode("PRAGMA synchronous=NORMAL", "BEGIN IMMEDIATE")

    def _server_engine(self, shape: dict[str, Any]) -> sa.Engine:
        # A pooled connection may have died with its server; the ping costs a round trip and saves a failed request.
        # A server takes 100 connections by default, and several processes share them.
        fewer = {"pool_size": min(shape["pool_size"], 20), "max_overflow": 4}
        return sa.create_engine(self.url, pool_pre_ping=True, **(shape | fewer))

    def _server_modes(self) -> tuple[sa.Engine, sa.Engine, sa.Engine, sa.Engine]:
        single = self._engine.execution_options(isolation_level="AUTOCOMMIT")
        snapshot = self._engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        return single, snapshot, self._engine, self._engine

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

        Raises: Busy (locked for longer than the busy timeout, or the database does not answer), NoSpace.
        """
        with _translated(), self._writer.begin() as connection:
            yield connection

    @contextlib.contextmanager
    def note(self) -> Iterator[Connection]:
        """Open a write transaction that does not wait for the disk, for what nobody was promised.

        Every process sees it at once; a power cut may lose it, as long as nothing durable was written after it.
        Raises: Busy, NoSpace.
        """
        with _translated(), self._noter.begin() as connection:
            if not self.sqlite:
                connection.execute(_UNHURRIED)
            yield connection

    def prepare(self, statement: sa.Select[*tuple[Any, ...]]) -> Prepared:
        """Compile a look-up, for statements that every request runs."""
        return Prepared(self._engine, statement)

    def prepare_insert(self, table: sa.Table, *, unless_there: bool = False) -> PreparedInsert:
        """Compile an insert of whole rows, for tables that requests fill by the hundred."""
        return PreparedInsert(self._engine, table, unless_there=unless_there)

    def prepare_change(self, statement: sa.Update) -> PreparedChange:
        """Compile a change of rows by their keys, for tables that requests fill by the hundred."""
        return PreparedChange(self._engine, statement)

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
        raise _unable(error) from error
    except DBAPIError as error:
        if error.connection_invalidated or _is_conflict(error):
            raise Busy("The database could not finish this now; try again.") from error
        raise


def _unable(error: Exception) -> RegistryError:
    """Tell a full disk from what passes by itself."""
    original = getattr(error, "orig", error)
    if getattr(original, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL or _sqlstate(original) == "53100":
        return NoSpace("The disk of the database is full; nothing was changed. Free space, then send this again.")
    return Busy("The database does not answer; try again in a few seconds.")


def _is_conflict(error: DBAPIError) -> bool:
    """True for deadlocks and serialisation failures (SQLSTATE 40P01, 40001), which a repeat may not meet again."""
    return _sqlstate(error.orig) in ("40001", "40P01")


def _sqlstate(original: object) -> str | None:
    """Return the code that PostgreSQL gave an error; None for one of SQLite's."""
    found: str | None = getattr(original, "sqlstate", None)
    return found
