"""One request from prompts to deltas: rows go into an engine, text comes out, in pieces as large as the reader is slow.

    engine's thread ── Run.__call__(event) ──▶ mailbox ── wake() ──▶ reader: Run.take() ── deltas

The sink only files the event and rings once; decoding, stop strings and log-probabilities are the reader's work. A
reader that stays away finds everything merged into one delta for each choice.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from inference.engine import Done, Engine, Event, Failed, Request, Ticket, Tokens
from inference.errors import SidecarError
from inference.parse import Cutter
from inference.render import Wording
from inference.sampling import Numbers, Usage

Finish = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class Row:
    """One choice to generate; `prompt` numbers the prompts of a request, so that each is counted once."""

    prompt: int
    ids: tuple[int, ...]
    max_new: int
    numbers: Numbers
    min_new: int = 0
    """Tokens before which neither a stop string nor a stop id ends the answer."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a request asks of an engine, checked against the model."""

    rows: tuple[Row, ...]
    stops: tuple[str, ...] = ()
    stop_ids: frozenset[int] = frozenset()
    logprobs: int | None = None


@dataclass(frozen=True, slots=True)
class Scored:
    """A shown token with its log-probability, and the likeliest ones at its place, best first."""

    id: int
    logprob: float
    top: tuple[tuple[int, float], ...]
    at: int
    """Where in the choice's text the token begins, in characters."""


@dataclass(frozen=True, slots=True)
class Delta:
    """What is new in one choice; `finish` stands in its last delta."""

    index: int
    text: str
    scored: tuple[Scored, ...] = ()
    finish: Finish | None = None


class Choice:
    """One answer as it grows: ids → text, cut at stop strings, log-probabilities beside the text they belong to."""

    def __init__(self, index: int, row: Row, plan: Plan, wording: Wording):
        self._index = index
        self._least = row.min_new
        self._wants_scores = plan.logprobs is not None
        self._decoding = wording.decoding(row.ids)
        self._cutter = Cutter(plan.stops)
        self._waiting: deque[tuple[Scored, int]] = deque()
        self._decoded = 0
        self._shown = 0
        self.tokens = 0
        self.cached = 0
        self.finish: Finish | None = None

    def ended(self) -> bool:
        """Say whether the last delta was read."""
        return self.finish is not None

    def read(self, events: Sequence[Tokens | Done]) -> Delta | None:
        """Take what came since the last time; None when nothing of it can be shown yet."""
        text = ""
        for event in events:
            if self.ended():
                break
            if isinstance(event, Tokens):
                text += self._tokens(event)
            else:
                text += self._end(event)
        self._shown += len(text)
        scored = tuple(self._released())
        if not text and not scored and not self.ended():
            return None
        return Delta(self._index, text, scored, self.finish)

    def _tokens(self, event: Tokens) -> str:
        shown = ""
        for place, id_ in enumerate(event.ids):
            self.tokens += 1
            piece = self._decoding.feed(id_)
            if self._wants_scores:
                top = event.top[place].entries if event.top else ()
                scored = Scored(id_, event.logprobs[place], top, self._decoded)
                self._waiting.append((scored, self._decoded + len(piece)))
            self._decoded += len(piece)
            shown += piece if self.tokens <= self._least else self._cutter.feed(piece)
            if self._cutter.stopped:
                self.finish = "stop"
                break
        return shown

    def _end(self, event: Done) -> str:
        self.tokens = max(self.tokens, event.usage.completion)
        self.cached = event.usage.cached
        shown = self._cutter.feed(self._decoding.rest())
        shown += self._cutter.rest()
        self.finish = "length" if event.reason == "length" and not self._cutter.stopped else "stop"
        return shown

    def _released(self) -> list[Scored]:
        """Give the scores of tokens that are shown; at the end all but those that a stop string cut off."""
        ready = []
        ended = self.ended()
        while self._waiting:
            scored, end = self._waiting[0]
            cut = self._cutter.stopped and scored.at >= self._shown
            if cut or (end > self._shown and not ended):
                break
            ready.append(scored)
            self._waiting.popleft()
        return ready


class Run:
    """The rows of one request inside an engine. `take` belongs to one reader, all else to any thread."""

    def __init__(self, *, id_: str, engine: Engine, wording: Wording, plan: Plan, wake: Callable[[], None]):
        self._id = id_
        self._engine = engine
        self._plan = plan
        self._wake = wake
        self._lock = threading.Lock()
        self._mail: deque[tuple[int, Event]] = deque()
        self._tickets: dict[int, Ticket] = {}
        self._over = False
        self._choices = [Choice(index, row, plan, wording) for index, row in enumerate(plan.rows)]

    def start(self) -> None:
        """Hand all rows to the engine, or none.

        Raises: EngineFull, Unavailable, InvalidRequest; the rows that were in already are cancelled.
        """
        for index, row in enumerate(self._plan.rows):
            request = Request(
                id=f"{self._id}-{index}",
                ids=row.ids,
                max_new=row.max_new,
                numbers=row.numbers,
                stop_ids=self._plan.stop_ids,
                min_new=row.min_new,
                logprobs=self._plan.logprobs,
            )
            try:
                ticket = self._engine.submit(request, partial(self._file, index))
            except SidecarError:
                self.cancel()
                raise
            with self._lock:
                self._tickets[index] = ticket
                late = self._over
            if late:
                self._engine.cancel(ticket)

    def take(self) -> list[Delta]:
        """Give what came since the last time, at most one delta for each choice.

        Raises: the error of a row that failed, after cancelling the others.
        """
        with self._lock:
            mail = list(self._mail)
            self._mail.clear()
        grouped: dict[int, list[Tokens | Done]] = {}
        for index, event in mail:
            if isinstance(event, Failed):
                self.cancel()
                raise event.error
            grouped.setdefault(index, []).append(event)
        deltas = []
        for index, events in grouped.items():
            choice = self._choices[index]
            if choice.ended():
                continue
            delta = choice.read(events)
            if delta is not None:
                deltas.append(delta)
            if choice.ended():
                self._let_go(index)
        return deltas

    @property
    def finished(self) -> bool:
        """True when every choice has its last delta."""
        return all(choice.ended() for choice in self._choices)

    @property
    def usage(self) -> Usage:
        """Count what was read and generated; equal prompts of several choices count once."""
        prompts = {row.prompt: len(row.ids) for row in self._plan.rows}
        return Usage(
            prompt=sum(prompts.values()),
            completion=sum(choice.tokens for choice in self._choices),
            cached=min(sum(prompts.values()), sum(self._cached().values())),
        )

    def fail(self, error: SidecarError) -> None:
        """End the request from outside: the reader's next `take` raises `error`."""
        self._file(0, Failed(error))

    def cancel(self) -> None:
        """Take every row out of the engine. Idempotent."""
        with self._lock:
            self._over = True
            tickets = list(self._tickets.values())
            self._tickets.clear()
        for ticket in tickets:
            self._engine.cancel(ticket)

    def _cached(self) -> dict[int, int]:
        cached: dict[int, int] = {}
        for row, choice in zip(self._plan.rows, self._choices, strict=True):
            cached[row.prompt] = max(cached.get(row.prompt, 0), choice.cached)
        return cached

    def _let_go(self, index: int) -> None:
        """Forget a finished row; the engine may still be at work on one that a stop string cut."""
        with self._lock:
            ticket = self._tickets.pop(index, None)
        if ticket is not None:
            self._engine.cancel(ticket)

    def _file(self, index: int, event: Event) -> None:
        """Take an event in the engine's thread; ring only for the first since the reader's last visit."""
        with self._lock:
            first = not self._mail
            self._mail.append((index, event))
        if first:
            self._wake()
