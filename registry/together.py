"""Many small writes as one: callers that wait at the same time share one transaction, and so one sync of the disk.

Who comes first does the work of all who wait; who comes meanwhile waits for the next turn. A single caller is served at
once. After a turn that served several, the next is given as many: most of them come again, and a turn that took off
with the first to come back would leave all others to the one after. They are waited for no longer than the last turn
took, so that the wait never costs more than a turn that it may save.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from registry.errors import Busy

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")

# Seconds for which company is waited for at most.
_LONGEST = 0.01


class _Ticket(Generic[Asked, Answer]):
    """One caller; `called` when its answers are there, or when it is its turn to do the work."""

    def __init__(self, asked: Sequence[Asked]) -> None:
        self.asked = asked
        self.called = threading.Event()
        self.found: Sequence[Answer | Exception] | None = None


class Together(Generic[Asked, Answer]):
    """Serves callers in groups of up to `most`. Thread-safe.

    `work` takes what a group asks, and returns an answer or an error for each, in order; it is atomic. If it raises
    Busy the whole group hears of it. If it raises something else each wish is served alone, so that one that cannot be
    fulfilled spoils no other.
    """

    def __init__(self, work: Callable[[Sequence[Asked]], Sequence[Answer | Exception]], *, most: int = 256) -> None:
        self._work = work
        self._most = most
        self._mutex = threading.Lock()
        self._waiting: list[_Ticket[Asked, Answer]] = []
        self._working = False
        # How many the last turn served, and for how long.
        self._served, self._took = 1, 0.0
        self._company = threading.Condition(self._mutex)

    def ask(self, asked: Asked) -> Answer:
        """Return the answer; raises what `work` found or raised for this caller."""
        (found,) = self.ask_all([asked])
        if isinstance(found, Exception):
            raise found
        return found

    def ask_all(self, asked: Sequence[Asked]) -> Sequence[Answer | Exception]:
        """Return for each wish of one caller its answer, or what `work` found or raised for it."""
        ticket: _Ticket[Asked, Answer] = _Ticket(asked)
        with self._mutex:
            self._waiting.append(ticket)
            first, self._working = not self._working, True
            if len(self._waiting) >= self._served:
                self._company.notify()
        if not first:
            ticket.called.wait()
        if ticket.found is None:
            self._lead()
        assert ticket.found is not None
        return ticket.found

    def _lead(self) -> None:
        """Do the work of those who wait, this caller the first of them, and call the next to lead."""
        with self._company:
            self._company.wait_for(lambda: len(self._waiting) >= self._served, self._took)
            group, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
            self._served = len(group)
        began = time.monotonic()
        try:
            self._serve(group)
        finally:
            self._took = min(time.monotonic() - began, _LONGEST)
            with self._mutex:
                self._working = bool(self._waiting)
                if self._waiting:
                    self._waiting[0].called.set()
            for ticket in group:
                if ticket.found is None:
                    # The thread that led is being stopped; the others must not wait for ever.
                    ticket.found = [Busy("The server is stopping; try again.")] * len(ticket.asked)
                ticket.called.set()

    def _serve(self, group: Sequence[_Ticket[Asked, Answer]]) -> None:
        answers = iter(self._answers([asked for ticket in group for asked in ticket.asked]))
        for ticket in group:
            ticket.found = [next(answers) for _ in ticket.asked]

    def _answers(self, asked: Sequence[Asked]) -> Sequence[Answer | Exception]:
        try:
            return self._work(asked)
        except Exception as error:
            if len(asked) == 1 or isinstance(error, Busy):
                return [error] * len(asked)
        return [answer for each in asked for answer in self._answers([each])]
