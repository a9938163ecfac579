"""The garbage collection: what no ref needs is unlinked, condemned after a week, deleted after two more.

    delete ◀── grace ── condemn ◀── grace ── unlink        nothing takes two steps in one run

Each run goes backwards along that line, so even with no grace at all nothing is unlinked and deleted at once, and a
dry run, which plans and does nothing, prints what the run would print. Every step guards itself against what happens
meanwhile; a death between two of them leaves what the next run takes up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime

from lfs.store import ObjectStore
from registry.db import Database, now
from registry.errors import Busy
from registry.git.objects import ManifestStore
from registry.git.repository import Repositories
from registry.upkeep.chunked import Chunked
from registry.upkeep.domains import Domains
from registry.upkeep.expired import Expired
from registry.upkeep.lapsed import Lapsed
from registry.upkeep.old_packs import OldPacks
from registry.upkeep.reclaim import Graces, Line, Step
from registry.upkeep.roots import RootFinder
from registry.upkeep.runs import Counts, Runs
from registry.upkeep.sweep import Orphans
from registry.upkeep.trash import Trash
from registry.upkeep.turn import turn
from registry.upkeep.undo import Undo
from registry.upkeep.unlink import Unlink
from registry.upkeep.xet_keys import XetKeys
from registry.upkeep.xorbs import Xorbs

_TAKEN = "A collection is running at this moment; wait for its end, then try again."


@dataclass(frozen=True, slots=True)
class Scope:
    """What to collect: everything, or the links of one repo; `yes` also unlinks more than a fifth of a repo's bytes.

    With `now` xorbs go although clients were promised them.
    """

    repo_id: int | None = None
    yes: bool = False
    daily: bool = False
    now: bool = False


class Gc:
    """Collects one house. Only one run at a time has its turn, over all processes."""

    def __init__(
        self,
        *,
        database: Database,
        store: ObjectStore,
        repositories: Repositories,
        manifests: ManifestStore,
        graces: Graces | None = None,
        clock: Callable[[], datetime] = now,
    ) -> None:
        self._db = database
        self._store = store
        self._graces = graces = graces or Graces()
        self._clock = clock
        self.runs = Runs(database)
        self._unlink = Unlink(database, RootFinder(database, repositories, manifests), graces)
        self._trash = Trash(database, store, graces, clock=clock)
        self._packs = OldPacks(database, store, graces, clock=clock)
        self._expired = Expired(database, store, graces)
        self._orphans = Orphans(database, store, graces, trash=self._trash, old_packs=self._packs, clock=clock)
        self._xorbs = Xorbs(database, store, graces, clock=clock)
        self._xet_keys = XetKeys(database, store, graces)
        self._lapsed = Lapsed(database, graces)
        self._domains = Domains(database)
        self._chunked = Chunked(database, graces, clock=clock)

    def plan(self, scope: Scope) -> Iterator[Line]:
        """Say what a run would do at this moment; changes nothing. Raises: Busy, lfs errors."""
        for step in self._steps(scope, self._clock()):
            yield from step.lines

    def run(
        self, scope: Scope, *, stopping: Callable[[], bool] = lambda: False, due: Callable[[], bool] = lambda: True
    ) -> Iterator[Line]:
        """Do it, and say of each thing what became of it. `due` is asked once the turn is ours.

        Stopped or dead in the middle, the next run goes on. Raises: Busy (another run is going on), lfs errors.
        """
        with turn(self._db) as mine:
            if not mine:
                raise Busy(_TAKEN)
            if due():
                yield from self._run(scope, stopping)

    def _run(self, scope: Scope, stopping: Callable[[], bool]) -> Iterator[Line]:
        moment, counts = self._clock(), Counts()
        options = {"repo": scope.repo_id, "yes": scope.yes, "daily": scope.daily, "now": scope.now}
        run_id = self.runs.begin(moment, options)
        try:
            for step in self._steps(scope, moment):
                if stopping():
                    break
                for line in step.do(run_id):
                    counts.add(line)
                    yield line
                self.runs.note(run_id, counts)
            if scope.repo_id is None:
                self._store.sweep(self._graces.parts.total_seconds())
                self.runs.forget(moment - self._graces.run)
        finally:
            self.runs.end(run_id, counts, self._clock())

    def _steps(self, scope: Scope, moment: datetime) -> Iterator[Step]:
        """Plan everything, the last steps of a thing's way first."""
        if scope.repo_id is None:
            yield from self._orphans.steps(moment)
            yield from self._expired.forget(moment)
            yield from self._expired.close(moment)
            yield from self._xet(moment, scope)
            yield from self._trash.delete(moment)
            yield from self._packs.delete(moment)
            yield from self._trash.condemn(moment)
            yield from self._packs.condemn(moment)
        yield from self._unlink.steps(moment, only=scope.repo_id, allow=scope.yes)

    def _xet(self, moment: datetime, scope: Scope) -> Iterator[Step]:
        yield from self._xet_keys.orphans(moment)
        yield from self._lapsed.steps(moment)
        yield from self._xorbs.delete(moment)
        yield from self._xorbs.condemn(moment, now=scope.now)
        yield from self._domains.steps(moment)
        yield from self._chunked.files(moment)
        yield from self._chunked.links(moment)

    def undo(self, run_id: int) -> Iterator[Line]:
        """Give back what a run unlinked, as far as the bytes are there. Raises: Busy (a run is going on)."""
        with turn(self._db) as mine:
            if not mine:
                raise Busy(_TAKEN)
            yield from Undo(self._db, clock=self._clock).run(run_id)
            self.runs.undone(run_id)
