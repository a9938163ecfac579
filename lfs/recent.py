"""Recently used values under a budget of bytes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Recent(Generic[K, V]):
    """Keeps values with a stated cost, least recently used first out. Thread-safe.

    A value that costs more than a sixteenth of the budget, or `largest`, is not kept: one giant must not empty the
    cache.
    """

    def __init__(self, budget: int, *, largest: int | None = None) -> None:
        self._budget = budget
        self._largest = budget // 16 if largest is None else largest
        self._used = 0
        self._kept: OrderedDict[K, tuple[V, int]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: K) -> V | None:
        """Give the value kept for a key, if any."""
        with self._lock:
            found = self._kept.get(key)
            if found is None:
                return None
            self._kept.move_to_end(key)
            return found[0]

    def keep(self, key: K, value: V, cost: int) -> None:
        """Keep a value; the one kept first for a key stays."""
        if cost > self._largest:
            return
        with self._lock:
            if key in self._kept:
                return
            self._kept[key] = value, cost
            self._used += cost
            while self._used > self._budget:
                self._used -= self._kept.popitem(last=False)[1][1]

    def replace(self, key: K, value: V, cost: int) -> None:
        """Put a value in the place of one that is kept; else do nothing."""
        with self._lock:
            found = self._kept.pop(key, None)
            if found is not None:
                self._used -= found[1]
        if found is not None:
            self.keep(key, value, cost)
