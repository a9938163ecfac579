"""Requests in the house: what each holds, given back when it ends, and how all of them end when the house closes."""

from __future__ import annotations

import threading
from collections.abc import Callable

from inference.errors import SidecarError, Unavailable


class Visit:
    """One request's belongings. What is kept after `close` is given back at once, so nothing can slip through."""

    def __init__(self, over: Callable[[Visit], None]):
        self._over = over
        self._lock = threading.Lock()
        self._kept: list[Callable[[], None]] = []
        self._closed = False
        self._abort: Callable[[SidecarError], None] | None = None
        self.error: SidecarError | None = None
        """Why the house ended this visit, if it did."""

    def keep(self, give_back: Callable[[], None]) -> None:
        """Call `give_back` when the visit ends; last kept, first given back."""
        with self._lock:
            if not self._closed:
                self._kept.append(give_back)
                return
        give_back()

    def on_abort(self, abort: Callable[[SidecarError], None]) -> None:
        """Call `abort` if the house ends this visit, also if it did already."""
        with self._lock:
            self._abort = abort
            error = self.error
        if error is not None:
            abort(error)

    def abort(self, error: SidecarError) -> None:
        """End the visit from outside; its owner hears of it through `on_abort`, and closes."""
        with self._lock:
            self.error = error
            abort = self._abort
        if abort is not None:
            abort(error)

    @property
    def closed(self) -> bool:
        """True once the visit has ended."""
        return self._closed

    def close(self) -> None:
        """Give everything back. Idempotent."""
        with self._lock:
            self._closed = True
            kept, self._kept = self._kept, []
        for give_back in reversed(kept):
            give_back()
        self._over(self)


class Visits:
    """All requests in the house; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: set[Visit] = set()
        self._empty = threading.Event()
        self._empty.set()
        self.draining = False

    def enter(self) -> Visit:
        """Begin a visit.

        Raises: Unavailable, when the house is closing.
        """
        with self._lock:
            if self.draining:
                raise draining()
            visit = Visit(self._left)
            self._open.add(visit)
            self._empty.clear()
        return visit

    def drain(self, seconds: float) -> bool:
        """Take nobody in any more, wait for those inside, then end them; True if all ended by themselves."""
        with self._lock:
            self.draining = True
        if self._empty.wait(seconds):
            return True
        with self._lock:
            inside = list(self._open)
        for visit in inside:
            visit.abort(draining())
        self._empty.wait(5.0)
        return False

    def _left(self, visit: Visit) -> None:
        with self._lock:
            self._open.discard(visit)
            if not self._open:
                self._empty.set()


def draining() -> Unavailable:
    """Say that this process is closing."""
    return Unavailable("This server is shutting down; send the request again.", code="draining", retry_after=1)
