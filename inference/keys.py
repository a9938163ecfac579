"""API keys: who asks, and with which token the registry is asked on their behalf."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from inference.errors import InvalidKey

KNOWN_SECONDS = 60.0
"""For how long the registry's yes is believed; a revoked token works no longer than this."""
REFUSED_SECONDS = 10.0
"""For how long the registry's no is believed."""
KEPT = 10_000
"""Answers that are kept."""

Mode = Literal["none", "file", "registry"]


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request; `token` is what the registry is asked with."""

    actor: str
    token: str | None = field(default=None, repr=False)


class Keys:
    """Turns a bearer into a caller; thread-safe. In mode `registry` a new key costs one question to the registry.

    Without a key, mode `registry` gives a caller who may read what the registry shows to everyone. In the other modes
    the sidecar reads the registry with `own_token`, for every caller alike.
    """

    def __init__(
        self,
        mode: Mode,
        *,
        hashes: frozenset[str] = frozenset(),
        whoami: Callable[[str], str] | None = None,
        own_token: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._mode = mode
        self._hashes = hashes
        self._whoami = whoami
        self._own_token = own_token
        self._clock = clock
        self._lock = threading.Lock()
        self._answers: OrderedDict[str, tuple[float, str | None]] = OrderedDict()

    @property
    def personal(self) -> bool:
        """True if callers differ in what they may read."""
        return self._mode == "registry"

    def caller(self, bearer: str | None) -> Caller:
        """Say who sends this bearer.

        Raises: InvalidKey; Unavailable when the registry must be asked and does not answer.
        """
        if self._mode == "none":
            return Caller("local", self._own_token)
        if bearer is None:
            if self._mode == "file":
                raise InvalidKey("This server needs an API key: Authorization: Bearer <key>.")
            return Caller("anonymous")
        digest = hashlib.sha256(bearer.encode()).hexdigest()
        if self._mode == "file":
            # Looking up a hash tells nothing through time that would help to find the key.
            if digest not in self._hashes:
                raise InvalidKey("This API key is not known.")
            return Caller(f"key-{digest[:8]}", self._own_token)
        return Caller(self._registry_name(bearer, digest), bearer)

    def _registry_name(self, bearer: str, digest: str) -> str:
        with self._lock:
            until, name = self._answers.get(digest, (0.0, None))
        if until <= self._clock():
            name = self._ask(bearer)
            seconds = KNOWN_SECONDS if name is not None else REFUSED_SECONDS
            with self._lock:
                self._answers[digest] = (self._clock() + seconds, name)
                self._answers.move_to_end(digest)
                while len(self._answers) > KEPT:
                    self._answers.popitem(last=False)
        if name is None:
            raise InvalidKey("The registry does not know this API key.")
        return name

    def _ask(self, bearer: str) -> str | None:
        assert self._whoami is not None
        try:
            return self._whoami(bearer)
        except InvalidKey:
            return None


def read_hashes(text: str) -> frozenset[str]:
    """Read a key file: one SHA-256 in hex per line, blank lines ignored."""
    return frozenset(line.strip() for line in text.splitlines() if line.strip())
