"""Event streams end with their client: one that leaves or stalls stops the work, once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator

from starlette.types import Message

from inference.routes.sse import EventStream, data, to_json


def _run(
    events: AsyncGenerator[bytes], *, leaves: bool = False, stalls: bool = False
) -> tuple[list[Message], list[bool]]:
    sent: list[Message] = []
    closed: list[bool] = []

    async def main() -> None:
        async def receive() -> Message:
            if not leaves:
                await asyncio.Event().wait()
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            if stalls and message["type"] == "http.response.body":
                await asyncio.Event().wait()
            sent.append(message)

        await EventStream(events, closed.append, stalled=0.05)({"type": "http"}, receive, send)

    asyncio.run(main())
    return sent, closed


async def _two() -> AsyncGenerator[bytes]:
    yield b"one"
    yield b"two"


async def _endless() -> AsyncGenerator[bytes]:
    while True:
        await asyncio.sleep(0)
        yield b"x"


def test_a_stream_is_sent_whole_and_closed_once() -> None:
    sent, closed = _run(_two())
    assert [message.get("body") for message in sent] == [None, b"one", b"two", b""]
    assert closed == [False]


def test_a_client_that_leaves_ends_the_stream() -> None:
    assert _run(_endless(), leaves=True)[1] == [True]


def test_a_client_that_does_not_read_ends_the_stream() -> None:
    assert _run(_endless(), stalls=True)[1] == [True]


def test_events_are_lines_of_compact_json() -> None:
    assert data({"a": "é\n"}, {"b": None}) == 'data: {"a":"é\\n"}\n\ndata: {"b":null}\n\n'.encode()
    assert json.loads(to_json({"a": "\ud800"}))["a"] == "\ud800"
