"""Server-sent events: lines on the wire, until the end, an error, or the client's leaving."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from starlette.types import Receive, Scope, Send

from inference.shapes.fields import Plain

SILENCE = 15.0
"""Seconds without an event after which a comment tells proxies that we are alive."""
STALLED = 30.0
"""Seconds that one write may wait for a slow client; uvicorn buffers 64 KiB before a write waits at all."""
WAIT = b": wait\n\n"
END = b"data: [DONE]\n\n"


def data(*values: Plain) -> bytes:
    """Write events, each with one JSON text."""
    return b"".join(b"data: " + to_json(value) + b"\n\n" for value in values)


def to_json(value: Plain) -> bytes:
    """Write compact JSON as UTF-8; a lone surrogate is escaped rather than refused."""
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":")).encode()


class EventStream:
    """An ASGI response that sends what `events` gives and stops it when the client leaves or stalls.

    `close(left)` is called exactly once, at the end, whatever the end is; `left` says if the client did not wait.
    """

    def __init__(
        self,
        events: AsyncGenerator[bytes],
        close: Callable[[bool], None],
        *,
        stalled: float = STALLED,
    ):
        self._events = events
        self._close = close
        self._stalled = stalled

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream."""
        writing = asyncio.create_task(self._write(send))
        leaving = asyncio.create_task(gone(receive))
        try:
            await asyncio.wait({writing, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            left = not writing.done()
            for task in (writing, leaving):
                task.cancel()
            results = await asyncio.gather(writing, leaving, return_exceptions=True)
            stalled = isinstance(results[0], TimeoutError | OSError)
            self._close(left or stalled)
        if isinstance(results[0], Exception) and not stalled:
            raise results[0]

    async def _write(self, send: Send) -> None:
        headers = [
            (b"content-type", b"text/event-stream; charset=utf-8"),
            (b"cache-control", b"no-store"),
            (b"x-accel-buffering", b"no"),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        async with aclosing(self._events) as events:
            async for piece in events:
                part = {"type": "http.response.body", "body": piece, "more_body": True}
                # Not `wait_for`: in Python 3.11 it loses a cancellation that arrives as the write completes.
                async with asyncio.timeout(self._stalled):
                    await send(part)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def gone(receive: Receive) -> None:
    """Return when the client has left; what else it may send is read and dropped."""
    while (await receive())["type"] != "http.disconnect":
        pass
