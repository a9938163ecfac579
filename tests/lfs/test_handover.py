"""Large bodies read by the thread that stores them: whole, in any rhythm, and the connection goes on afterwards."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Message, Receive

from lfs.errors import Interrupted, NoSpace
from lfs.handover import SMALLEST, Taken
from lfs.store import PIECE
from lfs.transfer import Transfer
from tests.contracts.memory_store import MemoryStore
from tests.lfs.conftest import serving
from tests.lfs.test_sendfile import connected, read

BODY = random.Random(2).randbytes(9 * PIECE + 11)
SUM = hashlib.sha256(BODY).hexdigest().encode()


class Counting:
    """Counts the messages by which a body came."""

    def __init__(self, receive: Receive) -> None:
        self.calls, self._receive = 0, receive

    async def __call__(self) -> Message:
        self.calls += 1
        return await self._receive()

    def take(self) -> Taken | None:
        take = getattr(self._receive, "take", lambda: None)
        found: Taken | None = take()
        return found


class Server:
    """Answers a PUT with the SHA-256 of its body, or refuses after a mebibyte, and remembers how it came."""

    def __init__(self) -> None:
        self.transfer = Transfer(store=MemoryStore(), upload_slots=2, patience=0.5)
        self.messages: list[int] = []
        self.ends: list[str] = []

    async def put(self, request: Request) -> Response:
        receive = Counting(request.receive)
        work = refuse if request.query_params else summed
        try:
            text, status = await self.transfer.receive(receive, work), 200
        except (Interrupted, NoSpace) as error:
            text, status = error.message, 400
        self.messages.append(receive.calls)
        self.ends.append(text)
        return PlainTextResponse(text, status)

    def application(self) -> Starlette:
        return Starlette(routes=[Route("/", self.put, methods=["PUT"])])


def summed(source: Iterator[bytes]) -> str:
    digest = hashlib.sha256()
    for piece in source:
        digest.update(piece)
    return digest.hexdigest()


def refuse(source: Iterator[bytes]) -> str:
    next(source)
    raise NoSpace("full")


def put(body: bytes, more: str = "", path: str = "/") -> bytes:
    return f"PUT {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n{more}\r\n".encode() + body


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def url(server: Server) -> Iterator[str]:
    with serving(server.application()) as address:
        yield address


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_body_is_read_by_its_thread_and_the_connection_goes_on(server: Server, loop: str) -> None:
    with serving(server.application(), loop=loop) as url, connected(url) as client, client.makefile("rb") as stream:
        for _ in range(3):
            client.sendall(put(BODY))
            assert read(stream) == (200, SUM)
    assert server.messages == [0, 0, 0]


def test_requests_behind_a_body_are_not_taken_for_it(url: str, server: Server) -> None:
    small = b"small"
    with connected(url) as client, client.makefile("rb") as stream:
        client.sendall(put(BODY) + put(small) + put(BODY) + put(BODY))
        answers = [read(stream)[1] for _ in range(4)]
    assert answers == [SUM, hashlib.sha256(small).hexdigest().encode(), SUM, SUM]


def test_a_client_that_asks_first_is_told_to_go_on(url: str, server: Server) -> None:
    with connected(url) as client, client.makefile("rb") as stream:
        head = put(BODY, "Expect: 100-continue\r\n")[: -len(BODY)]
        client.sendall(head)
        assert stream.readline() + stream.readline() == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(BODY)
        assert read(stream) == (200, SUM)
    assert server.messages == [0]


def test_a_body_comes_in_any_rhythm(url: str) -> None:
    rhythm = random.Random(3)
    with connected(url) as client, client.makefile("rb") as stream:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        left = memoryview(put(BODY))
        while left:
            size = rhythm.choice([1, 100, 70_000, 600_000])
            client.sendall(left[:size])
            left = left[size:]
        assert read(stream) == (200, SUM)


@pytest.mark.parametrize("protocol", ["h11", "httptools"])
def test_other_servers_send_messages(server: Server, protocol: str) -> None:
    with serving(server.application(), http=protocol) as url, connected(url) as client:
        client.sendall(put(BODY))
        with client.makefile("rb") as stream:
            assert read(stream) == (200, SUM)
    assert server.messages[0] > 0


def test_bodies_that_are_small_or_of_unknown_length_come_by_messages(url: str, server: Server) -> None:
    with connected(url) as client, client.makefile("rb") as stream:
        client.sendall(put(BODY[: SMALLEST - 1]))
        assert read(stream) == (200, hashlib.sha256(BODY[: SMALLEST - 1]).hexdigest().encode())
        chunk = b"%x\r\n" % len(BODY) + BODY + b"\r\n0\r\n\r\n"
        client.sendall(b"PUT / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk)
        assert read(stream) == (200, SUM)
    assert min(server.messages) > 0


def test_a_refusal_amid_a_body_is_heard_and_the_rest_is_skipped(url: str, server: Server) -> None:
    with connected(url) as client, client.makefile("rb") as stream:
        client.sendall(put(BODY, path="/?refuse=1") + put(BODY))
        assert read(stream) == (400, b"full")
        assert read(stream) == (200, SUM)
    assert server.messages == [0, 0]


@pytest.mark.parametrize("end", ["close", "reset", "stall"])
def test_a_client_that_leaves_or_stalls_gives_its_slot_back(url: str, server: Server, end: str) -> None:
    for turn in range(1, 4):
        with connected(url) as client:
            client.sendall(put(BODY)[: 3 * PIECE])
            if end == "stall":
                _wait(lambda turn=turn: len(server.ends) == turn)
            if end == "reset":
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        _wait(lambda turn=turn: len(server.ends) == turn)
    assert set(server.messages) == {0}
    assert all("send the object again" in text for text in server.ends)
    with connected(url) as client, client.makefile("rb") as stream:
        client.sendall(put(BODY))
        assert read(stream) == (200, SUM)


def test_a_request_that_is_cancelled_ends_its_thread(server: Server) -> None:
    """As when a server that was told to stop has waited long enough."""
    ended, given = threading.Event(), []

    def work(source: Iterator[bytes]) -> None:
        with suppress(Interrupted):
            summed(source)
        ended.set()

    async def main() -> None:
        with _pair() as (ours, theirs):
            theirs.sendall(b"part")
            body = Taken(os.dup(ours.fileno()), b"first", PIECE, given.append)
            task = asyncio.ensure_future(Transfer(store=MemoryStore()).receive(_Offers(body), work))
            while body.left == PIECE:
                await asyncio.sleep(0.01)
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    asyncio.run(main())
    assert ended.is_set()
    assert given == [PIECE - 4]


class _Offers:
    def __init__(self, body: Taken) -> None:
        self.take = lambda: body

    async def __call__(self) -> Any:
        raise AssertionError("a message was asked for")


@contextmanager
def _pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        yield ours, theirs


def _wait(done: Any) -> None:
    end = time.monotonic() + 20
    while not done():
        assert time.monotonic() < end
        time.sleep(0.01)
