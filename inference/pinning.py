"""Pinned models: loaded at start, in the background, and asked for again until the registry gives them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

from inference.errors import SidecarError

log = logging.getLogger(__name__)

AGAIN_SECONDS = 2.0
"""Between two attempts; the registry may start after us, and a model may be pushed, or mended, later."""


class Pins:
    """Pins names, one after the other, until all are loaded; `/ready` names those that are missing.

    `pin` says whether a name is loaded by now, or raises why not.
    """

    def __init__(self, names: Sequence[str], pin: Callable[[str], bool], *, again: float = AGAIN_SECONDS):
        self._names = tuple(names)
        self._pin = pin
        self._again = again
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._work, name="pins", daemon=True)

    def start(self) -> None:
        """Begin, in a thread."""
        self._thread.start()

    def close(self) -> None:
        """Give up what is not pinned yet. Idempotent."""
        self._closed.set()

    def _work(self) -> None:
        missing = list(self._names)
        told: dict[str, str] = {}
        while missing and not self._closed.is_set():
            missing = [name for name in missing if not self._pinned(name, told)]
            if missing:
                self._closed.wait(self._again)

    def _pinned(self, name: str, told: dict[str, str]) -> bool:
        """Try once; say so in the log when the reason of a failure is new."""
        try:
            return self._pin(name)
        except SidecarError as error:
            if told.get(name) != error.message:
                log.warning("cannot load %s yet: %s", name, error.message)
            told[name] = error.message
            return False
