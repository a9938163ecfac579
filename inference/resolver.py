"""Which commit a caller's model name means now, and whether this caller may use it.

The registry decides both, asked with the caller's own token. Its answers are kept: the right to a repo for 60 seconds
per token, a name's commit for `refresh_seconds` whoever asked. While the registry is away, whoever had the right keeps
it and names keep their last commit; nobody gains anything.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

from inference.download import Resolved
from inference.errors import ModelAbsent, Unavailable
from inference.names import ModelName, parse

RIGHT_SECONDS = 60.0
AWAY_SECONDS = 10.0
"""After the registry failed to answer, known names are served this long before it is asked again."""
Key = TypeVar("Key")
Value = TypeVar("Value")

KEPT = 10_000
"""Rights and names remembered; the oldest go first."""


class Source(Protocol):
    """Where names are resolved; `Checkouts` in the house."""

    def resolve(self, name: str, token: str | None = None) -> Resolved:
        """Ask which commit a name means for the owner of a token."""
        ...


class Shelf(Source, Protocol):
    """Where commits are checked out, for the pool."""

    def pin(self, repo: str, sha: str, token: str | None = None) -> Path:
        """Check a commit out, and keep it until `release`."""
        ...

    def release(self, sha: str) -> None:
        """Say that what one `pin` gave is not used any more."""
        ...

    def own_token(self) -> str | None:
        """Give the sidecar's own read token."""
        ...


@dataclass(slots=True)
class _Known:
    resolved: Resolved
    asked_at: float


@dataclass(slots=True)
class _Flight:
    lock: threading.Lock = field(default_factory=threading.Lock)
    waiting: int = 0


class Resolver:
    """Resolves names for callers; thread-safe, one question at a time per name and token."""

    def __init__(self, source: Source, refresh_seconds: float = 2.0, clock: Callable[[], float] = time.monotonic):
        self._source = source
        self._refresh = refresh_seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._rights: OrderedDict[tuple[str, str], float] = OrderedDict()
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._flights: dict[tuple[str, str], _Flight] = {}

    def resolve(self, text: str, token: str | None) -> Resolved:
        """Say which commit `text` means for the owner of `token`; None is nobody in particular.

        Raises: ModelAbsent, Unavailable (`registry_unavailable`, and no earlier answer may stand in).
        """
        name = parse(text)
        owner = _hash(token)
        found = self._recall(name, text, owner)
        if found is not None:
            return found
        flight = self._board((owner, text))
        try:
            with flight.lock:
                return self._recall(name, text, owner) or self._ask(name, text, token, owner)
        finally:
            self._leave((owner, text), flight)

    def _recall(self, name: ModelName, text: str, owner: str) -> Resolved | None:
        now = self._clock()
        with self._lock:
            granted = self._rights.get((owner, name.repo))
            known = self._known.get(text)
        if granted is None or known is None or now - granted >= RIGHT_SECONDS:
            return None
        is_fresh = name.is_fixed or now - known.asked_at < self._refresh
        return known.resolved if is_fresh else None

    def _ask(self, name: ModelName, text: str, token: str | None, owner: str) -> Resolved:
        right = (owner, name.repo)
        try:
            resolved = self._source.resolve(text, token)
        except ModelAbsent:
            with self._lock:
                # A name that is gone says nothing of the right to the rest of the repo, but asking again is cheap.
                self._rights.pop(right, None)
            raise
        except Unavailable:
            former = self._stand_in(text, right)
            if former is None:
                raise
            return former
        with self._lock:
            now = self._clock()
            _keep(self._rights, right, now)
            _keep(self._known, text, _Known(resolved, now))
        return resolved

    def _stand_in(self, text: str, right: tuple[str, str]) -> Resolved | None:
        """Answer for a registry that is away, to those it said yes to before."""
        with self._lock:
            known = self._known.get(text)
            if right not in self._rights or known is None:
                return None
            now = self._clock()
            self._rights[right] = now - RIGHT_SECONDS + AWAY_SECONDS
            known.asked_at = now - self._refresh + AWAY_SECONDS
            return known.resolved

    def _board(self, key: tuple[str, str]) -> _Flight:
        with self._lock:
            flight = self._flights.setdefault(key, _Flight())
            flight.waiting += 1
            return flight

    def _leave(self, key: tuple[str, str], flight: _Flight) -> None:
        with self._lock:
            flight.waiting -= 1
            if not flight.waiting:
                self._flights.pop(key, None)


def _hash(token: str | None) -> str:
    """Name a token without keeping it; nobody in particular has a name that no digest has."""
    return "" if token is None else hashlib.sha256(token.encode()).hexdigest()


def _keep(kept: OrderedDict[Key, Value], key: Key, value: Value) -> None:
    kept[key] = value
    kept.move_to_end(key)
    while len(kept) > KEPT:
        kept.popitem(last=False)
