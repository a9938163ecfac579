"""The proxy does the harm that it is asked for, and no other."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from tests.faults.proxy import Fault, Proxy, answer, on

BODY = bytes(range(256)) * 4096


class Echo(BaseHTTPRequestHandler):
    """Keeps connections alive; answers a PUT with the number of its bytes, a GET with `BODY`."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(BODY)

    def do_PUT(self) -> None:
        taken.append(self.path)
        chunked = self.headers.get("Transfer-Encoding") == "chunked"
        self._answer(b"%d" % (self._chunks() if chunked else len(self.rfile.read(int(self.headers["Content-Length"])))))

    def _chunks(self) -> int:
        total = 0
        while size := int(self.rfile.readline(), 16):
            total += len(self.rfile.read(size + 2)) - 2
        self.rfile.readline()
        return total

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words: object) -> None:
        pass


class Quiet(ThreadingHTTPServer):
    """Says nothing about clients that vanish."""

    def handle_error(self, *words: object) -> None:
        pass


taken: list[str] = []


@contextmanager
def proxied(*faults: Fault, method: str = "GET") -> Iterator[tuple[Proxy, httpx.Client]]:
    server = Quiet(("127.0.0.1", 0), Echo)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        with (
            Proxy(server.server_port, on(method, "/", *faults)) as proxy,
            httpx.Client(base_url=proxy.url, timeout=5, trust_env=False) as client,
        ):
            yield proxy, client
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_requests_on_one_connection_are_told_apart() -> None:
    with proxied() as (proxy, client):
        assert client.put("/one", content=BODY).text == str(len(BODY))
        assert client.get("/two").content == BODY
        assert client.put("/three", content=b"").text == "0"
    assert [(each.method, each.target, each.up) for each in proxy.seen] == [
        ("PUT", "/one", len(BODY)),
        ("GET", "/two", 0),
        ("PUT", "/three", 0),
    ]
    assert (proxy.seen[1].down, proxy.seen[1].status) == (len(BODY), 200)


@pytest.mark.parametrize("end", ["reset", "close", "stall"])
def test_an_answer_is_cut_once(end) -> None:  # type: ignore[no-untyped-def]
    with proxied(Fault(down=5000, end=end)) as (proxy, client):
        with pytest.raises(httpx.TransportError):
            client.get("/", timeout=0.5)
        assert client.get("/").content == BODY
        assert proxy.seen[0].down == 5000


def test_a_request_is_cut_once() -> None:
    with proxied(Fault(up=5000), method="PUT") as (proxy, client):
        with pytest.raises(httpx.TransportError):
            client.put("/", content=BODY)
        assert client.put("/", content=BODY).text == str(len(BODY))
        assert proxy.seen[0].up == 5000


def test_a_lost_answer_is_of_work_that_was_done() -> None:
    taken.clear()
    with proxied(Fault(lost=True), method="PUT") as (_, client), pytest.raises(httpx.TransportError):
        client.put("/lost", content=BODY)
    assert taken == ["/lost"]


def test_the_nth_request_is_answered_in_the_servers_place() -> None:
    taken.clear()
    with proxied(Fault(), answer(503, b"later", Retry_After="1"), method="PUT") as (_, client):
        assert client.put("/first", content=b"x").status_code == 200
        refused = client.put("/second", content=BODY)
        assert (refused.status_code, refused.text, refused.headers["retry-after"]) == (503, "later", "1")
        assert client.put("/third", content=b"x").status_code == 200
    assert taken == ["/first", "/third"]


def test_a_slow_line_takes_its_time() -> None:
    began = time.monotonic()
    with proxied(Fault(latency=0.1, rate=10 * len(BODY))) as (_, client):
        assert client.get("/").content == BODY
    assert time.monotonic() - began > 0.2


def test_a_body_in_chunks_ends_where_it_ends() -> None:
    with proxied(method="PUT") as (proxy, client):
        assert client.put("/", content=iter([b"ab", b"c" * 70000])).text == "70002"
        assert client.get("/").content == BODY
    assert [each.method for each in proxy.seen] == ["PUT", "GET"]


def test_what_is_not_http_passes_whole() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        Proxy(server.getsockname()[1]) as proxy,
        socket.create_connection(("127.0.0.1", proxy.port)) as client,
    ):
        client.sendall(b"\x00\x01 not a request\r\n\r\n")
        client.shutdown(socket.SHUT_WR)
        peer, _ = server.accept()
        with peer, peer.makefile("rb") as came:
            assert came.read() == b"\x00\x01 not a request\r\n\r\n"
            peer.sendall(b"nor an answer")
        with client.makefile("rb") as came:
            assert came.read() == b"nor an answer"
