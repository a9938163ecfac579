"""How doors wait for uploads that are being checked: in bounded number, for bounded time, holding nothing.

Between two looks nobody holds a thread of the gate, a lock or a connection; a door sleeps in its own way.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

from registry.errors import StillChecked
from registry.policy import counted

_FIRST, _LONGEST, _FACTOR = 0.05, 1.0, 1.5
_TOLD_EVERY = 5.0

Unproven = Callable[[int, Collection[str]], Mapping[str, int]]
"""Given a repo and oids: those that still wait for their proof, with their sizes."""


@dataclass(frozen=True, slots=True)
class Pause:
    """Seconds until the next look, and a line for the person who waits, if it is time for one."""

    seconds: float
    line: str | None = None


class Awaiting:
    """Gives places to wait; each for at most `seconds`, `most` at once. Thread-safe."""

    def __init__(
        self, unproven: Unproven, *, seconds: float, most: int = 128, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._unproven = unproven
        self._seconds = seconds
        self._places = threading.BoundedSemaphore(most)
        self._clock = clock

    @contextlib.contextmanager
    def place(self) -> Iterator[Wait]:
        """Prepare to wait; the place is taken at the first pause and given back at the end of the block."""
        wait = Wait(self._unproven, self._seconds, self._places, self._clock)
        try:
            yield wait
        finally:
            if wait.begun:
                self._places.release()


class Wait:
    """One caller's patience. Not for two threads at once."""

    def __init__(
        self, unproven: Unproven, seconds: float, places: threading.BoundedSemaphore, clock: Callable[[], float]
    ) -> None:
        self._unproven = unproven
        self._seconds = seconds
        self._places = places
        self._clock = clock
        self._until = self._tell_at = 0.0
        self._delay = _FIRST
        self.begun = False
        self.patient = True
        """False once time is over, or when no place was free: what the gate says then is the last word."""

    def pause(self, still: StillChecked) -> Pause | None:
        """Look how things stand; None when the gate should be asked again."""
        if not self.begun:
            self.patient = self.begun = self._places.acquire(blocking=False)
            self._until = self._clock() + self._seconds
        if not self.patient:
            return None
        left = self._unproven(still.repo_id, still.objects)
        moment = self._clock()
        if not left:
            self._delay = _FIRST
            return None
        if moment >= self._until:
            self.patient = False
            return None
        seconds, self._delay = min(self._delay, self._until - moment), min(self._delay * _FACTOR, _LONGEST)
        return Pause(seconds, self._line(left, moment))

    def _line(self, left: Mapping[str, int], moment: float) -> str | None:
        if moment < self._tell_at:
            return None
        self._tell_at = moment + _TOLD_EVERY
        return f"{counted(left)} being checked"
