"""A proxy that does harm: in front of any TCP server on the loopback, for as long as a block runs.

It speaks enough HTTP to tell requests apart, also several on one connection; to anything else a whole connection is
one request. What happens to a request is decided by a plan, a function that may be exchanged at any time:

    with Proxy(port, on("PATCH", "/lfs/tus/", Fault(up=5_000_000))) as proxy:
        ...  # clients use proxy.url; the first PATCH is reset after five million bytes of its body
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Self

from tests.faults.wire import PIECE, Asked, Inbox, body_of, parsed


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to one request.

    `latency` in seconds, before it passes; `rate` in bytes a second, each way. After `up` bytes of its body, or `down`
    bytes of its answer's body, comes the `end`: a reset (RST), an early but clean close, or a stall, for as long as
    the client bears it. `lost`: the end comes where the answer would begin, so the server has done its work.
    `answer` is sent instead of asking the server at all.
    """

    latency: float = 0.0
    rate: int = 0
    up: int | None = None
    down: int | None = None
    end: Literal["reset", "close", "stall"] = "reset"
    lost: bool = False
    answer: bytes = b""


Plan = Callable[[Asked], Fault]


def calm(asked: Asked) -> Fault:
    """Do no harm."""
    return Fault()


def on(method: str, target: str, *faults: Fault) -> Plan:
    """Give the n-th request of this method, whose target contains `target`, the n-th fault, and the others none."""
    left = iter(faults)

    def plan(asked: Asked) -> Fault:
        matches = asked.method == method and target in asked.target
        return next(left, Fault()) if matches else Fault()

    return plan


def always(method: str, target: str, fault: Fault) -> Plan:
    """Give every such request the same fault."""
    return lambda asked: fault if asked.method == method and target in asked.target else Fault()


def answer(status: int, body: bytes = b"", **headers: str) -> Fault:
    """Answer in the server's place; underscores in names of headers stand for dashes."""
    told = {"Content-Length": str(len(body)), "Connection": "close"}
    told |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"HTTP/1.1 {status} Made by the proxy", *(f"{name}: {value}" for name, value in told.items())]
    return Fault(answer="\r\n".join(lines).encode() + b"\r\n\r\n" + body)


class Proxy:
    """Listens on `port`, at `url`; passes everything to `target`, a port of the loopback; `seen` tells what came."""

    def __init__(self, target: int, plan: Plan = calm) -> None:
        self.target, self.plan = target, plan
        self.seen: list[Asked] = []
        self.port = 0
        # The loop itself holds on to no connection that waits for neither bytes nor room.
        self._links: set[asyncio.Task[None]] = set()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="fault proxy")

    @property
    def url(self) -> str:
        """Where clients go."""
        return f"http://127.0.0.1:{self.port}"

    def asked(self, method: str, target: str = "") -> list[Asked]:
        """Return what came so far of one kind."""
        return [each for each in self.seen if each.method == method and target in each.target]

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *error: object) -> None:
        self._loop.call_soon_threadsafe(self.stop.set)
        self._thread.join(10)

    async def _serve(self) -> None:
        self._loop, self.stop = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0, limit=PIECE)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self.stop.wait()
        server.close()
        # What still hangs is dropped without a word, as by a machine that lost its power. Only links are cancelled: a
        # socket that asyncio is still accepting belongs to nobody who would close it.
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for link in self._links:
            link.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # Transports close in a turn of the loop of their own.
        await asyncio.sleep(0)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.stop.is_set():
            writer.transport.abort()
            return
        task = asyncio.create_task(_Link(self, reader, writer).run())
        self._links.add(task)
        task.add_done_callback(lambda link: self._ended(link, writer))

    def _ended(self, link: asyncio.Task[None], writer: asyncio.StreamWriter) -> None:
        self._links.discard(link)
        # One that was cancelled before its first step has closed nothing.
        if link.cancelled():
            writer.transport.abort()
        else:
            link.result()


class _Cut(Exception):
    """The end that the fault at hand asks for."""


class _Link:
    """One client's connection, and ours to the server."""

    def __init__(self, proxy: Proxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._proxy, self._inbox = proxy, Inbox(reader)
        self._client, self._server = writer, writer
        self._fault, self._asked = Fault(), Asked(0)
        # True from the end of a request's head to the end of its answer's.
        self._head_due = False

    async def run(self) -> None:
        """Pass bytes both ways until either side or a fault ends it."""
        tasks: list[asyncio.Task[None]] = []
        try:
            answers, self._server = await asyncio.open_connection("127.0.0.1", self._proxy.target, limit=PIECE)
            requests = asyncio.create_task(self._requests())
            tasks = [requests, asyncio.create_task(self._answers(Inbox(answers)))]
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            if requests in done:
                # A client that has said all still wants its answer.
                await tasks[1]
        except _Cut:
            await self._end()
        except OSError:
            self._reset()
        finally:
            for task in tasks:
                task.cancel()
            try:
                await asyncio.gather(*tasks, return_exceptions=True)
            finally:
                # Also when the proxy stops while this link is ending by itself.
                if self._proxy.stop.is_set():
                    self._reset()
                self._close()

    async def _requests(self) -> None:
        while head := await self._inbox.head():
            self._asked = parsed(head, len(self._proxy.seen) + 1)
            self._fault = self._proxy.plan(self._asked)
            self._proxy.seen.append(self._asked)
            await asyncio.sleep(self._fault.latency)
            if self._fault.answer:
                await self._answer_ourselves()
            elif self._asked.method:
                self._head_due = True
                await self._send(self._server, head)
            else:
                await self._pass(head)
            async for piece in body_of(self._asked, self._inbox):
                await self._pass(piece)
        self._server.write_eof()

    async def _pass(self, piece: bytes) -> None:
        fault, asked = self._fault, self._asked
        end = len(piece) if fault.up is None else min(len(piece), fault.up - asked.up)
        await self._send(self._server, piece[:end])
        asked.up += end
        if asked.up == fault.up:
            raise _Cut

    async def _answer_ourselves(self) -> None:
        # Who asks whether to send a body at all has its answer at once, as from a server that refuses.
        if "expect" not in self._asked.headers:
            async for piece in body_of(self._asked, self._inbox):
                self._asked.up += len(piece)
        await self._send(self._client, self._fault.answer)
        raise _Cut

    async def _answers(self, inbox: Inbox) -> None:
        while await inbox.more():
            if self._head_due:
                await self._pass_head(await inbox.head())
                continue
            piece, fault, asked = await inbox.some(), self._fault, self._asked
            end = len(piece) if fault.down is None else min(len(piece), fault.down - asked.down)
            await self._send(self._client, piece[:end])
            asked.down += end
            if asked.down == fault.down:
                raise _Cut

    async def _pass_head(self, head: bytes) -> None:
        if not head.startswith(b"HTTP/1.1 1"):
            if self._fault.lost:
                raise _Cut
            self._head_due = False
            self._asked.status = int(head.split()[1])
        await self._send(self._client, head)

    async def _send(self, writer: asyncio.StreamWriter, piece: bytes) -> None:
        rate = self._fault.rate
        step = max(1, rate // 20) if rate else PIECE
        for at in range(0, len(piece), step):
            writer.write(part := piece[at : at + step])
            await writer.drain()
            if rate:
                await asyncio.sleep(len(part) / rate)

    async def _end(self) -> None:
        if self._fault.answer or self._fault.end == "close":
            self._close()
        elif self._fault.end == "reset":
            self._reset()
        else:
            await self._proxy.stop.wait()

    def _close(self) -> None:
        for writer in (self._client, self._server):
            writer.close()

    def _reset(self) -> None:
        for writer in (self._client, self._server):
            linger = struct.pack("ii", 1, 0)
            with contextlib.suppress(OSError):
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()
