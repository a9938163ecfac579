"""One collection at a time, whoever starts it: the server's thread, another server's, or a command.

Other work that one process at a time does has a lock of its own. The lock dies with its holder: an advisory lock of a
PostgreSQL session, or a locked file beside an SQLite database.
"""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import sqlalchemy as sa

from registry.db import Database

Work = Literal["gc", "back"]
# Any numbers will do, as long as nobody else in the database takes them.
_NUMBERS: dict[Work, int] = {"gc": 0x57524743, "back": 0x57524742}


@contextlib.contextmanager
def turn(database: Database, work: Work = "gc") -> Iterator[bool]:
    """Hold the turn at one kind of work while the block runs; False if somebody else has it."""
    with _file(database, work) if database.sqlite else _session(database, work) as mine:
        yield mine


@contextlib.contextmanager
def _file(database: Database, work: Work) -> Iterator[bool]:
    path = Path(f"{database.url.database}-{work}")
    with path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


@contextlib.contextmanager
def _session(database: Database, work: Work) -> Iterator[bool]:
    with database.look() as connection:
        taken = connection.execute(sa.select(sa.func.pg_try_advisory_lock(_NUMBERS[work]))).scalar_one()
        try:
            yield bool(taken)
        finally:
            if taken:
                connection.execute(sa.select(sa.func.pg_advisory_unlock(_NUMBERS[work])))
