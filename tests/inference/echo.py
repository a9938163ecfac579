"""An engine without a model: it says the prompt again, or what a test scripts, one token at a time; and its shelf."""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from inference.download import Resolved
from inference.engine import Done, Failed, Info, Request, Sink, Stats, Ticket, Tokens
from inference.errors import EngineFailed, EngineFull, InvalidKey, ModelAbsent, Unavailable
from inference.names import parse
from inference.origin import Origin
from inference.pool import Pool
from inference.sampling import Top, Usage

SHA = "c0ffee" + "0" * 34


@dataclass
class _Live:
    request: Request
    sink: Sink
    given: int = 0
    cancelled: bool = False


class EchoEngine:
    """Gives the prompt's ids round and round, or a script's; with a temperature it draws ids by the seed.

    One thread steps all requests, one token each; `pace` is seconds a step. `gate` holds the steps while it is clear.
    """

    def __init__(
        self, *, script: Sequence[int] = (), context: int = 512, vocab: int = 512, pace: float = 0.0,
        capacity: int = 64, fail_after: int | None = None,
    ):  # fmt: skip
        self._script = tuple(script)
        self._info = Info(context, vocab, frozenset({"generate"}), 1000, "echo fp32")
        self._pace = pace
        self._capacity = capacity
        self._fail_after = fail_after
        self._live: dict[str, _Live] = {}
        self._turn = threading.Condition()
        self._closed = False
        self.gate = threading.Event()
        self.gate.set()
        self.seen: list[Request] = []
        self.cancelled: list[str] = []
        self._thread = threading.Thread(target=self._loop, name="echo")
        self._thread.start()

    def info(self) -> Info:
        return self._info

    def submit(self, request: Request, sink: Sink) -> Ticket:
        with self._turn:
            if self._closed:
                raise Unavailable("closed")
            if len(self._live) >= self._capacity:
                raise EngineFull("The engine is full.", retry_after=3)
            self.seen.append(request)
            self._live[request.id] = _Live(request, sink)
            self._turn.notify()
        return Ticket(request.id)

    def cancel(self, ticket: Ticket) -> None:
        with self._turn:
            live = self._live.get(ticket.id)
            if live is not None and not live.cancelled:
                live.cancelled = True
                self.cancelled.append(ticket.id)
            self._turn.notify()

    def stats(self) -> Stats:
        with self._turn:
            return Stats(running=len(self._live))

    def drain(self, deadline: float) -> bool:
        return True

    def close(self) -> None:
        with self._turn:
            self._closed = True
            self._turn.notify()
        self.gate.set()
        self._thread.join(10)

    def _loop(self) -> None:
        while True:
            with self._turn:
                self._turn.wait_for(lambda: self._live or self._closed)
                if self._closed:
                    return
                live = list(self._live.values())
            if not any(each.cancelled for each in live):
                self.gate.wait()
            if self._pace:
                time.sleep(self._pace)
            for each in live:
                self._step(each)

    def _step(self, live: _Live) -> None:
        request = live.request
        if live.cancelled:
            return self._end(live, Done("cancelled", self._usage(live)))
        if self._fail_after is not None and live.given >= self._fail_after:
            return self._end(live, Failed(EngineFailed("The engine broke.")))
        id_ = self._next(live)
        if id_ in request.stop_ids:
            return self._end(live, Done("stop", self._usage(live)))
        live.given += 1
        live.sink(self._token(request, id_))
        if live.given >= request.max_new:
            self._end(live, Done("length", self._usage(live)))
        return None

    def _next(self, live: _Live) -> int:
        numbers = live.request.numbers
        bias = dict(numbers.bias)
        if bias and max(bias.values()) >= 50:
            return max(bias, key=lambda id_: bias[id_])
        if numbers.temperature > 0 and not self._script:
            return random.Random(numbers.seed * 1000 + live.given).randrange(40, 100)
        source = self._script or live.request.ids
        return source[live.given % len(source)]

    def _token(self, request: Request, id_: int) -> Tokens:
        if request.logprobs is None:
            return Tokens((id_,))
        others = tuple((id_ + place, -0.5 - place) for place in range(request.logprobs))
        return Tokens((id_,), (-0.5,), (Top(others),))

    def _usage(self, live: _Live) -> Usage:
        return Usage(prompt=len(live.request.ids), completion=live.given)

    def _end(self, live: _Live, event: Done | Failed) -> None:
        with self._turn:
            self._live.pop(live.request.id, None)
        live.sink(event)


@dataclass
class EchoShelf:
    """Where the pool finds its one model, `acme/echo`; a `private` one shows itself only to the token that owns it."""

    path: Path
    sha: str = SHA
    private: str | None = None
    tokens: list[str | None] = field(default_factory=list)

    def resolve(self, name: str, token: str | None = None) -> Resolved:
        self.tokens.append(token)
        asked = parse(name)
        if asked.repo != "acme/echo" or (self.private is not None and token != self.private):
            raise ModelAbsent(f"The model {name!r} does not exist.", param="model")
        return Resolved(asked.repo, asked.revision, self.sha)

    def pin(self, repo: str, sha: str, token: str | None = None) -> Path:
        return self.path

    def release(self, sha: str) -> None: ...

    def own_token(self) -> str | None:
        return None


class EchoOrigin(Origin):
    """A registry that is not asked over HTTP."""

    def __init__(self, names: Sequence[str] = (), tokens: dict[str, str] | None = None):
        super().__init__("http://127.0.0.1:9")
        self._names = list(names)
        self._tokens = tokens or {}
        self.asked = 0

    def whoami(self, token: str) -> str:
        self.asked += 1
        if token not in self._tokens:
            raise InvalidKey("The registry does not know this API key.")
        return self._tokens[token]

    def models(self, token: str | None, *, limit: int = 1000) -> list[str]:
        return self._names


def held(pool: Pool) -> int:
    """Count the leases that are out."""
    return sum(state.leases for state in pool.states())


def wait_until(true: object, seconds: float = 10.0) -> None:
    """Wait for a condition, given as a function without arguments; fail when it does not come."""
    assert callable(true)
    until = time.monotonic() + seconds
    while not true():
        if time.monotonic() > until or math.isnan(seconds):
            raise AssertionError(f"{true} did not become true in {seconds} s")
        threading.Event().wait(0.01)
