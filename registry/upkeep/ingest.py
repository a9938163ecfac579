"""Sends objects that came whole by their chunks as well: one at a time in each process, whichever looks first.

A death at any point leaves a row that waits, under a lease that lapses, and at most xorbs that no file needs: whoever
takes the row next begins anew, and sends of those nothing again. The link is the work of the one transaction that files
the object, and stays declared until the prover has read it back: nobody is told of it before.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Mapping

from lfs.errors import LfsError
from lfs.xet.ingest import NotSent
from registry.errors import RegistryError
from registry.upkeep.recurring import Recurring
from registry.xet_ingests import MOST, Due, Ingests

log = logging.getLogger(__name__)

SMALLEST = 16 << 20
"""Bytes from which an object is worth it."""
LOOKS = 5.0
"""Seconds between two looks for what is due."""
COUNTS = 60.0
"""Seconds between two counts of what waits, as long as something is due."""
LEASE = 60.0
"""Seconds after which another process takes an object on that nobody has spoken of."""

Send = Callable[[Due, Callable[[], bool]], bool]


class Ingesting:
    """A thread that sends what is due; `send` returns False if the function that it is given said no.

    `counted` hears, after all that was due and every minute until then, how many wait and how many were given up;
    `sent` of each that was filed. `clock` is in seconds.
    """

    def __init__(
        self,
        ingests: Ingests,
        send: Send,
        *,
        counted: Callable[[Mapping[str, int]], object] = lambda counts: None,
        sent: Callable[[], object] = lambda: None,
        seconds: float = LOOKS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ingests, self._send, self._clock = ingests, send, clock
        self._counted, self._sent = counted, sent
        self._holder = secrets.token_hex(16)
        self._stopping = threading.Event()
        self._recurring = Recurring("ingest", self.run, seconds=seconds)

    def start(self) -> None:
        """Begin to look."""
        self._recurring.start()

    def close(self) -> None:
        """End; what is under way is stopped and given back. May be repeated."""
        self._stopping.set()
        self._recurring.close()

    def run(self) -> None:
        """Look once, and send all that waits. Raises: Busy."""
        self._ingests.look()
        counted = self._clock()
        while not self._stopping.is_set() and (due := self._ingests.take(self._holder, LEASE)) is not None:
            # Not each time: to count hundreds of thousands takes a tenth of the time that sending one takes.
            if self._clock() >= counted:
                self._counted(self._ingests.counts())
                counted = self._clock() + COUNTS
            self._try(due)
        self._counted(self._ingests.counts())

    def _try(self, due: Due) -> None:
        if due.tries > MOST:
            self._fail(due, "the server ended each time that it was sent")
            return
        try:
            sent = self._send(due, self._beat(due))
        except (NotSent, LfsError, RegistryError) as error:
            self._fail(due, str(error))
        except Exception as error:
            # Whatever it is, it counts as one try, and the next object has its turn.
            log.exception("object %s of repo %d could not be sent", due.oid, due.repo_id)
            self._fail(due, f"{type(error).__name__}: {error}")
        else:
            if sent:
                self._ingests.done(due, self._holder)
                self._sent()
                log.info("object %s of repo %d was filed by its chunks", due.oid, due.repo_id)
            else:
                self._ingests.give_back(due, self._holder)

    def _fail(self, due: Due, why: str) -> None:
        if self._ingests.fail(due, self._holder, why):
            log.warning("object %s of repo %d stays whole, tried %d times: %s", due.oid, due.repo_id, MOST, why)
        else:
            log.info("object %s of repo %d will be tried again: %s", due.oid, due.repo_id, why)

    def _beat(self, due: Due) -> Callable[[], bool]:
        """Make what keeps the lease while work goes on, and says whether it should."""
        held = self._clock()

        def going_on() -> bool:
            nonlocal held
            if self._stopping.is_set():
                return False
            if self._clock() - held > LEASE / 4:
                if not self._ingests.hold(due, self._holder, LEASE):
                    return False
                held = self._clock()
            return True

        return going_on
