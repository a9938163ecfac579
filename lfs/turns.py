"""Whose upload is read back next: a few seconds for each account that waits, in turn, however much each has.

    seat    a thread's place; what it reads has a slice of time, and goes on for as long as nobody else has a claim
    aside   what others have a claim before; it loses nothing but its place
    round   ends when every account that has something to read has had its slice

An account has one upload under way while others wait, and more as long as none has fewer. So whoever comes waits for
one slice of each account that is at work, at the most, and then has its share of the time: an upload that takes `t`
seconds alone is done after `(n + 1) * t` and `n` slices beside those, if `n` accounts have whatever they have queued.
Without others one account has every seat.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Collection

from lfs.errors import LfsError
from lfs.reading_back import ReadingBack

log = logging.getLogger(__name__)

SLICE = 2.0
"""Seconds that an account may be read for while others wait. Going on with what was set aside costs an opening: some
milliseconds, or some tenths of a second for a file of a million terms."""
MOST = 256
"""What may be set aside. It costs a kilobyte each, and the lease is prolonged every few seconds."""


class Turns:
    """Deals out what waits among the seats of one kind. Thread-safe.

    `lease` takes on uploads of an account that is not among those it is given. `told` is called when something was set
    aside, which a seat that waits may go on with.
    """

    def __init__(
        self, lease: Callable[[Collection[int]], ReadingBack | None], *, told: Callable[[], None] = lambda: None
    ) -> None:
        self._lease, self._told = lease, told
        self._mutex = threading.Lock()
        self._aside: deque[ReadingBack] = deque()
        self._under_way: Counter[int] = Counter()
        # Seconds of this round, by account.
        self._spent: defaultdict[int, float] = defaultdict(float)

    def next(self, current: ReadingBack | None) -> ReadingBack | None:
        """Return what has a claim before `current`, which is set aside then; None if nothing has.

        Raises: what leasing raises.
        """
        self._keep_up()
        found = self._find(current)
        if found is None and self._end_round():
            found = self._find(current)
        if found is not None and current is not None:
            current.set_aside()
            with self._mutex:
                self._aside.append(current)
            self._told()
        return found

    def left(self, reading: ReadingBack) -> float:
        """Return the seconds that an account still has in this round, a part of a slice at least."""
        with self._mutex:
            return max(SLICE - self._spent[reading.actor_id], SLICE / 4)

    def spend(self, reading: ReadingBack, seconds: float) -> None:
        """Count the time that an account had."""
        with self._mutex:
            self._spent[reading.actor_id] += seconds

    def end(self, reading: ReadingBack) -> None:
        """Forget what is done."""
        with self._mutex:
            self._under_way[reading.actor_id] -= 1
            self._under_way += Counter()

    def give_back(self) -> None:
        """Leave what was set aside to other processes."""
        with self._mutex:
            aside, self._aside = self._aside, deque()
        for reading in aside:
            reading.give_back()

    def _find(self, current: ReadingBack | None) -> ReadingBack | None:
        """Take what waits of an account that has time left: something new, or what was set aside first."""
        with self._mutex:
            served = self._served()
            besides = served | self._busiest(alone=current is None and not self._aside)
            room = len(self._aside) < MOST
        new = self._lease(besides) if room else None
        with self._mutex:
            if new is not None:
                self._under_way[new.actor_id] += 1
                return new
            found = next((reading for reading in self._aside if reading.actor_id not in served), None)
            if found is not None:
                self._aside.remove(found)
            return found

    def _served(self) -> set[int]:
        return {actor_id for actor_id, seconds in self._spent.items() if seconds >= SLICE}

    def _busiest(self, *, alone: bool) -> set[int]:
        """Return the accounts that have as much under way as any; none for a seat that has nothing else to do."""
        most = max(self._under_way.values(), default=0)
        return set() if alone else {actor_id for actor_id, count in self._under_way.items() if count == most}

    def _end_round(self) -> bool:
        """Begin a new round; False if nobody had their time in this one."""
        with self._mutex:
            over = bool(self._served())
            if over:
                self._spent.clear()
        return over

    def _keep_up(self) -> None:
        """Prolong the leases of what was set aside and is due."""
        with self._mutex:
            due = [reading for reading in self._aside if reading.is_due()]
            for reading in due:
                self._aside.remove(reading)
        try:
            for reading in due:
                reading.keep_up()
        finally:
            with self._mutex:
                self._aside.extendleft(reversed(due))


class Seat:
    """A thread's place at the work; for that thread alone. `stopping` says that it is to end, `clock` is in seconds."""

    def __init__(self, turns: Turns, *, stopping: Callable[[], bool], clock: Callable[[], float]) -> None:
        self._turns, self._stopping, self._clock = turns, stopping, clock
        self._current: ReadingBack | None = None

    def turn(self) -> bool:
        """Read for a slice of time, or to the end of what is read; False if nothing waits."""
        reading = self._next() or self._current
        if reading is None:
            return False
        self._current = reading
        began = self._clock()
        done = self._go_on(reading, began + self._turns.left(reading))
        self._turns.spend(reading, self._clock() - began)
        if done:
            self._current = None
            self._turns.end(reading)
            reading.rest()
        return True

    def _go_on(self, reading: ReadingBack, until: float) -> bool:
        try:
            return reading.go_on(lambda: self._stopping() or self._clock() >= until)
        except Exception:
            # Nobody foresaw it, and others are not to wait for ever: whoever takes these on when their leases have
            # lapsed begins anew.
            log.exception("uploads are not proven yet, and left until their leases lapse")
            reading.set_aside()
            return True

    def leave(self) -> None:
        """Leave what is not proven yet to other processes."""
        if self._current is not None:
            self._current.give_back()
        self._turns.give_back()

    def _next(self) -> ReadingBack | None:
        try:
            return self._turns.next(self._current)
        except LfsError as error:
            log.warning("uploads that wait for their proof could not be listed: %s", error.message)
        except Exception:
            log.exception("uploads that wait for their proof could not be listed")
        return None
