"""Admission: one line for each model, served round-robin over actors; a full line refuses with a time to come back.

The engine is given at most `slots` rows at once. Who waits, waits here, so that one actor's hundred requests do not
stand before another's first. Nobody's thread is held: a place rings when it is granted.
"""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable

from inference.errors import Overloaded

WINDOW = 30.0
"""Seconds over which tokens per second are measured."""
LINES = 16
"""Full lines' worth of requests that may be in the house over all models."""


class Place:
    """One request's place in line: waiting until `granted`, and then running until `leave`."""

    def __init__(self, line: _Line, actor: str, rows: int, tokens: int, ring: Callable[[], None]):
        self._line = line
        self.actor = actor
        self.rows = rows
        self.tokens = tokens
        """Tokens that it may generate, for the estimate of those behind."""
        self.ring = ring
        self.granted = False

    def leave(self, generated: int = 0) -> None:
        """Give the place back, waiting or running, and say how many tokens were generated. Idempotent."""
        self._line.leave(self, generated)


class _Line:
    """The requests for one model."""

    def __init__(self, *, slots: int, lock: threading.Lock, clock: Callable[[], float], over: Callable[[], None]):
        self._slots = slots
        self._lock = lock
        self._clock = clock
        self._over = over
        self._actors: OrderedDict[str, deque[Place]] = OrderedDict()
        self._inside: set[Place] = set()
        self._done: deque[tuple[float, int]] = deque()

    @property
    def waiting(self) -> int:
        return sum(len(queue) for queue in self._actors.values())

    @property
    def running(self) -> int:
        return len(self._inside)

    def add(self, place: Place) -> list[Place]:
        """Queue a place; give the places that are granted by that. The lock is held by the caller."""
        self._actors.setdefault(place.actor, deque()).append(place)
        return self._grant()

    def leave(self, place: Place, generated: int) -> None:
        with self._lock:
            queue = self._actors.get(place.actor)
            if place in self._inside:
                self._inside.remove(place)
                self._done.append((self._clock(), generated))
            elif queue and place in queue:
                queue.remove(place)
                if not queue:
                    del self._actors[place.actor]
            else:
                return
            granted = self._grant()
            self._over()
        for each in granted:
            each.ring()

    def retry_after(self) -> int:
        """Estimate seconds until the waiting have been served: their tokens by the measured rate, 1…60."""
        now = self._clock()
        while self._done and self._done[0][0] < now - WINDOW:
            self._done.popleft()
        rate = sum(tokens for _, tokens in self._done) / WINDOW
        queued = sum(place.tokens for queue in self._actors.values() for place in queue)
        return max(1, min(60, math.ceil(queued / rate))) if rate else 1

    def _grant(self) -> list[Place]:
        """Let in whose turn it is while they fit; one with many rows is waited for and not overtaken."""
        granted = []
        rows = sum(place.rows for place in self._inside)
        while self._actors:
            actor, queue = next(iter(self._actors.items()))
            if self._inside and rows + queue[0].rows > self._slots:
                break
            place = queue.popleft()
            del self._actors[actor]
            if queue:
                self._actors[actor] = queue
            place.granted = True
            rows += place.rows
            self._inside.add(place)
            granted.append(place)
        return granted


class Lines:
    """All lines of the house; thread-safe, never blocks."""

    def __init__(self, *, max_queue: int, slots: int, clock: Callable[[], float] = time.monotonic):
        self._max_queue = max_queue
        self._slots = slots
        self._clock = clock
        self._lock = threading.Lock()
        self._lines: dict[str, _Line] = {}

    def join(self, *, model: str, actor: str, rows: int, tokens: int, ring: Callable[[], None]) -> Place:
        """Take a place in the model's line; look at `granted`, and wait for `ring` if it is not yet.

        Raises: Overloaded, when the line or the house is full, with seconds to wait.
        """
        with self._lock:
            line = self._lines.get(model)
            if line is None:
                line = _Line(slots=self._slots, lock=self._lock, clock=self._clock, over=self._forget_empty)
            inside = sum(each.waiting + each.running for each in self._lines.values())
            if line.waiting >= self._max_queue or inside >= LINES * self._max_queue:
                raise Overloaded(
                    f"{line.waiting} requests wait for this model already (WEIGHTROOM_MAX_QUEUE); try again later.",
                    retry_after=line.retry_after(),
                )
            self._lines[model] = line
            place = Place(line, actor, rows, tokens, ring)
            line.add(place)
        return place

    def counts(self) -> tuple[int, int]:
        """Count requests over all models: (waiting, running)."""
        with self._lock:
            lines = self._lines.values()
            return sum(line.waiting for line in lines), sum(line.running for line in lines)

    def _forget_empty(self) -> None:
        """Keep a few idle lines for their measured rates, and no more: names come from callers."""
        if len(self._lines) > 1000:
            self._lines = {name: line for name, line in self._lines.items() if line.waiting or line.running}
