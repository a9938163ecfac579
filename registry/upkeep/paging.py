"""Rows in order of a key, in short transactions: none stays open while bytes are read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Row

from registry.db import Database

T = TypeVar("T")
_PAGE = 1000


def paged(database: Database, chosen: sa.Select[Any], column: sa.Column[Any]) -> Iterator[Row[*tuple[Any, ...]]]:
    """Yield the rows of a statement; `column` is its first, and unique."""
    last: object = None
    while True:
        where = [] if last is None else [column > last]
        with database.read() as connection:
            rows = connection.execute(chosen.where(*where).order_by(column).limit(_PAGE)).all()
        yield from rows
        if len(rows) < _PAGE:
            return
        last = rows[-1][0]


def in_groups(rows: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield the rows in lists of `size`, the last one shorter; none is empty."""
    waiting = iter(rows)
    while group := list(islice(waiting, size)):
        yield group
