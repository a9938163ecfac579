"""Bytes in and out, for every door: range, redirect, flow control.

Blocks of 1 MiB cross from a worker thread to the event loop and back; each waits for the other side, so a slow client
holds a block or two and nothing more. Bytes have thread limits of their own: a thousand downloads do not keep a JSON
request waiting.
"""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from anyio import CapacityLimiter, to_thread
from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope, Send

from lfs import http_range
from lfs.errors import Busy, Interrupted, RangeUnsatisfiable
from lfs.grants import brief
from lfs.store import PIECE, ObjectStore, Reader, Signed, Span

T = TypeVar("T")

# A body slower than this, averaged over the time that a transfer is patient, holds a slot that others need.
FLOOR = 1024

IMMUTABLE = "private, max-age=31536000, immutable"


@dataclass(frozen=True, slots=True)
class Outgoing:
    """An object to send: where it lies, its bytes, and its strong ETag, without quotes.

    `headers` come on top of, and win over, the ones that every answer has; names in lower case.
    """

    key: str
    size: int
    etag: str
    headers: Mapping[str, str] = field(default_factory=dict)


class Transfer:
    """Moves bytes between a shelf and clients.

    `threads` bounds downloads that read at one moment, `upload_slots` uploads altogether; with `redirect` a client is
    sent to the shelf itself when that can sign a URL. An upload below 1 KiB/s over `patience` seconds is given up.
    """

    def __init__(
        self,
        *,
        store: ObjectStore,
        threads: int = 40,
        upload_slots: int = 64,
        redirect: bool = True,
        patience: float = 30.0,
    ) -> None:
        self._store, self._redirect, self._patience = store, redirect, patience
        self._readers, self._writers = CapacityLimiter(threads), CapacityLimiter(upload_slots)
        self._slots = upload_slots

    def send(self, item: Outgoing) -> Sender:
        """Return the answer to a GET or HEAD of an object, to be called as an ASGI app.

        Before its first byte it may raise: Missing, Denied, Unavailable.
        """
        return Sender(self._store, item, self._readers, redirect=self._redirect)

    async def receive(self, receive: Receive, work: Callable[[Iterator[bytes]], T]) -> T:
        """Feed a request body to `work`, which runs on a worker thread, and return what it returns.

        `work` gets pieces of about 1 MiB; when the client leaves or stalls, its iterator raises Interrupted.
        Raises: Busy (all slots taken), Interrupted, and whatever `work` raises, at once.
        """
        if not self._slots:
            raise Busy("All upload slots of this server are taken (UPLOAD_SLOTS); try again in a few seconds.")
        self._slots -= 1
        try:
            return await self._received(receive, work)
        finally:
            self._slots += 1

    async def _received(self, receive: Receive, work: Callable[[Iterator[bytes]], T]) -> T:
        feed = _Feed(asyncio.get_running_loop())
        task = asyncio.ensure_future(to_thread.run_sync(work, iter(feed), limiter=self._writers))
        task.add_done_callback(feed.stop)
        try:
            await _pump(_paced(receive, self._patience), feed)
        finally:
            # After a whole body this is never reached by the thread; after anything else it must not wait for more.
            feed.put(Interrupted("The connection closed before the end of the body; send the object again."))
            await asyncio.wait([task])
        return task.result()


class Sender:
    """One object as the answer to one GET or HEAD."""

    def __init__(self, store: ObjectStore, item: Outgoing, threads: CapacityLimiter, *, redirect: bool) -> None:
        self._store, self._item, self._threads, self._redirect = store, item, threads, redirect

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked, etag = Headers(scope=scope), f'"{self._item.etag}"'
        if _has(asked.get("if-none-match"), etag):
            await self._short(send, 304, {})
        elif scope["method"] == "HEAD":
            await self._short(send, 200, {"content-length": str(self._item.size)})
        elif self._redirect and (signed := await self._signed()):
            await _answer(send, 302, {"location": signed.href, "content-length": "0", "cache-control": "no-store"})
        else:
            try:
                pair = http_range.asked(asked.get("range"), self._item.size, if_range=asked.get("if-range"), etag=etag)
            except RangeUnsatisfiable:
                told = {"content-range": http_range.unsatisfied(self._item.size), "content-length": "0"}
                await self._short(send, 416, told)
            else:
                await self._stream(receive, send, Span(*pair) if pair else None)

    async def _signed(self) -> Signed | None:
        sign = partial(self._store.url, self._item.key, "GET", brief(self._item.size), size=self._item.size)
        return await to_thread.run_sync(sign, limiter=self._threads)

    async def _short(self, send: Send, status: int, more: Mapping[str, str]) -> None:
        await _answer(send, status, {**self._headers(), **more})

    async def _stream(self, receive: Receive, send: Send, span: Span | None) -> None:
        reader = await to_thread.run_sync(self._store.open, self._item.key, span, limiter=self._threads)
        more = {"content-length": str(reader.size)}
        if span is not None:
            more["content-range"] = http_range.content_range(span.start, span.end, self._item.size)
        gone = asyncio.ensure_future(_departure(receive))
        try:
            await send(_start(206 if span else 200, {**self._headers(), **more}))
            await self._blocks(send, reader, gone)
        finally:
            gone.cancel()
            reader.close()

    async def _blocks(self, send: Send, reader: Reader, gone: asyncio.Future[None]) -> None:
        left = reader.size
        while left and not gone.done():
            block = await to_thread.run_sync(reader.read, limiter=self._threads)
            left -= len(block)
            await send({"type": "http.response.body", "body": block, "more_body": left > 0})
        if not reader.size:
            await send({"type": "http.response.body", "body": b""})

    def _headers(self) -> dict[str, str]:
        return {
            "content-type": "application/octet-stream",
            "etag": f'"{self._item.etag}"',
            "accept-ranges": "bytes",
            "cache-control": IMMUTABLE,
            "x-content-type-options": "nosniff",
            "content-disposition": "attachment",
            **self._item.headers,
        }


class _Feed:
    """Hands pieces from the event loop to one worker thread, a few at a time."""

    def __init__(self, loop: asyncio.AbstractEventLoop, depth: int = 2) -> None:
        self._loop = loop
        self._room = asyncio.Semaphore(depth)
        self._pieces: queue.SimpleQueue[bytes | Exception | None] = queue.SimpleQueue()
        self.stopped = False

    async def push(self, piece: bytes) -> None:
        """Hand a piece over as soon as the thread has room."""
        await self._room.acquire()
        self._pieces.put(piece)

    def put(self, end: Exception | None) -> None:
        """End the body: None after its last byte, an exception if it will not come."""
        self._pieces.put(end)

    def stop(self, task: asyncio.Future[T]) -> None:
        """Note that the thread takes no more, and wake whoever waits for room."""
        self.stopped = True
        self._room.release()
        # Looked at here as well, so that a cancelled request does not leave an error that nobody asked for.
        if not task.cancelled():
            task.exception()

    def __iter__(self) -> Iterator[bytes]:
        while (piece := self._pieces.get()) is not None:
            if isinstance(piece, Exception):
                raise piece
            yield piece
            self._loop.call_soon_threadsafe(self._room.release)


def _paced(receive: Receive, patience: float) -> Receive:
    """Wrap `receive` so that a client that stalls is an Interrupted; time that our own side takes does not count."""
    loop = asyncio.get_running_loop()
    waited, got = 0.0, 0

    async def paced() -> Message:
        nonlocal waited, got
        began = loop.time()
        try:
            async with asyncio.timeout(patience):
                message = await receive()
        except TimeoutError as error:
            raise Interrupted(f"No bytes came for {patience:g} seconds; send the object again.") from error
        waited, got = waited + loop.time() - began, got + len(message.get("body", b""))
        if waited >= patience:
            if got < FLOOR * waited:
                raise Interrupted(f"Fewer than {FLOOR} bytes a second came; send the object again.")
            waited, got = 0.0, 0
        return message

    return paced


async def _pump(receive: Receive, feed: _Feed) -> None:
    gathered: list[bytes] = []
    size, more = 0, True
    while more and not feed.stopped:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        gathered.append(message.get("body", b""))
        size, more = size + len(gathered[-1]), message.get("more_body", False)
        if size >= PIECE or (size and not more):
            await feed.push(gathered[0] if len(gathered) == 1 else b"".join(gathered))
            gathered, size = [], 0
    if not more:
        feed.put(None)


async def _departure(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _answer(send: Send, status: int, headers: Mapping[str, str]) -> None:
    await send(_start(status, headers))
    await send({"type": "http.response.body", "body": b""})


def _start(status: int, headers: Mapping[str, str]) -> Message:
    raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    return {"type": "http.response.start", "status": status, "headers": raw}


def _has(header: str | None, etag: str) -> bool:
    """Say whether an If-None-Match names the tag, compared weakly (RFC 9110, 13.1.2)."""
    if header is None:
        return False
    return header.strip() == "*" or etag in (tag.strip().removeprefix("W/") for tag in header.split(","))
