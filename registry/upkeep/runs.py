"""The rows of runs: what each collection was asked and did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from registry.db import Database
from registry.tables.work import gc_runs, gc_unlinked
from registry.upkeep.reclaim import Line, human

_COLUMNS = tuple(gc_runs.c[name] for name in ("id", "started_at", "finished_at", "state", "options", "counts"))


class Counts:
    """How many things of each kind a run took a step further, and their bytes."""

    def __init__(self) -> None:
        self._found: dict[str, dict[str, int]] = {}

    def add(self, line: Line) -> None:
        """Count a line."""
        one = self._found.setdefault(f"{line.act} {line.kind}", {"count": 0, "bytes": 0})
        one["count"] += 1
        one["bytes"] += line.size

    @property
    def skipped(self) -> int:
        """How many things somebody should look at."""
        return sum(one["count"] for name, one in self._found.items() if name.startswith("skip"))

    def fields(self) -> dict[str, dict[str, int]]:
        """Say it by name."""
        return dict(self._found)

    def text(self) -> str:
        """Say it in one line."""
        return summary(self._found)


@dataclass(frozen=True, slots=True)
class Run:
    """One run: `finished_at` is None for one that goes on or was cut off."""

    id: int
    started_at: datetime
    finished_at: datetime | None
    state: str
    options: Mapping[str, object]
    counts: Mapping[str, Mapping[str, int]]

    @property
    def whole(self) -> bool:
        """True if it looked at everything, and not at one repo alone."""
        return self.options.get("repo") is None


class Runs:
    """Reads and writes the rows of runs."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def begin(self, moment: datetime, options: Mapping[str, object]) -> int:
        """Make the row of a run; whatever seems to run besides was cut off, since only one has its turn."""
        with self._db.write() as connection:
            connection.execute(sa.update(gc_runs).where(gc_runs.c.state == "running").values(state="done"))
            row = {"started_at": moment, "state": "running", "options": dict(options), "counts": {}}
            return int(connection.execute(sa.insert(gc_runs).values(row).returning(gc_runs.c.id)).scalar_one())

    def note(self, run_id: int, counts: Counts) -> None:
        """Write down what was done until now."""
        self._change(run_id, {"counts": counts.fields()})

    def end(self, run_id: int, counts: Counts, moment: datetime) -> None:
        """Close the row."""
        self._change(run_id, {"counts": counts.fields(), "state": "done", "finished_at": moment})

    def undone(self, run_id: int) -> None:
        """Mark a run whose links were given back."""
        self._change(run_id, {"state": "undone"})

    def _change(self, run_id: int, values: dict[str, object]) -> None:
        with self._db.write() as connection:
            connection.execute(sa.update(gc_runs).where(gc_runs.c.id == run_id).values(values))

    def latest(self, limit: int = 50) -> list[Run]:
        """List runs, the newest first."""
        with self._db.look() as connection:
            rows = connection.execute(sa.select(*_COLUMNS).order_by(gc_runs.c.id.desc()).limit(limit))
            return [Run(*row) for row in rows]

    def last_whole(self) -> Run | None:
        """Find the last run that looked at everything, among the newest ones."""
        return next((run for run in self.latest(1000) if run.whole), None)

    def find(self, run_id: int) -> Run | None:
        """Find a run."""
        with self._db.look() as connection:
            row = connection.execute(sa.select(*_COLUMNS).where(gc_runs.c.id == run_id)).first()
        return None if row is None else Run(*row)

    def forget(self, until: datetime) -> None:
        """Remove the rows of runs that began before; what they took away is long gone."""
        old = sa.select(gc_runs.c.id).where(gc_runs.c.started_at < until)
        with self._db.look() as connection:
            ids = connection.execute(old).scalars().all()
        for one in ids:
            with self._db.write() as connection:
                connection.execute(sa.delete(gc_unlinked).where(gc_unlinked.c.run_id == one))
                connection.execute(sa.delete(gc_runs).where(gc_runs.c.id == one))


def summary(counts: Mapping[str, Mapping[str, int]]) -> str:
    """Say counts in one line."""
    if not counts:
        return "nothing"
    return ", ".join(f"{name}: {one['count']} ({human(one['bytes'])})" for name, one in sorted(counts.items()))
