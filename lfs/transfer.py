"""Bytes in and out, for every door: range, redirect, flow control.

Blocks of 1 MiB cross from a worker thread to the event loop and back; each waits for the other side, so a slow client
holds a block or two and nothing more. Bytes have thread limits of their own: a thousand downloads do not keep a JSON
request waiting. What lies in a file is handed to the server as a file where that can send one (ASGI's zero copy send).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from anyio import CapacityLimiter, to_thread
from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope, Send

from lfs import http_range, intake
from lfs.company import Company
from lfs.errors import Busy, Damaged, Missing, RangeUnsatisfiable
from lfs.grants import brief
from lfs.intake import Taken
from lfs.store import PIECE, Descriptor, ObjectStore, Reader, Signed, Span

T = TypeVar("T")
Asked = TypeVar("Asked")
Answer = TypeVar("Answer")

# What one message of the extension hands over at a time, in bytes.
ZERO_COPY, LARGE = "http.response.zerocopysend", 16 * PIECE

IMMUTABLE = "private, max-age=31536000, immutable"


@dataclass(frozen=True, slots=True)
class Outgoing:
    """An object to send: where it lies, its bytes, and its strong ETag, without quotes.

    `headers` come on top of, and win over, the ones that every answer has; names in lower case. `elsewhere` says once
    more where it lies, empty if nowhere: asked if it has left `key` by the time that it is opened.
    """

    key: str
    size: int
    etag: str
    headers: Mapping[str, str] = field(default_factory=dict)
    elsewhere: Callable[[], str] = str


class Transfer:
    """Moves bytes between a shelf and clients.

    `threads` bounds downloads that read at one moment, `upload_slots` uploads altogether, and once more as many that
    wait for their turn; with `redirect` a client is sent to the shelf itself when that can sign a URL. An upload below
    1 KiB/s over `patience` seconds is given up.
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
        self._threads = threads
        self._readers, self._writers = CapacityLimiter(threads), CapacityLimiter(upload_slots)
        self._patient = CapacityLimiter(upload_slots)
        self._slots = upload_slots

    def send(self, item: Outgoing, *, redirect: bool = True) -> Sender:
        """Return the answer to a GET or HEAD of an object, to be called as an ASGI app.

        Without `redirect` the bytes pass through us in any case.
        Before its first byte it may raise: Missing, Denied, Unavailable.
        """
        return Sender(self._store, item, self._readers, redirect=redirect and self._redirect)

    def arrivals(self, work: Callable[[Sequence[Asked]], Sequence[Answer | Exception]]) -> Company[Asked, Answer]:
        """Return a way to worker threads for what comes whole; one thread where a put waits for nothing but them."""
        return Company(work, threads=self._slots if self._store.waits else 1)

    def departures(self, work: Callable[[Sequence[Asked]], Sequence[Answer | Exception]]) -> Company[Asked, Answer]:
        """Return a way to worker threads for objects that are to be looked up and opened."""
        return Company(work, threads=self._threads)

    async def receive(
        self,
        receive: Receive,
        work: Callable[[Iterable[bytes]], T],
        *,
        shed: bool = True,
        whole: Callable[[bytes], Awaitable[T]] | None = None,
    ) -> T:
        """Feed a request body to `work`, which runs on a worker thread, and return what it returns.

        A body that is one piece goes to `whole` instead, if that is given.

        `work` gets pieces of about 1 MiB, once; when the client leaves or stalls, they end with Interrupted. Without
        `shed`, for clients that do not come back, a body for which there is no thread waits for one.
        Raises: Busy (all slots taken), Interrupted, and whatever `work` raises, at once.
        """
        if not shed:
            return await self._received(receive, work, self._patient, whole)
        if not self._slots:
            raise Busy("All upload slots of this server are taken (UPLOAD_SLOTS); try again in a few seconds.")
        self._slots -= 1
        try:
            return await self._received(receive, work, self._writers, whole)
        finally:
            self._slots += 1

    async def _received(
        self,
        receive: Receive,
        work: Callable[[Iterable[bytes]], T],
        threads: CapacityLimiter,
        whole: Callable[[bytes], Awaitable[T]] | None,
    ) -> T:
        body = intake.taken(receive)
        if body is not None:
            return await self._direct(body, work, threads)
        paced = intake.paced(receive, self._patience)
        first = await intake.gather(paced)
        if whole is not None and not first.more and not first.cut:
            return await whole(first.data)
        if not first.more:
            # Most objects of a push of many: one way to a thread and back, and no thread that waits for a client.
            return await to_thread.run_sync(work, first.body(), limiter=threads)
        feed = intake.Feed(asyncio.get_running_loop())
        task = asyncio.ensure_future(to_thread.run_sync(work, iter(feed), limiter=threads))
        task.add_done_callback(feed.stop)
        try:
            await intake.pump(first, paced, feed)
        finally:
            # After a whole body this is never reached by the thread; after anything else it must not wait for more.
            feed.put(intake.interrupted())
            await asyncio.wait([task])
        return task.result()

    async def _direct(self, body: Taken, work: Callable[[Iterable[bytes]], T], threads: CapacityLimiter) -> T:
        source = intake.Direct(body, self._patience)
        task = asyncio.ensure_future(to_thread.run_sync(work, iter(source), limiter=threads))
        try:
            await asyncio.wait([task])
        finally:
            # Done, unless this request is cancelled: then the thread must not wait for a client any more.
            source.stop()
            await asyncio.wait([task])
            body.give_back()
        return task.result()


@dataclass(frozen=True, slots=True)
class _Opened:
    """An object that is open for one answer, the span of it that was asked for, and its bytes if they are few."""

    reader: Reader
    span: Span | None
    first: bytes


_Found = Signed | _Opened | RangeUnsatisfiable


class Sender:
    """One object as the answer to one GET or HEAD.

    Who is on a thread already may `open` it there; else its call takes a way to one.
    """

    def __init__(self, store: ObjectStore, item: Outgoing, threads: CapacityLimiter, *, redirect: bool) -> None:
        self._store, self._item, self._threads, self._redirect = store, item, threads, redirect
        self._found: _Found | None = None

    def open(self, method: str, asked: Headers) -> None:
        """Find what answers this method and these headers. Raises: as `Transfer.send`."""
        if method != "HEAD" and not self._is_known(asked):
            self._found = self._find(asked)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = Headers(scope=scope)
        if self._is_known(asked):
            await self._short(send, 304, {})
        elif scope["method"] == "HEAD":
            await self._short(send, 200, {"content-length": str(self._item.size)})
        else:
            found = self._found
            if found is None:
                found = await to_thread.run_sync(self._find, asked, limiter=self._threads)
            if isinstance(found, RangeUnsatisfiable):
                told = {"content-range": http_range.unsatisfied(self._item.size), "content-length": "0"}
                await self._short(send, 416, told)
            elif isinstance(found, Signed):
                gone = {"location": found.href, "content-length": "0", "cache-control": "no-store"}
                await _answer(send, 302, gone)
            else:
                await self._stream(receive, send, found, files=ZERO_COPY in (scope.get("extensions") or {}))

    def _is_known(self, asked: Headers) -> bool:
        return _has(asked.get("if-none-match"), f'"{self._item.etag}"')

    def _find(self, asked: Headers) -> _Found:
        """Sign a URL of the shelf's own, or open the object and read what is one piece; all of it on one thread."""
        try:
            return self._signed() or self._opened(asked)
        except RangeUnsatisfiable as error:
            return error

    def _signed(self) -> Signed | None:
        size = self._item.size
        return self._store.url(self._item.key, "GET", brief(size), size=size) if self._redirect else None

    def _opened(self, asked: Headers) -> _Opened:
        item = self._item
        pair = http_range.asked(asked.get("range"), item.size, if_range=asked.get("if-range"), etag=f'"{item.etag}"')
        span = Span(*pair) if pair else None
        reader = self._reader(span)
        try:
            if span is None and reader.size != item.size:
                raise Damaged(f"{reader.size} of {item.size} bytes are stored; run `weightroom fsck --read-data`.")
            return _Opened(reader, span, reader.read() if reader.size <= PIECE else b"")
        except BaseException:
            reader.close()
            raise

    def _reader(self, span: Span | None) -> Reader:
        try:
            return self._store.open(self._item.key, span)
        except Missing:
            key = self._item.elsewhere()
            if key in ("", self._item.key):
                raise
        return self._store.open(key, span)

    async def _short(self, send: Send, status: int, more: Mapping[str, str]) -> None:
        await _answer(send, status, {**self._headers(), **more})

    async def _stream(self, receive: Receive, send: Send, opened: _Opened, *, files: bool) -> None:
        reader, span = opened.reader, opened.span
        try:
            more = {"content-length": str(reader.size)}
            if span is not None:
                more["content-range"] = http_range.content_range(span.start, span.end, self._item.size)
            head = _start(206 if span else 200, {**self._headers(), **more})
            if len(opened.first) == reader.size:
                await send(head)
                await send({"type": "http.response.body", "body": opened.first})
                return
            place = reader.in_file() if files and not opened.first else None
            gone = asyncio.ensure_future(_departure(receive))
            try:
                await send(head)
                await (self._blocks(send, opened, gone) if place is None else _file(send, *place, reader.size, gone))
            finally:
                gone.cancel()
        finally:
            reader.close()

    async def _blocks(self, send: Send, opened: _Opened, gone: asyncio.Future[None]) -> None:
        left, block = opened.reader.size, opened.first
        while left and not gone.done():
            block = block or await to_thread.run_sync(opened.reader.read, limiter=self._threads)
            left -= len(block)
            await send({"type": "http.response.body", "body": block, "more_body": left > 0})
            block = b""

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


async def _file(send: Send, file: Descriptor, at: int, left: int, gone: asyncio.Future[None]) -> None:
    """Hand over a file in large pieces: between two of them a departure is seen and the log counts."""
    try:
        while left and not gone.done():
            count = min(left, LARGE)
            left -= count
            await send({"type": ZERO_COPY, "file": file, "offset": at, "count": count, "more_body": left > 0})
            at += count
    except EOFError as error:
        raise Damaged("A stored object is shorter than it was; run `weightroom fsck --read-data`.") from error


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
