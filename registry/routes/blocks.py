"""Blocks of bytes made on worker threads, sent from the event loop.

One hop makes one block and no thread waits for a slow reader: between two hops the generator rests.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

from anyio import CancelScope, CapacityLimiter, to_thread
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

T = TypeVar("T")
_AT_ONCE = 256 << 10
_PATIENCE = 0.25


class Threads:
    """Worker threads for streaming routes; `count` bounds how many work at the same time."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._limiter: CapacityLimiter | None = None

    async def run(self, work: Callable[[], T]) -> T:
        """Run on a worker thread; a caller that is cancelled waits for the work to end."""
        if self._limiter is None:
            # Made here and not in the constructor: a limiter belongs to a running event loop.
            self._limiter = CapacityLimiter(self._count)
        return await to_thread.run_sync(work, limiter=self._limiter)

    async def answer(self, blocks: Iterator[bytes], headers: Mapping[str, str]) -> Response:
        """Answer with blocks: in one piece if they are few, so that a small fetch costs one hop, else as a stream.

        The request's body must have been read to its end.
        """
        first, ended = await self.run(lambda: _some(blocks))
        return Response(first, 200, dict(headers)) if ended else _Stream(self, first, blocks, headers)


class _Stream(Response):
    """Sends blocks while the next one is made, and stops making them when the client has gone."""

    def __init__(self, threads: Threads, first: bytes, blocks: Iterator[bytes], headers: Mapping[str, str]) -> None:
        super().__init__(None, 200, dict(headers))
        del self.headers["content-length"]
        self._threads = threads
        self._first = first
        self._blocks = blocks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send everything, or as much as the client stays for."""
        gone = asyncio.create_task(_left(receive))
        coming: asyncio.Task[bytes | None] | None = None
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            block: bytes | None = self._first
            while block is not None and not gone.done():
                coming = asyncio.create_task(self._threads.run(lambda: next(self._blocks, None)))
                await send({"type": "http.response.body", "body": block, "more_body": True})
                block = await coming
            if block is None:
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            gone.cancel()
            await self._close(coming)

    async def _close(self, coming: asyncio.Task[bytes | None] | None) -> None:
        """Close the generator once it rests: it may not be closed while it runs."""
        with CancelScope(shield=True):
            if coming is not None:
                await asyncio.wait([coming])
                if not coming.cancelled():
                    coming.exception()
            close = getattr(self._blocks, "close", None)
            if close is not None:
                await self._threads.run(close)


async def _left(receive: Receive) -> None:
    """Wait until the client has gone; what else comes is the end of a body that was read already."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _some(blocks: Iterator[bytes]) -> tuple[bytes, bool]:
    """Take blocks until there are many bytes or some time has passed; also say whether they ended."""
    taken: list[bytes] = []
    size, until = 0, time.monotonic() + _PATIENCE
    for block in blocks:
        taken.append(block)
        size += len(block)
        if size >= _AT_ONCE or time.monotonic() >= until:
            return b"".join(taken), False
    return b"".join(taken), True
