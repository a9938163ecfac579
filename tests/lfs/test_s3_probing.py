"""What a bucket enforces is found by trying it, and each kind of server is told apart."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import threading
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit
from uuid import uuid4

import pytest

from lfs.errors import Denied
from lfs.s3.parts import open_uploads
from lfs.s3.shelf import S3Store
from lfs.store import Probe, lfs_key
from tests.services.s3 import S3Endpoint, make_bucket, moto, open_bucket, rclone

KEY = lfs_key("ab" * 32, "a1")

pytestmark = pytest.mark.s3


def bucket_of(endpoint: S3Endpoint) -> S3Store:
    name = f"probing-{uuid4().hex}"
    make_bucket(endpoint, name)
    return open_bucket(endpoint, name, "in")


def probed(store: S3Store) -> Probe:
    """Probe, and look that nothing of it is left."""
    found = store.probe()
    assert list(store.walk()) == []
    assert list(open_uploads(store._bucket)) == []
    return found


@pytest.mark.xdist_group("ceph")
def test_ceph_holds_a_client_to_the_hash_of_the_body(ceph_server: S3Endpoint) -> None:
    store = bucket_of(ceph_server)
    found = probed(store)
    assert found.enforces == "content_sha256"
    assert found.details["content_sha256: wrong body"] == "refused (400)"
    # It takes the other header and does not look at it.
    assert found.details["checksum_sha256: wrong body"] == "kept (200)"
    assert found.details["If-None-Match"] == "honoured"
    assert store.url(KEY, "PUT", 60, size=5, sha256="ab" * 32) is None
    store.believe(found)
    assert store.url(KEY, "PUT", 60, size=5, sha256="ab" * 32) is not None


@pytest.mark.xdist_group("s3")
def test_moto_holds_a_client_to_nothing_and_is_not_relied_on() -> None:
    with moto() as endpoint:
        found = probed(bucket_of(endpoint))
    assert found.enforces == "none"
    assert found.details["tampered signature"] == "kept (200)"
    assert found.details["verdict"].startswith("not safe")


@pytest.mark.xdist_group("s3")
def test_rclone_checks_signatures_and_no_body(tmp_path_factory: pytest.TempPathFactory) -> None:
    with rclone(tmp_path_factory.mktemp("rclone")) as endpoint:
        store = bucket_of(endpoint)
        found = probed(store)
        assert found.enforces == "none"
        assert found.details["tampered signature"] == "refused (403)"
        assert found.details["verdict"].startswith("signatures hold, but no digest")
        assert (found.details["range"], found.details["multipart"]) == ("exact", "joined")

        with checking(endpoint) as strict:
            there = open_bucket(strict, store._bucket.place.bucket, "in")
            assert probed(there).enforces == "checksum_sha256"

        stranger = open_bucket(replace(endpoint, secret_key="another one"), store._bucket.place.bucket, "in")
        with pytest.raises(Denied, match="S3_SECRET_KEY"):
            stranger.probe()


@contextlib.contextmanager
def checking(endpoint: S3Endpoint) -> Iterator[S3Endpoint]:
    """Stand before a server and hold `x-amz-checksum-sha256` against the body, as Amazon does and none here."""
    target = urlsplit(endpoint.url)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            claimed = self.headers.get("x-amz-checksum-sha256")
            if claimed and claimed != b64encode(hashlib.sha256(body).digest()).decode():
                self._answer(400, {}, b"<Error><Code>BadDigest</Code></Error>")
                return
            link = http.client.HTTPConnection(target.hostname or "", target.port, timeout=20)
            link.request(self.command, self.path, body, {**self.headers, "Connection": "close"})
            answer = link.getresponse()
            self._answer(answer.status, dict(answer.headers), answer.read())
            link.close()

        def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response(status)
            own = {"content-length", "transfer-encoding", "connection", "date", "server"}
            for name, value in headers.items():
                if name.lower() not in own:
                    self.send_header(name, value)
            length = headers.get("Content-Length", "0") if self.command == "HEAD" else str(len(body))
            self.send_header("Content-Length", length)
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = do

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield replace(endpoint, url=f"http://127.0.0.1:{server.server_address[1]}")
        server.shutdown()
        thread.join()
