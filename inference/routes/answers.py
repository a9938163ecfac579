"""A started request's answer: collected into one JSON, or streamed as events."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from inference.errors import DeadlineExceeded, EngineFailed, SidecarError
from inference.generate import Delta, Run
from inference.planning import Ids
from inference.render import Wording
from inference.routes import problems, sse
from inference.routes.front import Record
from inference.sampling import Usage
from inference.shapes.fields import Plain, Sampling
from inference.visits import Visit


@dataclass(frozen=True, slots=True)
class Heading:
    """What every chunk of an answer repeats."""

    id: str
    created: int
    model: str
    fingerprint: str

    def over(self, kind: str) -> Plain:
        """Begin an object of this kind."""
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
        }


class Writer(Protocol):
    """Turns deltas into one endpoint's JSON. One per request, used by one task."""

    def opening(self) -> list[Plain]:
        """Write the chunks that stand before any token."""
        ...

    def chunk(self, delta: Delta) -> list[Plain]:
        """Write the chunks of one delta."""
        ...

    def closing(self, usage: Usage) -> Plain:
        """Write the chunk that counts tokens."""
        ...

    def whole(self, deltas: Sequence[Delta], usage: Usage) -> Plain:
        """Write the answer of a request that is not streamed."""
        ...


@dataclass(frozen=True, slots=True)
class Ask:
    """A checked body, and how its endpoint makes ids of it and JSON of the answer."""

    body: Sampling
    limit: int | None
    """Tokens asked for at most; None: what fits."""
    likeliest: int | None
    rows: int
    param: str
    """The field that holds the prompt."""
    prompts: Callable[[Wording], list[Ids]]
    """May take time, and may refuse."""
    writer: Callable[[Heading, Wording, Sequence[Ids]], Writer]


@dataclass(slots=True)
class Started:
    """A request that an engine has accepted."""

    run: Run
    writer: Writer
    ask: Ask
    record: Record
    bell: asyncio.Event
    until: float


async def collect(started: Started) -> Plain:
    """Wait for the whole answer."""
    deltas: list[Delta] = []
    while not started.run.finished:
        await rung_within(started.bell, started.until - time.monotonic())
        deltas += _taken(started)
        if not started.run.finished and time.monotonic() >= started.until:
            raise late()
    return started.writer.whole(deltas, started.run.usage)


async def events(started: Started, silence: float = sse.SILENCE) -> AsyncGenerator[bytes]:
    """Write a stream; after its first byte an error is an event, and the end without `[DONE]` is its mark."""
    writer, run = started.writer, started.run
    # With a chunk for usage at the end, all others say that they have none.
    unused: Plain = {"usage": None} if started.ask.body.wants_usage else {}
    yield sse.data(*({**chunk, **unused} for chunk in writer.opening()))
    try:
        while not run.finished:
            left = started.until - time.monotonic()
            if left <= 0:
                raise late()
            rung = await rung_within(started.bell, min(left, silence))
            deltas = _taken(started)
            if deltas:
                yield sse.data(*({**chunk, **unused} for delta in deltas for chunk in writer.chunk(delta)))
            elif not rung:
                yield sse.WAIT
    except SidecarError as error:
        started.record.finish = error.code
        yield sse.data(problems.described(error)[1])
        return
    if started.ask.body.wants_usage:
        yield sse.data(writer.closing(run.usage))
    yield sse.END


def stream(started: Started, visit: Visit) -> sse.EventStream:
    """Give the stream of one started request; its end ends the visit."""

    def close(left: bool) -> None:
        started.record.cancelled = left
        visit.close()

    return sse.EventStream(events(started), close)


def _taken(started: Started) -> list[Delta]:
    """Take what is there, and note it in the record."""
    record = started.record
    try:
        deltas = started.run.take()
    except SidecarError:
        raise
    except Exception as error:
        raise EngineFailed("The answer could not be put together.") from error
    finally:
        record.usage = started.run.usage
    if deltas and record.first_token is None:
        record.first_token = time.monotonic()
    for delta in deltas:
        record.finish = delta.finish or record.finish
    return deltas


async def rung_within(bell: asyncio.Event, seconds: float) -> bool:
    """Wait for the bell and silence it; False if it did not ring in time."""
    try:
        async with asyncio.timeout(max(0.0, seconds)):
            await bell.wait()
    except TimeoutError:
        return False
    bell.clear()
    return True


def late() -> DeadlineExceeded:
    """Say that the request's time is over."""
    return DeadlineExceeded("The request's deadline passed (its timeout, or WEIGHTROOM_DEADLINE).")
