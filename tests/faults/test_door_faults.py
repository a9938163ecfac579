"""What clients of the LFS door see of a bucket that fails: a wait they can bear, or a broken line; no wrong byte."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
import pytest

from lfs.s3.bucket import Patience
from lfs.store import Probe
from tests.faults.proxy import Fault, Proxy, always, answer, calm, on
from tests.lfs.memory_host import MemoryHost
from tests.lfs.ways import Site, walking
from tests.services.s3 import S3Endpoint, make_bucket, moto, open_bucket

pytestmark = [pytest.mark.s3, pytest.mark.faults, pytest.mark.xdist_group("s3")]

MIB = 1 << 20
BODY = random.Random(12).randbytes(3 * MIB)
AWAY = {"503": answer(503), "reset": Fault(lost=True), "silence": Fault(lost=True, end="stall")}
EVERY = ("HEAD", "GET", "PUT", "POST", "DELETE")


@pytest.fixture(scope="module")
def line() -> Iterator[tuple[S3Endpoint, Proxy]]:
    with moto() as endpoint, Proxy(urlsplit(endpoint.url).port or 0) as proxy:
        make_bucket(endpoint, "door")
        yield S3Endpoint(proxy.url, endpoint.access_key, endpoint.secret_key), proxy


@contextmanager
def door(line: tuple[S3Endpoint, Proxy], way: str) -> Iterator[tuple[Site, Proxy]]:
    endpoint, proxy = line
    proxy.plan = calm
    store = open_bucket(endpoint, "door", uuid4().hex, Patience(connect=2.0, read=1.0))
    store.believe(Probe("content_sha256" if way == "direct" else "none", {}))
    with walking(way, MemoryHost(), store, 5 * MIB) as site:
        try:
            yield site, proxy
        finally:
            proxy.plan = calm


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda self, context: 0)
    monkeypatch.setattr("botocore.retries.quota.RetryQuota.acquire", lambda self, amount: True)


@pytest.mark.parametrize("fault", AWAY)
@pytest.mark.parametrize("way", ["proxy", "tus", "multipart"])
def test_who_sends_through_us_to_a_bucket_that_is_away_is_told_to_wait(
    line: tuple[S3Endpoint, Proxy], way: str, fault: str
) -> None:
    with door(line, way) as (site, proxy):
        item = site.ask(BODY)
        if way == "multipart":
            # Parts that go to the bucket itself meet it themselves; the completion comes to us.
            header = item["actions"]["upload"]["header"]
            first = next(name for name in sorted(header) if name.isdigit())
            etag = site.http.put(header[first], content=BODY).headers["etag"]
        proxy.plan = lambda asked: AWAY[fault]
        if way == "tus":
            told = {"Tus-Resumable": "1.0.0", "Upload-Offset": "0", "Content-Type": "application/offset+octet-stream"}
            refused = site.http.patch(item["actions"]["upload"]["href"], content=BODY, headers=told)
        else:
            refused = site.complete(item, [etag]) if way == "multipart" else site.send(item, BODY)[-1]
        assert refused.status_code == 429
        assert 0 < int(refused.headers["retry-after"]) <= 60
        # A batch asks no bucket.
        assert "error" in site.ask(BODY, operation="download")
        proxy.plan = calm
        if way == "multipart":
            assert site.complete(item, [etag]).status_code == 200
            site.wait(BODY)
        else:
            site.deliver(item, BODY)
        assert hashlib.sha256(site.pull(BODY)).digest() == hashlib.sha256(BODY).digest()


@pytest.mark.parametrize("way", ["direct", "staging"])
def test_a_verify_while_the_bucket_is_away_may_be_repeated(line: tuple[S3Endpoint, Proxy], way: str) -> None:
    with door(line, way) as (site, proxy):
        item = site.ask(BODY)
        assert site.send(item, BODY)[-1].is_success
        proxy.plan = always("HEAD", "", answer(503))
        refused = site.verify(item)
        assert (refused.status_code, "retry-after" in refused.headers) == (429, True)
        assert site.refused(BODY)
        proxy.plan = calm
        assert site.verify(item).status_code == 200
        site.wait(BODY)


def test_a_bucket_without_room_is_told_as_such(line: tuple[S3Endpoint, Proxy]) -> None:
    with door(line, "proxy") as (site, proxy):
        item = site.ask(BODY)
        proxy.plan = always("PUT", "", answer(507))
        refused = site.send(item, BODY)[-1]
        assert (refused.status_code, "free space" in refused.text) == (507, True)
        proxy.plan = calm
        assert site.send(item, BODY[:-1] + b"x")[-1].status_code == 400
        site.deliver(item, BODY)


def test_a_download_goes_on_behind_us_or_breaks_and_never_ends_early(line: tuple[S3Endpoint, Proxy]) -> None:
    with door(line, "proxy") as (site, proxy):
        site.push(BODY)
        proxy.plan = on("GET", "", Fault(down=MIB + 5), Fault(down=7, end="close"))
        assert site.pull(BODY) == BODY
        for end in (Fault(down=MIB // 8), Fault(down=MIB // 8, end="close")):
            proxy.plan = always("GET", "", end)
            with pytest.raises(httpx.RemoteProtocolError):
                site.pull(BODY)
        proxy.plan = lambda asked: answer(503)
        href = site.ask(BODY, operation="download")["actions"]["download"]["href"]
        assert site.http.get(href).status_code == 429
        proxy.plan = calm
        assert site.http.get(href).content == BODY
