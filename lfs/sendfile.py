"""Files to sockets by the kernel alone: uvicorn's HTTP protocol with the ASGI extension `http.response.zerocopysend`.

Uvicorn writes the head of an answer. Once that has left its buffer, `sendfile` moves the body on a copy of the socket's
descriptor: in a worker thread for as long as the client keeps up, while the loop waits for clients that do not, so that
a slow one holds no thread. What was moved is booked with uvicorn, so lengths, keep-alive and pipelining stay its own.

Not offered over TLS, nor where uvicorn's insides are not the ones known here: then blocks are sent, as ever.

Source: ASGI specification, extension "Zero Copy Send".
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import select
import struct
import termios
import time
from collections.abc import Callable, MutableMapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from starlette.types import Send
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from lfs.handover import HandingProtocol

EXTENSION = "http.response.zerocopysend"

# Seconds for which a thread waits for a client that took its last bytes within `_SOON`, and keeps to one at all.
_LINGER, _SOON, _TURN = 0.005, 0.02, 0.25
# Read at a time where the kernel will not send from a file by itself, as on some network file systems.
_BLOCK = 1 << 20
_UNABLE = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EOVERFLOW)
_UNREACHABLE = (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN)
_INSIDES = ("disconnected", "response_started", "chunked_encoding", "expected_content_length", "flow", "transport")


class FileProtocol(HandingProtocol):
    """Uvicorn's protocol, offering to send files, and to hand large bodies over.

    A client that takes no byte for `patience` seconds is given up. `threads` serve all connections of the process: they
    bound how many files are read at one moment, not how many are on their way.
    """

    patience = 120.0
    threads = ThreadPoolExecutor(32, thread_name_prefix="sendfile")

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._application, self.app = self.app, self._serve
        self._lost = asyncio.Event()
        self._wake: Callable[[], None] = self._lost.set

    def connection_lost(self, exc: Exception | None) -> None:
        """Note that the client is gone, also while nothing is being read from it."""
        super().connection_lost(exc)
        self._lost.set()
        self._wake()

    async def _serve(self, scope: Any, receive: Any, send: Any) -> None:
        cycle = getattr(send, "__self__", None)
        if self.scheme == "http" and all(hasattr(cycle, name) for name in _INSIDES):
            scope["extensions"] = {**scope.get("extensions", {}), EXTENSION: {}}
            send = _with_files(send, lambda message: self._send_file(cycle, message))
        await self._application(scope, self.handing(receive, cycle), send)

    async def _send_file(self, cycle: Any, message: MutableMapping[str, Any]) -> None:
        """Send `count` bytes of `file` from `offset` as a piece of the body. Raises: EOFError (the file has fewer)."""
        at, count = message["offset"], message["count"]
        if cycle.disconnected or self._lost.is_set():
            await self._part(cycle)
            return
        if not cycle.response_started or cycle.chunked_encoding is not False or count > cycle.expected_content_length:
            raise RuntimeError("A file is sent after the head of its answer, within the Content-Length given there.")
        if cycle.scope["method"] != "HEAD":
            try:
                await self._move(cycle, message["file"].fileno(), at, at + count)
            except (ConnectionError, TimeoutError):
                # Uvicorn may not be reading now, and would not see it by itself.
                cycle.transport.abort()
                await self._lost.wait()
        if self._lost.is_set():
            await self._part(cycle)
        await cycle.send({"type": "http.response.body", "body": b"", "more_body": message.get("more_body", False)})

    async def _part(self, cycle: Any) -> None:
        """Make uvicorn's own `send` silent, and give the application a turn to hear that the client is gone."""
        cycle.disconnected = True
        await asyncio.sleep(0)

    async def _move(self, cycle: RequestResponseCycle, file: int, at: int, end: int) -> None:
        """Send bytes `at` to `end`. Raises: ConnectionError (the client is gone), TimeoutError (it takes none)."""
        await self._flush(cycle)
        sending = _Sending(cycle.transport.get_extra_info("socket").fileno(), file)
        try:
            while at < end:
                self._check_open(cycle)
                if sending.able:
                    moved = await self._in_thread(sending, sending.send, at, end)
                    cycle.expected_content_length -= moved
                    at += moved
                else:
                    block = await self._in_thread(sending, sending.read, at, min(end - at, _BLOCK))
                    await cycle.send({"type": "http.response.body", "body": block, "more_body": True})
                    at += len(block)
                if sending.blocked:
                    # A client that left while the thread was at it wakes nobody any more.
                    self._check_open(cycle)
                    began = self.loop.time()
                    await self._writable(sending.out)
                    sending.lingers = self.loop.time() - began < _SOON
        finally:
            sending.close()

    async def _in_thread(self, sending: _Sending, work: Callable[[int, int], Any], first: int, second: int) -> Any:
        sending.work = self.threads.submit(work, first, second)
        return await asyncio.wrap_future(sending.work)

    async def _flush(self, cycle: RequestResponseCycle) -> None:
        """Wait until what was written so far has left our memory: `sendfile` would overtake it."""
        self._check_open(cycle)
        cycle.transport.set_write_buffer_limits(0)
        try:
            async with asyncio.timeout(self.patience):
                while cycle.transport.get_write_buffer_size():
                    await cycle.flow.drain()
                    await asyncio.sleep(0)
                    self._check_open(cycle)
        finally:
            if not cycle.transport.is_closing():
                cycle.transport.set_write_buffer_limits()

    async def _writable(self, out: int) -> None:
        """Wait until the socket takes bytes, for as long as the client does."""
        ready = asyncio.Event()
        self._wake = ready.set
        unsent = _unsent(out)
        self.loop.add_writer(out, ready.set)
        try:
            while not ready.is_set():
                try:
                    async with asyncio.timeout(self.patience):
                        await ready.wait()
                except TimeoutError:
                    # A large buffer and a narrow line: it is not writable for minutes, and yet it empties.
                    before, unsent = unsent, _unsent(out)
                    if unsent >= before:
                        raise
        finally:
            self.loop.remove_writer(out)
            self._wake = self._lost.set

    def _check_open(self, cycle: RequestResponseCycle) -> None:
        if self._lost.is_set() or cycle.transport.is_closing():
            raise ConnectionResetError("the client is gone")


class _Sending:
    """Descriptors of our own for a socket and a file: they stay valid whatever happens to the ones they came from."""

    def __init__(self, out: int, file: int) -> None:
        self.out = os.dup(out)
        try:
            self.file = os.dup(file)
        except OSError:
            os.close(self.out)
            raise
        self.able, self.blocked, self.lingers = True, False, True
        self.work: Future[Any] | None = None

    def send(self, at: int, end: int) -> int:
        """Send from `at` until `end`, or until the client does not keep up, or for a while; return how many went."""
        until, start, ready = time.monotonic() + _TURN, at, select.poll()
        ready.register(self.out, select.POLLOUT)
        self.blocked = False
        while at < end and not self.blocked and time.monotonic() < until:
            try:
                moved = os.sendfile(self.out, self.file, at, end - at)
            except BlockingIOError:
                self.blocked = not (self.lingers and ready.poll(_LINGER * 1000))
            except OSError as error:
                self._judge(error)
                break
            else:
                if not moved:
                    raise EOFError(f"The file ends {end - at} bytes early.")
                at += moved
        return at - start

    def read(self, at: int, size: int) -> bytes:
        """Return the next bytes of the file. Raises: EOFError."""
        if block := os.pread(self.file, size, at):
            return block
        raise EOFError(f"The file ends {size} bytes early.")

    def close(self) -> None:
        """Let go of both, as soon as no thread uses them: the task may be cancelled while one does."""
        if self.work is None:
            self._close()
        else:
            self.work.add_done_callback(self._close)

    def _close(self, work: object = None) -> None:
        os.close(self.out)
        os.close(self.file)

    def _judge(self, error: OSError) -> None:
        if error.errno in _UNREACHABLE:
            raise ConnectionResetError(error.errno, error.strerror) from error
        if error.errno not in _UNABLE:
            raise error
        self.able = False


def _with_files(send: Send, send_file: Callable[[MutableMapping[str, Any]], Any]) -> Send:
    async def sends(message: MutableMapping[str, Any]) -> None:
        await (send_file(message) if message["type"] == EXTENSION else send(message))

    return sends


def _unsent(out: int) -> int:
    """Bytes in the socket's buffer that the client has not taken yet."""
    return int(struct.unpack("i", fcntl.ioctl(out, termios.TIOCOUTQ, b"\0\0\0\0"))[0])
