"""One writer at a time: the hold of a request on an upload, which ends by itself if the request's process does."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable

from lfs.errors import Busy, LfsError
from lfs.host import Host

log = logging.getLogger(__name__)

# So long a writer that died without a word keeps others out; one that lives prolongs it three times as often.
LEASE = 30.0
# Seconds after which a second writer may try again: git-lfs has eight tries, together longer than a lease.
RETRY = 5


class Lease:
    """The hold of one writer on one upload, for `seconds` at a time. Prolonged by another thread than the writer's."""

    def __init__(self, host: Host, upload_id: str, seconds: float, clock: Callable[[], float]) -> None:
        self.seconds = seconds
        self.afterwards: list[Callable[[], None]] = []
        self._host, self._upload_id, self._clock = host, upload_id, clock
        self._holder, self._until, self._taken = uuid.uuid4().hex, 0.0, False

    def take(self) -> None:
        """Become the only writer. Raises: Busy."""
        began = self._clock()
        if not self._host.hold(self._upload_id, self._holder, self.seconds):
            raise Busy("Another request is sending this object; ask again how far it is.", retry_after=RETRY)
        self._until, self._taken = began + self.seconds, True

    def prolong(self) -> None:
        """Hold on; a lease that lapsed stays lapsed, since another writer may have been there in between."""
        began = self._clock()
        if self._taken and self._host.hold(self._upload_id, self._holder, self.seconds) and self._clock() < self._until:
            self._until = began + self.seconds

    def check(self) -> None:
        """Go on only if nobody else can have written since `take`. Raises: Busy."""
        if self._clock() >= self._until:
            raise Busy("The store is too slow at this moment; go on from the offset that it holds.", retry_after=RETRY)

    def give_back(self) -> None:
        """Let the next writer, or the proof, begin."""
        if self._taken:
            try:
                self._host.release(self._upload_id, self._holder)
            except LfsError as error:
                # It lapses by itself; what was done under it is done.
                log.warning("the lease of upload %s was not given back: %s", self._upload_id, error.message)
        for act in self.afterwards:
            act()
