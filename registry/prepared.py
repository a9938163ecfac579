"""A look-up of one row, compiled once: what every request pays for must not be compiled, or checked, on every request.

Through SQLAlchemy's usual path a look-up by key costs eight times what the driver takes (0.30 ms against 0.04 ms on
SQLite, measured 2026-11). The statement is still written with SQLAlchemy and still runs on its pool; only the way
from parameters to row is shorter.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import TimeoutError

from registry.errors import Busy


class Prepared:
    """One statement on one engine. Thread-safe; each call is a transaction of its own, which reads one instant."""

    def __init__(self, engine: sa.Engine, statement: sa.Select[*tuple[Any, ...]]) -> None:
        self._engine = engine
        self._sqlite = engine.dialect.name == "sqlite"
        compiled = statement.compile(engine)
        self._sql = str(compiled)
        self._parameters: Callable[[Mapping[str, object]], Mapping[str, Any]] = compiled.construct_params
        self._places: list[str] | None = getattr(compiled, "positiontup", None)
        columns = list(statement.selected_columns)
        self._row = namedtuple("_row", [column.key for column in columns])  # type: ignore[misc]  # named by its columns
        makers = [column.type.dialect_impl(engine.dialect) for column in columns]
        found = [maker.result_processor(engine.dialect, None) for maker in makers]
        # The driver's own, also for a connection that cannot be made; the pool's, when none comes free in time.
        self._failures: tuple[type[Exception], ...] = (engine.dialect.loaded_dbapi.OperationalError, TimeoutError)
        self._convert = [(place, make) for place, make in enumerate(found) if make is not None]

    def first(self, values: Mapping[str, object]) -> Any | None:
        """Return the first row by column name, or None.

        Raises: Busy (locked for too long, no connection came free, or the database does not answer).
        """
        try:
            row = self._asked(values)
        except self._failures as error:
            raise Busy("The database does not answer; try again in a few seconds.") from error
        if row is None:
            return None
        cells = list(row)
        for place, make in self._convert:
            cells[place] = make(cells[place])
        return self._row(*cells)

    def _asked(self, values: Mapping[str, object]) -> Any:
        held = self._engine.raw_connection()
        try:
            return self._ask(held, values)
        except self._failures as error:
            held.invalidate(error)
            raise
        finally:
            held.close()

    def _ask(self, held: Any, values: Mapping[str, object]) -> Any:
        asked = self._parameters(values)
        driver: DBAPIConnection = held.driver_connection
        if self._sqlite:
            return driver.execute(self._sql, [asked[name] for name in self._places or ()]).fetchone()
        # One round trip instead of three: no BEGIN before, no ROLLBACK after.
        driver.autocommit = True
        try:
            return driver.execute(self._sql, asked).fetchone()
        finally:
            driver.autocommit = False
