"""Rate buckets: how many requests one user or one address may send in a window, kept in this process's memory.

A bucket is `api`, `resolve`, `git`, `lfs` or `xet`. A request with a token that this process has seen to be good, or
has given, counts for its user, who gets ten times as many; every other one counts for its address, so that guessing
tokens is limited too. Each process counts for itself: with several workers the limits are per worker.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

WINDOW = 300
"""Seconds of the fixed window."""
USER_FACTOR = 10

_KEYS = 100_000
_KNOWN = 50_000


@dataclass(frozen=True, slots=True)
class Reading:
    """A bucket after one more request: `left` of `quota` in this window, which ends in `seconds`."""

    bucket: str
    quota: int
    left: int
    seconds: int
    refused: bool

    def headers(self) -> tuple[tuple[str, str], ...]:
        """Say it as huggingface_hub reads it; on a refusal also how long to wait."""
        found = (
            ("ratelimit", f'"{self.bucket}";r={self.left};t={self.seconds}'),
            ("ratelimit-policy", f'"fixed window";"{self.bucket}";q={self.quota};w={WINDOW}'),
        )
        return (*found, ("retry-after", str(self.seconds))) if self.refused else found


class Limits:
    """Counts requests. Thread-safe; `quotas` are per address and window, 0 switches a bucket off."""

    def __init__(self, quotas: Mapping[str, int], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._quotas = {bucket: quota for bucket, quota in quotas.items() if quota > 0}
        self._clock = clock
        self._lock = threading.Lock()
        self._window = self._window_now()
        self._counts: OrderedDict[tuple[str, str], int] = OrderedDict()
        self._users: OrderedDict[str, int] = OrderedDict()

    def know(self, fingerprint: str, user_id: int) -> None:
        """Remember whose token this is; the token itself is not kept."""
        with self._lock:
            self._users[fingerprint] = user_id
            self._users.move_to_end(fingerprint)
            while len(self._users) > _KNOWN:
                self._users.popitem(last=False)

    def take(self, bucket: str, address: str, fingerprint: str | None = None) -> Reading | None:
        """Count one request; None if the bucket has no limit."""
        quota = self._quotas.get(bucket)
        if quota is None:
            return None
        with self._lock:
            user = None if fingerprint is None else self._users.get(fingerprint)
            if user is not None:
                quota *= USER_FACTOR
            used = self._count(bucket, f"@{address}" if user is None else str(user))
        left = WINDOW - int(self._clock() % WINDOW)
        return Reading(bucket, quota, max(0, quota - used), left, used > quota)

    def _count(self, bucket: str, key: str) -> int:
        window = self._window_now()
        if window != self._window:
            self._counts.clear()
            self._window = window
        used = self._counts.get((bucket, key), 0) + 1
        self._counts[bucket, key] = used
        # Counters that were not used for longest go first: a flood of addresses costs memory a bound, not an outage.
        self._counts.move_to_end((bucket, key))
        while len(self._counts) > _KEYS:
            self._counts.popitem(last=False)
        return used

    def _window_now(self) -> int:
        return int(self._clock() // WINDOW)
