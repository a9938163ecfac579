"""One collection at a time, whoever starts it: the server's thread, another server's, or a command.

The lock dies with its holder: an advisory lock of a PostgreSQL session, or a locked file beside an SQLite database.
"""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

import sqlalchemy as sa

from registry.db import Database

# Any number will do, as long as nobody else in the database takes it.
_NUMBER = 0x57524743


@contextlib.contextmanager
def turn(database: Database) -> Iterator[bool]:
    """Hold the turn while the block runs; False if somebody else has it."""
    with _file(database) if database.sqlite else _session(database) as mine:
        yield mine


@contextlib.contextmanager
def _file(database: Database) -> Iterator[bool]:
    path = Path(f"{database.url.database}-gc")
    with path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


@contextlib.contextmanager
def _session(database: Database) -> Iterator[bool]:
    with database.look() as connection:
        taken = connection.execute(sa.select(sa.func.pg_try_advisory_lock(_NUMBER))).scalar_one()
        try:
            yield bool(taken)
        finally:
            if taken:
                connection.execute(sa.select(sa.func.pg_advisory_unlock(_NUMBER)))
