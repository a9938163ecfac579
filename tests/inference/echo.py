"""An engine and a pool without a model: answers are the prompt again, or what a test says, one token at a time."""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from inference.engine import Done, Engine, Failed, Info, Request, Sink, Stats, Ticket, Tokens
from inference.errors import EngineFailed, EngineFull, ModelAbsent, Unavailable
from inference.sampling import Top, Usage


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


@dataclass(frozen=True)
class EchoState:
    name: str
    repo: str
    sha: str
    state: str = "ready"
    pinned: bool = True
    bytes: int = 1000
    context: int = 512


@dataclass
class EchoLease:
    repo: str
    sha: str
    path: Path
    engine: Engine
    pool: EchoPool

    def __enter__(self) -> EchoLease:
        with self.pool.lock:
            self.pool.held += 1
        return self

    def __exit__(self, *_: object) -> None:
        with self.pool.lock:
            self.pool.held -= 1


@dataclass
class EchoPool:
    """One model, `acme/echo`; `private` ones are lent only to the token that owns them."""

    engine: Engine
    path: Path
    sha: str = "c0ffee" + "0" * 34
    private: str | None = None
    held: int = 0
    tokens: list[str | None] = field(default_factory=list)
    loading: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.loading.set()

    def lease(self, name: str, token: str | None) -> EchoLease:
        self.tokens.append(token)
        if name.partition("@")[0] != "acme/echo" or (self.private is not None and token != self.private):
            raise ModelAbsent(f"The model {name!r} does not exist.", param="model")
        self.loading.wait(30)
        return EchoLease("acme/echo", self.sha, self.path, self.engine, self)

    def states(self) -> list[EchoState]:
        return [EchoState("acme/echo", "acme/echo", self.sha)]


def wait_until(true: object, seconds: float = 10.0) -> None:
    """Wait for a condition, given as a function without arguments; fail when it does not come."""
    assert callable(true)
    until = time.monotonic() + seconds
    while not true():
        if time.monotonic() > until or math.isnan(seconds):
            raise AssertionError(f"{true} did not become true in {seconds} s")
        threading.Event().wait(0.01)
