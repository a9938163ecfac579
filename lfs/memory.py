"""Values that never change, made once and kept under a budget of bytes.

Only for what a hash names: a pinned commit's listing, a small file, a card. Nothing that may change belongs here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Generic, TypeVar

from lfs.recent import Recent

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Memory(Generic[K, V]):
    """Keeps values, least recently used first out; threads that ask for the same missing value wait for one maker."""

    def __init__(self, budget: int, cost: Callable[[V], int], *, largest: int | None = None) -> None:
        """Keep values whose costs add up to `budget` bytes, none above `largest`; `cost` estimates what one takes."""
        self._kept: Recent[K, V] = Recent(budget, largest=largest)
        self._cost = cost
        self._making: dict[K, Future[V]] = {}
        self._lock = threading.Lock()

    def peek(self, key: K) -> V | None:
        """Give the value if it is kept."""
        return self._kept.get(key)

    def get(self, key: K, make: Callable[[], V]) -> V:
        """Give the value, making it if needed; a failure reaches everybody who waited and is not remembered.

        Raises: what `make` raises.
        """
        kept = self._kept.get(key)
        if kept is not None:
            return kept
        with self._lock:
            # Looked at again: it may have been made between the first look and the lock.
            kept = self._kept.get(key)
            if kept is not None:
                return kept
            waiting = self._making.get(key)
            if waiting is None:
                mine: Future[V] = Future()
                self._making[key] = mine
        if waiting is not None:
            return waiting.result()
        return self._make(key, make, mine)

    def replace(self, key: K, value: V) -> None:
        """Put a value in the place of one that is kept; else do nothing."""
        self._kept.replace(key, value, self._cost(value))

    def _make(self, key: K, make: Callable[[], V], mine: Future[V]) -> V:
        try:
            value = make()
            self._kept.keep(key, value, self._cost(value))
        except BaseException as error:
            # Whatever went wrong, also in keeping: those who wait would else wait for ever.
            mine.set_exception(error)
            raise
        else:
            mine.set_result(value)
            return value
        finally:
            with self._lock:
                del self._making[key]
