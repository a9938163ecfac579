"""The proof of bytes that went past us: read back, hashed, and only then linked.

    staging      copied inside the store to a key that no client ever had, then read back there
    xet          put together from chunks under the key of the file, which has no bytes of its own to delete
    the others   read back under the key of the upload's own

Any process may take any upload on: a lease keeps two from the same work, and if it lapses twice the work is the same
result. A crash at any point leaves the upload `arrived`, for whoever looks next.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Collection

from lfs.host import SMALL, Host
from lfs.reading_back import LEASE, RETRY, ReadingBack
from lfs.store import ObjectStore
from lfs.turns import Seat, Turns

log = logging.getLogger(__name__)

GROUP = 64
"""Small uploads that are leased and settled together."""


class Prover:
    """Proves arrived uploads on threads of its own. Thread-safe; several processes may run one each.

    `workers` uploads are read at a time, the accounts that wait in turns; one thread more is for what is small, since
    most commits wait for that, and nobody's large uploads are to keep them. It looks for work when it is told to, and
    every `every` seconds for what other processes left. `clock` is in seconds.
    """

    def __init__(
        self,
        *,
        host: Host,
        store: ObjectStore,
        workers: int = 2,
        every: float = RETRY,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._host, self._store, self._clock, self._every = host, store, clock, every
        self._news = threading.Condition()
        self._told = 0
        self._stopping = threading.Event()
        large = Turns(lambda besides: self._lease(None, besides), told=self.tell)
        small = Turns(lambda besides: self._lease(SMALL, besides), told=self.tell)
        self.seats = [Seat(turns, stopping=self._stopping.is_set, clock=clock) for turns in [*[large] * workers, small]]
        """Where the threads work; the last is for what is small."""
        self._threads = [
            threading.Thread(target=self._work, args=(seat,), name=f"proof-{number}", daemon=True)
            for number, seat in enumerate(self.seats)
        ]

    def start(self) -> None:
        """Begin to look for work."""
        for thread in self._threads:
            thread.start()

    def tell(self) -> None:
        """Say that an upload arrived; returns at once."""
        with self._news:
            self._told += 1
            self._news.notify_all()

    def close(self, *, patience: float = 5.0) -> None:
        """Stop after the piece that is being read; what is not proven is left for the next start. May be repeated.

        Returns after `patience` seconds in any case.
        """
        self._stopping.set()
        self.tell()
        until = time.monotonic() + patience
        for thread in self._threads:
            if thread.is_alive():
                thread.join(max(0.0, until - time.monotonic()))

    def _work(self, seat: Seat) -> None:
        while not self._stopping.is_set():
            told = self._told
            if not seat.turn():
                self._wait(told)
        try:
            seat.leave()
        except Exception:
            log.exception("leases of uploads were left to lapse")

    def _wait(self, told: int) -> None:
        with self._news:
            self._news.wait_for(lambda: self._told != told or self._stopping.is_set(), self._every)

    def _lease(self, largest: int | None, besides: Collection[int]) -> ReadingBack | None:
        holder = secrets.token_hex(16)
        found = self._host.arrived(holder, LEASE, GROUP, largest=largest, besides=besides)
        if not found:
            return None
        return ReadingBack(found, holder, host=self._host, store=self._store, clock=self._clock)
