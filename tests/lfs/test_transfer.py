"""Bytes for a client: as it can take them, from the shelf itself where that can sign, and never short in silence."""

from __future__ import annotations

import asyncio
import http.client
import socket
import threading
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx
import pytest
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.routing import Route
from starlette.types import ASGIApp, Message

from lfs.errors import Damaged, Interrupted, Missing
from lfs.store import PIECE, Reader, Signed, Span
from lfs.transfer import Outgoing, Transfer
from tests.contracts.memory_store import MemoryStore
from tests.lfs.conftest import serving

SIZE = 400 * PIECE


class Endless(Reader):
    """Zeros, counted, that may break at some byte."""

    def __init__(self, size: int, breaks_after: int) -> None:
        super().__init__(size)
        self.sent, self.closed, self._breaks_after = 0, False, breaks_after

    def _piece(self, limit: int) -> bytes:
        if self.sent >= self._breaks_after:
            raise Damaged("The disk broke.")
        self.sent += limit
        return bytes(limit)

    def close(self) -> None:
        self.closed = True


class Shelf(MemoryStore):
    """Hands out one counted reader, and signs if told to."""

    def __init__(self, breaks_after: int = SIZE, signs: str = "") -> None:
        super().__init__()
        self.reader, self._breaks_after, self._signs = Endless(0, 0), breaks_after, signs

    def open(self, key: str, span: Span | None = None) -> Reader:
        self.reader = Endless(span.size if span else SIZE, self._breaks_after)
        return self.reader

    def url(self, key: str, method: str, seconds: int, **bound: object) -> Signed | None:  # type: ignore[override]
        return Signed(self._signs, {}) if self._signs else None


def app(shelf: Shelf, *, redirect: bool = True) -> Starlette:
    transfer = Transfer(store=shelf, redirect=redirect)

    async def answer(request: Request) -> ASGIApp:
        return transfer.send(Outgoing("lfs/x", SIZE, "tag", {"content-type": "text/plain", "x-extra": "here"}))

    return Starlette(routes=[Route("/", answer)])


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
def url(shelf: Shelf) -> Iterator[str]:
    with serving(app(shelf)) as address:
        yield address


def test_a_client_that_leaves_stops_the_reading(url: str, shelf: Shelf) -> None:
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port)) as client:
        client.sendall(f"GET / HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode())
        assert client.recv(10)
    _wait(lambda: shelf.reader.closed)
    assert shelf.reader.sent < SIZE


def test_a_slow_client_holds_back_the_reader(url: str, shelf: Shelf) -> None:
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port)) as client:
        client.sendall(f"GET / HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode())
        seen = -1
        # Nobody reads: the reader comes to rest as soon as the sockets' own buffers are full.
        while seen != shelf.reader.sent:
            seen = shelf.reader.sent
            time.sleep(0.2)
        assert seen < SIZE / 4
    _wait(lambda: shelf.reader.closed)


def test_a_shelf_that_breaks_breaks_the_connection() -> None:
    shelf = Shelf(breaks_after=5 * PIECE)
    with serving(app(shelf)) as url:
        parts = urlsplit(url)
        connection = http.client.HTTPConnection(parts.netloc, timeout=20)
        connection.request("GET", "/")
        answer = connection.getresponse()
        with pytest.raises((http.client.IncompleteRead, ConnectionError)):
            answer.read()
        connection.close()
    assert shelf.reader.closed


def test_a_shelf_that_signs_is_where_the_client_is_sent() -> None:
    shelf = Shelf(signs="http://bucket.example/lfs/x?signature=1")
    with serving(app(shelf)) as url:
        sent = httpx.get(url, verify=False, trust_env=False)
        assert (sent.status_code, sent.headers["location"]) == (302, "http://bucket.example/lfs/x?signature=1")
        assert "immutable" not in sent.headers["cache-control"]
        # A HEAD is answered here: what it says must not depend on the shelf.
        head = httpx.head(url, verify=False, trust_env=False)
        assert (head.status_code, head.headers["content-length"]) == (200, str(SIZE))
    with serving(app(shelf, redirect=False)) as url:
        part = httpx.get(url, headers={"Range": "bytes=0-9"}, verify=False, trust_env=False)
        assert (part.status_code, part.content) == (206, bytes(10))


def test_the_headers_of_the_caller_win(url: str) -> None:
    head = httpx.head(url, verify=False, trust_env=False)
    assert head.headers["content-type"] == "text/plain"
    assert head.headers["x-extra"] == "here"
    assert head.headers["etag"] == '"tag"'
    assert head.headers.get_list("content-type") == ["text/plain"]


@pytest.mark.parametrize("rate", [0, 500])
def test_a_client_that_stalls_gives_its_slot_up(rate: int) -> None:
    transfer = Transfer(store=MemoryStore(), upload_slots=1, patience=0.3)

    async def main() -> list[str]:
        started = asyncio.get_running_loop().time()

        async def receive() -> Message:
            if not rate:
                await asyncio.Event().wait()
            await asyncio.sleep(0.05)
            return {"type": "http.request", "body": bytes(rate // 20), "more_body": True}

        told = []
        for _ in range(2):
            try:
                await transfer.receive(receive, lambda source: sum(map(len, source)))
            except Interrupted as error:
                told.append(error.message)
        assert asyncio.get_running_loop().time() - started < 10
        return told

    assert len(asyncio.run(main())) == 2


def test_a_slow_shelf_is_not_the_client_s_fault() -> None:
    transfer = Transfer(store=MemoryStore(), patience=0.2)
    left = [PIECE] * 8

    async def receive() -> Message:
        return {"type": "http.request", "body": bytes(left.pop()), "more_body": bool(left)}

    def slowly(source: Iterator[bytes]) -> int:
        return sum(len(piece) + int(threading.Event().wait(0.1)) for piece in source)

    assert asyncio.run(transfer.receive(receive, slowly)) == 8 * PIECE


def test_what_the_work_raises_ends_the_request_at_once() -> None:
    transfer = Transfer(store=MemoryStore(), upload_slots=1)
    asked = 0

    async def receive() -> Message:
        nonlocal asked
        asked += 1
        return {"type": "http.request", "body": bytes(PIECE), "more_body": True}

    def refuse(source: Iterator[bytes]) -> None:
        next(source)
        raise Damaged("No more.")

    for _ in range(2):
        with pytest.raises(Damaged):
            asyncio.run(transfer.receive(receive, refuse))
    assert asked < 20


@pytest.mark.parametrize("asked", [{}, {"range": "bytes=0-6"}])
def test_an_object_that_has_left_its_key_is_looked_for_once_more(asked: dict[str, str]) -> None:
    store = MemoryStore()
    store.put("lfs/new", b"weights", 7)

    def sent(to: str) -> bytes:
        sender = Transfer(store=store).send(Outgoing("lfs/old", 7, "tag", elsewhere=lambda: to))
        sender.open("GET", Headers(asked))
        said: list[Message] = []

        async def send(message: Message) -> None:
            said.append(message)

        asyncio.run(sender({"type": "http", "method": "GET", "headers": []}, _never, send))
        return b"".join(message.get("body", b"") for message in said)

    assert sent("lfs/new") == b"weights"
    for nowhere in ("", "lfs/old", "lfs/another"):
        with pytest.raises(Missing):
            sent(nowhere)


async def _never() -> Message:
    await asyncio.Event().wait()
    return {}


def _wait(done) -> None:  # type: ignore[no-untyped-def]
    end = time.monotonic() + 20
    while not done():
        assert time.monotonic() < end
        time.sleep(0.01)
