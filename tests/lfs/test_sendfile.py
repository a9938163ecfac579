"""Files by the kernel alone: whole or visibly broken, in order, for clients that are fast, slow, gone or rude."""

from __future__ import annotations

import errno
import hashlib
import http.client
import os
import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from lfs.local import LocalStore
from lfs.sendfile import FileProtocol
from lfs.store import PIECE, Reader, Span
from lfs.transfer import Outgoing, Transfer
from tests.lfs.conftest import serving

BODY = random.Random(1).randbytes(40 * PIECE + 7)
HUGE = 128 * PIECE
HEAD = b"Host: x\r\n\r\n"


class Untouched(LocalStore):
    """Opens files and reads none of them."""

    def open(self, key: str, span: Span | None = None) -> Reader:
        reader = super().open(key, span)
        reader._piece = _refuse  # type: ignore[method-assign]
        return reader


class Impatient(FileProtocol):
    """Gives up clients soon."""

    patience = 0.8


@pytest.fixture
def store(folder: Path) -> LocalStore:
    store = Untouched(folder, min_free=0, fsync=False)
    store.put("lfs/body", BODY, len(BODY))
    # A hole reads as zeros: a file larger than all the buffers between here and a client, at no cost.
    (folder / "lfs/huge").touch()
    os.truncate(folder / "lfs/huge", HUGE)
    return store


def application(store: LocalStore) -> Starlette:
    transfer = Transfer(store=store)

    async def answer(request: Request) -> ASGIApp:
        key = f"lfs/{request.path_params['name']}"
        return transfer.send(Outgoing(key, store.stat(key).size, "tag"))

    return Starlette(routes=[Route("/{name}", answer)])


@pytest.fixture
def url(store: LocalStore) -> Iterator[str]:
    with serving(application(store)) as address:
        yield address


@contextmanager
def connected(url: str, *, window: int = 0) -> Iterator[socket.socket]:
    """Open a connection, with a receive buffer of so many bytes."""
    with socket.socket() as client:
        if window:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
        host, _, port = url.removeprefix("http://").partition(":")
        client.settimeout(20)
        client.connect((host, int(port)))
        yield client


def read(stream: socket.SocketIO, method: str = "GET") -> tuple[int, bytes]:
    """Read one answer of several from a connection."""
    status = int(stream.readline().split()[1])
    length = 0
    while (line := stream.readline()) != b"\r\n":
        name, _, value = line.partition(b":")
        length = int(value) if name.lower() == b"content-length" else length
    return status, stream.read(length) if method != "HEAD" else b""


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_no_byte_of_a_file_passes_through_us_and_the_connection_goes_on(store: LocalStore, loop: str) -> None:
    with serving(application(store), loop=loop) as url, connected(url) as client, client.makefile("rb") as stream:
        for _ in range(2):
            client.sendall(b"GET /body HTTP/1.1\r\n" + HEAD)
            assert read(stream) == (200, BODY)
            client.sendall(b"GET /body HTTP/1.1\r\nRange: bytes=7-9000000\r\n" + HEAD)
            assert read(stream) == (206, BODY[7:9000001])
            client.sendall(b"HEAD /body HTTP/1.1\r\n" + HEAD)
            assert read(stream, "HEAD") == (200, b"")


def test_answers_to_pipelined_requests_come_whole_and_in_order(url: str) -> None:
    with connected(url) as client, client.makefile("rb") as stream:
        one = b"GET /body HTTP/1.1\r\n"
        ranges = [b"Range: bytes=%d-%d\r\n" % (at, at + 2 * PIECE) for at in range(0, 30 * PIECE, PIECE)]
        client.sendall(one + HEAD + b"HEAD /body HTTP/1.1\r\n" + HEAD + b"".join(one + each + HEAD for each in ranges))
        assert read(stream) == (200, BODY)
        assert read(stream, "HEAD") == (200, b"")
        for at in range(0, 30 * PIECE, PIECE):
            assert read(stream) == (206, BODY[at : at + 2 * PIECE + 1])


def test_a_connection_that_ends_after_its_answer_ends_after_all_of_it(url: str) -> None:
    for request in (b"GET /body HTTP/1.0\r\n\r\n", b"GET /body HTTP/1.1\r\nConnection: close\r\n" + HEAD):
        with connected(url) as client, client.makefile("rb") as stream:
            client.sendall(request)
            assert read(stream) == (200, BODY)
            assert stream.read() == b""


@pytest.mark.parametrize("protocol", ["h11", "httptools"])
def test_other_servers_get_blocks(folder: Path, protocol: str) -> None:
    store = LocalStore(folder, min_free=0, fsync=False)
    store.put("lfs/body", BODY, len(BODY))
    with serving(application(store), http=protocol) as url, connected(url) as client:
        client.sendall(b"GET /body HTTP/1.1\r\n" + HEAD)
        with client.makefile("rb") as stream:
            assert read(stream) == (200, BODY)


def test_a_file_that_the_kernel_cannot_send_is_read(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some file systems refuse; half of the object has gone by then."""
    real, calls = os.sendfile, []

    def refuse(out: int, file: int, at: int, count: int) -> int:
        calls.append(at)
        if len(calls) > 1:
            raise OSError(errno.EINVAL, "not on this file system")
        return real(out, file, at, min(count, 3 * PIECE))

    monkeypatch.setattr(os, "sendfile", refuse)
    with connected(url) as client, client.makefile("rb") as stream:
        client.sendall(b"GET /body HTTP/1.1\r\n" + HEAD)
        assert read(stream) == (200, BODY)
    assert len(calls) > 1


def test_a_file_cut_short_on_its_way_breaks_the_connection(url: str, folder: Path) -> None:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=20)
    connection.request("GET", "/huge")
    answer = connection.getresponse()
    answer.read(PIECE)
    os.truncate(folder / "lfs/huge", 100 * PIECE)
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        answer.read()
    connection.close()


def test_a_file_shorter_than_its_row_says_is_an_error_and_not_an_answer(folder: Path, store: LocalStore) -> None:
    transfer = Transfer(store=store)

    async def answer(request: Request) -> ASGIApp:
        return transfer.send(Outgoing("lfs/body", len(BODY) + 1, "tag"))

    with serving(Starlette(routes=[Route("/", answer)])) as url, connected(url) as client:
        client.sendall(b"GET / HTTP/1.1\r\n" + HEAD)
        with client.makefile("rb") as stream:
            assert read(stream)[0] == 500


def test_a_file_deleted_on_its_way_arrives_whole(url: str, folder: Path) -> None:
    with connected(url) as client, client.makefile("rb") as stream:
        client.sendall(b"GET /huge HTTP/1.1\r\n" + HEAD)
        assert client.recv(10, socket.MSG_PEEK)
        (folder / "lfs/huge").unlink()
        status, body = read(stream)
    assert (status, len(body), hashlib.sha256(body).digest()) == (200, HUGE, hashlib.sha256(bytes(HUGE)).digest())


@pytest.mark.parametrize("end", ["close", "reset", "half"])
@pytest.mark.parametrize("behind", [0, 2], ids=["alone", "pipelined"])
def test_a_client_that_leaves_gives_everything_back(url: str, end: str, behind: int) -> None:
    """With requests waiting behind this one uvicorn reads no further, and would not hear of the end by itself."""
    with connected(url) as client:
        client.sendall((b"GET /huge HTTP/1.1\r\n" + HEAD) * (1 + behind))
        assert client.recv(PIECE)
        assert _held() > 0
        if end == "reset":
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif end == "half" and not behind:
            client.shutdown(socket.SHUT_WR)
            _wait(lambda: _held() == 0)
    _wait(lambda: _held() == 0)


def test_a_client_that_left_before_the_answer_is_no_error(store: LocalStore, caplog: pytest.LogCaptureFixture) -> None:
    transfer, ended = Transfer(store=store), threading.Event()

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            while (await receive())["type"] != "http.disconnect":
                pass
            await transfer.send(Outgoing("lfs/body", len(BODY), "tag"))(scope, receive, send)
            ended.set()

    with serving(answer) as url:
        with connected(url) as client:
            client.sendall(b"GET /body HTTP/1.1\r\n" + HEAD)
        assert ended.wait(20)
    assert caplog.records == []


def test_clients_that_take_nothing_hold_no_thread(url: str) -> None:
    with ExitStack() as stack:
        for _ in range(FileProtocol.threads._max_workers + 8):
            client = stack.enter_context(connected(url, window=4096))
            client.sendall(b"GET /huge HTTP/1.1\r\n" + HEAD)
            assert client.recv(1)
        with connected(url) as client, client.makefile("rb") as stream:
            client.sendall(b"GET /body HTTP/1.1\r\n" + HEAD)
            assert read(stream) == (200, BODY)


def test_a_client_that_takes_nothing_is_given_up_and_a_slow_one_is_not(store: LocalStore) -> None:
    with serving(application(store), http=Impatient) as url, connected(url, window=4096) as slow:
        slow.sendall(b"GET /huge HTTP/1.1\r\n" + HEAD)
        assert slow.recv(1)
        with connected(url, window=4096) as still:
            still.sendall(b"GET /huge HTTP/1.1\r\n" + HEAD)
            end = time.monotonic() + 2.5 * Impatient.patience
            while time.monotonic() < end:
                assert slow.recv(2048)
                time.sleep(0.02)
            # Each has the reader's descriptor and a copy of it; two are left.
            _wait(lambda: _held() <= 2)
            with suppress(ConnectionError):
                assert len(still.makefile("rb").read()) < HUGE
        assert slow.recv(2048)


def _refuse(limit: int) -> bytes:
    raise AssertionError("a byte was read")


def _held() -> int:
    """Count how often the huge file is open."""
    found = 0
    for name in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):
            found += os.readlink(f"/proc/self/fd/{name}").endswith("lfs/huge")
    return found


def _wait(done: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not done():
        assert time.monotonic() < end
        time.sleep(0.01)
