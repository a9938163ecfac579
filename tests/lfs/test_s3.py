"""A bucket that breaks off, lies or is away never makes a short or wrong answer."""

from __future__ import annotations

import hashlib
import random
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from lfs.errors import Damaged, Denied, Missing, RangeUnsatisfiable, Unavailable
from lfs.s3.bucket import Place
from lfs.s3.shelf import S3Store
from lfs.store import Span
from tests.lfs.alone import application
from tests.lfs.conftest import serving
from tests.lfs.memory_host import MemoryHost
from tests.services.s3 import make_bucket, moto, open_bucket

MIB = 1 << 20
KEY = "lfs/x"


@dataclass
class Bucket:
    """One object, and the faults of the server that holds it."""

    body: bytes = field(default_factory=lambda: random.Random(7).randbytes(3 * MIB))
    etag: str = '"one"'
    cut_after: int = -1
    cuts: int = 0
    statuses: list[int] = field(default_factory=list)
    ignores_range: bool = False
    shift: int = 0
    asked: list[str] = field(default_factory=list)


class Handler(BaseHTTPRequestHandler):
    bucket: Bucket

    def do_HEAD(self) -> None:
        self._send(b"", 200, {"Content-Length": str(len(self.bucket.body))})

    def do_GET(self) -> None:
        bucket = self.bucket
        bucket.asked.append(self.headers.get("Range", ""))
        if bucket.statuses and (status := bucket.statuses.pop(0)) != 200:
            self._send(b"", status, {"Content-Length": "0"})
            return
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if found is None or bucket.ignores_range:
            self._send(bucket.body, 200, {"Content-Length": str(len(bucket.body))})
            return
        start, end = int(found[1]), min(int(found[2]) + 1, len(bucket.body))
        told = f"bytes {start + bucket.shift}-{end - 1 + bucket.shift}/{len(bucket.body)}"
        self._send(bucket.body[start:end], 206, {"Content-Length": str(end - start), "Content-Range": told})

    def _send(self, body: bytes, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "ETag": self.bucket.etag, "Connection": "close"}.items():
            self.send_header(name, value)
        self.send_header("Last-Modified", "Wed, 21 Oct 2026 07:28:00 GMT")
        self.end_headers()
        if self.bucket.cuts and body:
            self.bucket.cuts -= 1
            body = body[: self.bucket.cut_after]
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of a client that left: some of these tests make it leave."""


@pytest.fixture
def bucket() -> Bucket:
    return Bucket()


@pytest.fixture
def store(bucket: Bucket) -> Iterator[S3Store]:
    handler = type("Bound", (Handler,), {"bucket": bucket})
    with Server(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        port = server.server_address[1]
        yield S3Store(Place("b", endpoint=f"http://127.0.0.1:{port}", access_key="A", secret_key="S"))
        server.shutdown()
        thread.join()


def read(store: S3Store, span: Span | None = None) -> bytes:
    with store.open(KEY, span) as reader:
        return reader.read_all()


@pytest.mark.parametrize("span", [None, Span(5, 2 * MIB), Span(0, 3 * MIB)])
def test_a_body_that_breaks_off_is_continued_from_there(store: S3Store, bucket: Bucket, span: Span | None) -> None:
    bucket.cut_after, bucket.cuts = 300_000, 5
    whole = span or Span(0, len(bucket.body))
    assert read(store, span) == bucket.body[whole.start : whole.end]
    assert len(bucket.asked) == 6
    assert bucket.asked[1] == f"bytes={whole.start + 300_000}-{whole.end - 1}"


def test_a_body_that_never_goes_on_is_an_error_and_not_an_end(store: S3Store, bucket: Bucket) -> None:
    bucket.cut_after, bucket.cuts = 0, 1000
    with pytest.raises(Unavailable):
        read(store)
    assert len(bucket.asked) == 3


def test_a_server_error_is_tried_again_and_then_told(store: S3Store, bucket: Bucket) -> None:
    bucket.statuses = [503, 500]
    assert read(store) == bucket.body
    bucket.statuses = [503] * 10
    with pytest.raises(Unavailable):
        read(store)


def test_another_version_is_never_spliced_in(store: S3Store, bucket: Bucket) -> None:
    bucket.cut_after, bucket.cuts = 100, 1
    with store.open(KEY) as reader:
        bucket.etag = '"two"'
        with pytest.raises(Damaged):
            reader.read_all()


def test_a_server_that_ignores_ranges_is_refused(store: S3Store, bucket: Bucket) -> None:
    bucket.ignores_range = True
    with pytest.raises(Unavailable, match="ranges"):
        store.open(KEY, Span(5, 10))


def test_a_server_that_answers_another_range_is_refused(store: S3Store, bucket: Bucket) -> None:
    bucket.shift = 1
    with pytest.raises(Unavailable):
        store.open(KEY, Span(5, 10))


@pytest.mark.parametrize(("status", "refusal"), [(404, Missing), (403, Denied), (416, RangeUnsatisfiable)])
def test_what_the_bucket_refuses_is_named(
    store: S3Store, bucket: Bucket, status: int, refusal: type[Exception]
) -> None:
    bucket.statuses = [status]
    with pytest.raises(refusal):
        store.open(KEY, Span(0, 5))


def test_a_bucket_that_is_away_is_unavailable() -> None:
    store = S3Store(Place("b", endpoint="http://127.0.0.1:9", access_key="A", secret_key="S"))
    with pytest.raises(Unavailable):
        store.stat(KEY)


@pytest.mark.s3
@pytest.mark.xdist_group("s3")
def test_the_lfs_door_works_over_a_bucket() -> None:
    """17 MiB: more than one part. The download comes from the bucket, by a URL that we signed."""
    body = random.Random(8).randbytes(17 * MIB)
    wanted = {"oid": hashlib.sha256(body).hexdigest(), "size": len(body)}
    with moto() as endpoint:
        make_bucket(endpoint, "weights")
        app = application(MemoryHost(), open_bucket(endpoint, "weights", "prod"))
        with serving(app) as url, httpx.Client(base_url=url, auth=("ann", "ann"), verify=False, trust_env=False) as ann:

            def href(operation: str) -> str:
                asked = {"operation": operation, "objects": [wanted]}
                (item,) = ann.post("/org/model.git/info/lfs/objects/batch", json=asked).json()["objects"]
                found: str = item["actions"][operation]["href"]
                return found

            into = href("upload")
            with httpx.Client(verify=False, trust_env=False, timeout=30) as client:
                assert client.put(into, content=body[:-1] + b"x").status_code == 400
                assert client.put(into, content=body).status_code == 200
                sent = client.get(href("download"), follow_redirects=True)
                assert str(sent.url).startswith(f"{endpoint.url}/weights/prod/lfs/")
                assert sent.content == body
