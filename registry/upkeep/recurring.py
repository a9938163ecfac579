"""Work that comes round: one thread that does it at the start and then every so often."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from lfs.errors import LfsError
from registry.errors import RegistryError

log = logging.getLogger(__name__)


class Recurring:
    """Calls `work` at once and then every `seconds`, until it is closed.

    A failure goes to the log and no further. The thread does not keep a process from ending: work must bear being cut
    off at any point.
    """

    def __init__(self, name: str, work: Callable[[], object], *, seconds: float) -> None:
        self._name = name
        self._work = work
        self._seconds = seconds
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self, *, patience: float = 5.0) -> None:
        """End, and give what runs `patience` seconds; may be repeated, and before `start`."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(patience)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._work()
            except (RegistryError, LfsError) as error:
                log.warning("%s: will be tried again: %s", self._name, error.message)
            except Exception:
                log.exception("%s: will be tried again", self._name)
            self._stopping.wait(self._seconds)
