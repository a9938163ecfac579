"""Work on repos that nobody waits for: one thread, each repo at most once in line."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable

from lfs.errors import LfsError
from registry.errors import RegistryError

log = logging.getLogger(__name__)


class Background:
    """Does `work(repo_id, stopping=…)` for every repo it is told of, one after the other. Thread-safe.

    A failure goes to the log and no further; whoever tells is never held up. The thread starts with the first repo
    and does not keep a process from ending: work must bear being cut off at any point.
    """

    def __init__(self, name: str, work: Callable[..., object]) -> None:
        self._name = name
        self._work = work
        self._line: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._waiting: set[int] = set()
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def tell(self, repo_id: int) -> None:
        """Put a repo in line, unless it waits there or the server is stopping."""
        with self._lock:
            if repo_id in self._waiting or self._stopping.is_set():
                return
            self._waiting.add(repo_id)
            self._line.put(repo_id)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()

    def close(self, *, patience: float = 5.0) -> None:
        """Drop what waits, and give what runs `patience` seconds to end; may be repeated."""
        with self._lock:
            self._stopping.set()
            self._line.put(None)
            thread = self._thread
        if thread is not None:
            thread.join(patience)

    def _run(self) -> None:
        while (repo_id := self._line.get()) is not None and not self._stopping.is_set():
            with self._lock:
                # Before the work begins: what changes during it is looked at again.
                self._waiting.discard(repo_id)
            self._do(repo_id)

    def _do(self, repo_id: int) -> None:
        try:
            self._work(repo_id, stopping=self._stopping.is_set)
        except (RegistryError, LfsError) as error:
            log.warning("%s: repo %d was left as it is: %s", self._name, repo_id, error.message)
        except Exception:
            log.exception("%s: repo %d was left as it is", self._name, repo_id)
