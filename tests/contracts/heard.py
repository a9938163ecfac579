"""A sink that remembers every event of one request, and can be waited for."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from inference.engine import Collected, Done, Engine, Event, Request, Tokens
from inference.sampling import Numbers

PATIENCE = 60.0


class Heard(Collected):
    """Gathers events; `first` and `over` are set by the first token and the last event."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[Event] = []
        self.first, self.over = threading.Event(), threading.Event()

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        super().__call__(event)
        self.first.set()
        if not isinstance(event, Tokens):
            self.over.set()

    def done(self) -> Done:
        """Wait for the end, which must be a good one."""
        assert self.over.wait(PATIENCE), "the request did not end"
        assert isinstance(self.end, Done), self.end
        return self.end


def ask(
    ids: Iterable[int] = (5, 6, 7), max_new: int = 12, *, numbers: Numbers | None = None, name: str = "r",
    stop_ids: Iterable[int] = (), logprobs: int | None = None,
) -> Request:  # fmt: skip
    """Make a request; greedy unless told otherwise."""
    chosen = numbers or Numbers(temperature=0.0)
    return Request(name, tuple(ids), max_new, chosen, frozenset(stop_ids), logprobs)


def answers(engine: Engine, requests: Iterable[Request]) -> list[Heard]:
    """Submit all at once and wait for all."""
    heard = []
    for request in requests:
        heard.append(Heard())
        engine.submit(request, heard[-1])
    for one in heard:
        one.done()
    return heard
