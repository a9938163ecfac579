"""The collection once a day, by whichever server process looks first."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import datetime, timedelta

from registry.db import now
from registry.upkeep.gc import Gc, Scope
from registry.upkeep.recurring import Recurring
from registry.upkeep.runs import Counts

log = logging.getLogger(__name__)

EVERY = timedelta(days=1)
LOOKS = 600.0
"""Seconds between two looks whether it is time."""


class Daily:
    """A thread that collects when the last run began a day ago. It never unlinks what only `--yes` would.

    The first look comes one interval after the start, when clients that waited for the server have been served.
    """

    def __init__(self, gc: Gc, *, seconds: float = LOOKS, clock: Callable[[], datetime] = now) -> None:
        self._gc = gc
        self._clock = clock
        self._stopping = threading.Event()
        self._looked = False
        self._recurring = Recurring("gc", self._look, seconds=seconds)

    def start(self) -> None:
        """Begin to look."""
        self._recurring.start()

    def close(self) -> None:
        """End; a run that goes on stops after its step, and the next one takes up what is left."""
        self._stopping.set()
        self._recurring.close()

    def _look(self) -> None:
        if self._looked and self._is_due():
            self.collect()
        self._looked = True

    def _is_due(self) -> bool:
        last = self._gc.runs.last_whole()
        return last is None or last.started_at <= self._clock() - EVERY

    def collect(self) -> None:
        """Collect now, unless another process does or just did. Raises: Busy, lfs errors."""
        counts = Counts()
        for line in self._gc.run(Scope(daily=True), stopping=self._stopping.is_set, due=self._is_due):
            counts.add(line)
            if line.act == "skip":
                log.warning("gc: %s", line.line())
        if counts.fields():
            log.info("gc: %s", counts.text())
