"""A URL that we signed opens one thing to whoever has it; changed in any way, it opens nothing."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import httpx
import pytest

from lfs.errors import Denied, Missing
from lfs.presign import Address, Credentials, Signer
from lfs.s3.bucket import Place
from lfs.s3.shelf import S3Store
from lfs.store import Probe, Signed, Span, lfs_key
from tests.services.s3 import S3Endpoint, make_bucket, open_bucket, rclone

BODY, OTHER = b"the announced bytes", b"some others, longer"
OID = hashlib.sha256(BODY).hexdigest()
KEY, ELSEWHERE = lfs_key(OID, "a1"), lfs_key(OID, "b2")
PART = 5 << 20


@dataclass(frozen=True)
class Sent:
    """A request as a client makes it of a signed URL."""

    method: str
    href: str
    headers: dict[str, str]
    body: bytes = b""

    def go(self) -> httpx.Response:
        with httpx.Client(trust_env=False, timeout=20) as client:
            return client.request(self.method, self.href, headers=self.headers, content=self.body or None)


@dataclass(frozen=True)
class Bench:
    """A bucket that checks signatures, and the shelf in it."""

    endpoint: S3Endpoint
    bucket: str
    store: S3Store

    def late(self, method: str, headers: dict[str, str]) -> str:
        """Return a URL that was good for a minute, an hour ago."""
        keys = Credentials(self.endpoint.access_key, self.endpoint.secret_key)
        signs = Signer(lambda: keys, self.endpoint.region, clock=lambda: time.time() - 3600)
        address = Address.of(self.endpoint.url, self.bucket)
        return signs.url(method, address, f"in/{KEY}", seconds=60, headers=headers)


@pytest.fixture(scope="module")
def rclone_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Endpoint]:
    with rclone(tmp_path_factory.mktemp("rclone")) as endpoint:
        yield endpoint


def on(*servers: str) -> pytest.MarkDecorator:
    groups = {"rclone": "s3", "ceph": "ceph"}
    marks = {name: [pytest.mark.s3, pytest.mark.xdist_group(group)] for name, group in groups.items()}
    return pytest.mark.parametrize("bench", [pytest.param(name, marks=marks[name]) for name in servers], indirect=True)


@pytest.fixture(scope="module")
def benches() -> dict[str, Bench]:
    return {}


@pytest.fixture
def bench(request: pytest.FixtureRequest, benches: dict[str, Bench]) -> Iterator[Bench]:
    """One bucket for all tests of a server; each leaves it empty."""
    if request.param not in benches:
        endpoint, name = request.getfixturevalue(f"{request.param}_server"), f"leaves-{uuid4().hex}"
        make_bucket(endpoint, name)
        benches[request.param] = Bench(endpoint, name, open_bucket(endpoint, name, "in"))
    found = benches[request.param]
    found.store.believe(Probe("none", {}))
    yield found
    for key in (KEY, ELSEWHERE):
        found.store.delete(key)


def upload(signed: Signed | None, body: bytes = BODY) -> Sent:
    assert signed is not None
    return Sent("PUT", signed.href, signed.headers, body)


def refused(store: S3Store, sent: Sent) -> None:
    assert 400 <= sent.go().status_code < 500
    for key in (KEY, ELSEWHERE):
        with pytest.raises(Missing):
            store.stat(key)


def swapped(old: str, new: str) -> Callable[[Sent], Sent]:
    def change(sent: Sent) -> Sent:
        assert old in sent.href
        return replace(sent, href=sent.href.replace(old, new, 1))

    return change


def tampered(sent: Sent) -> Sent:
    return replace(sent, href=sent.href[:-1] + ("1" if sent.href[-1] == "0" else "0"))


def headed(**headers: str) -> Callable[[Sent], Sent]:
    return lambda sent: replace(
        sent, headers=sent.headers | {name.replace("_", "-"): at for name, at in headers.items()}
    )


ABUSES: dict[str, Callable[[Sent], Sent]] = {
    "tampered": tampered,
    "longer life": swapped("X-Amz-Expires=60", "X-Amz-Expires=600"),
    "other key": swapped(KEY, ELSEWHERE),
    "deleting": lambda sent: replace(sent, method="DELETE", body=b""),
    "reading": lambda sent: replace(sent, method="GET", body=b""),
    "shorter": lambda sent: replace(sent, body=BODY[:-1]),
    "longer": lambda sent: replace(sent, body=BODY + b"x"),
    "other type": headed(content_type="text/html"),
    "no signature": lambda sent: replace(sent, href=sent.href.partition("?")[0]),
    "in parts": lambda sent: replace(sent, href=sent.href + "&partNumber=1&uploadId=x"),
}


@on("rclone", "ceph")
@pytest.mark.parametrize("abuse", ABUSES)
def test_a_signed_put_is_for_that_key_size_and_type_alone(bench: Bench, abuse: str) -> None:
    sent = upload(bench.store.url(KEY, "PUT", 60, size=len(BODY)))
    refused(bench.store, ABUSES[abuse](sent))
    assert sent.go().status_code == 200
    with bench.store.open(KEY) as reader:
        assert reader.read_all() == BODY


@on("rclone", "ceph")
def test_a_signed_put_ends(bench: Bench) -> None:
    headers = {"content-type": "application/octet-stream"}
    href = bench.late("PUT", {**headers, "content-length": str(len(BODY))})
    refused(bench.store, Sent("PUT", href, headers, BODY))


DIGEST_ABUSES: dict[str, Callable[[Sent], Sent]] = {
    "other bytes": lambda sent: replace(sent, body=OTHER),
    "header dropped": lambda sent: replace(sent, headers={"content-type": sent.headers["content-type"]}, body=OTHER),
    "header changed": lambda sent: headed(x_amz_content_sha256=hashlib.sha256(OTHER).hexdigest())(
        replace(sent, body=OTHER)
    ),
    "header unsigned": lambda sent: headed(x_amz_content_sha256="UNSIGNED-PAYLOAD")(replace(sent, body=OTHER)),
}


@on("ceph")
@pytest.mark.parametrize("abuse", DIGEST_ABUSES)
def test_a_put_with_a_signed_digest_takes_those_bytes_alone(bench: Bench, abuse: str) -> None:
    assert len(OTHER) == len(BODY)
    bench.store.believe(Probe("content_sha256", {}))
    sent = upload(bench.store.url(KEY, "PUT", 60, size=len(BODY), sha256=OID))
    refused(bench.store, DIGEST_ABUSES[abuse](sent))
    assert sent.go().status_code == 200
    assert bench.store.stat(KEY).size == len(BODY)


@on("ceph")
def test_an_empty_object_is_put_like_any_other(bench: Bench) -> None:
    bench.store.believe(Probe("content_sha256", {}))
    sent = upload(bench.store.url(KEY, "PUT", 60, size=0, sha256=hashlib.sha256().hexdigest()), b"")
    assert sent.go().status_code == 200
    assert bench.store.stat(KEY).size == 0


GET_ABUSES: dict[str, Callable[[Sent], Sent]] = {
    "tampered": tampered,
    "longer life": swapped("X-Amz-Expires=60", "X-Amz-Expires=600"),
    "other key": swapped(KEY, ELSEWHERE),
    "as a page": swapped("application%2Foctet-stream", "text%2Fhtml"),
    "deleting": lambda sent: replace(sent, method="DELETE"),
    "writing": lambda sent: replace(sent, method="PUT", body=OTHER),
    "no signature": lambda sent: replace(sent, href=sent.href.partition("?")[0]),
}


@on("rclone", "ceph")
@pytest.mark.parametrize("abuse", GET_ABUSES)
def test_a_signed_get_is_for_that_object_alone(bench: Bench, abuse: str) -> None:
    for key in (KEY, ELSEWHERE):
        bench.store.put(key, BODY, len(BODY))
    signed = bench.store.url(KEY, "GET", 60)
    assert signed is not None
    sent = Sent("GET", signed.href, signed.headers)
    assert 400 <= GET_ABUSES[abuse](sent).go().status_code < 500
    assert sent.go().content == BODY
    with bench.store.open(KEY) as reader:
        assert reader.read_all() == BODY


@on("rclone", "ceph")
def test_a_signed_get_ends_and_a_resumed_one_does_not_start_over(bench: Bench) -> None:
    bench.store.put(KEY, BODY, len(BODY))
    assert 400 <= Sent("GET", bench.late("GET", {}), {}).go().status_code < 500
    signed = bench.store.url(KEY, "GET", 60)
    assert signed is not None
    # git-lfs goes on where a broken download ended; a URL for all of the object opens each range of it.
    rest = Sent("GET", signed.href, {"range": f"bytes=4-{len(BODY) - 1}"}).go()
    assert rest.content == BODY[4:]


@on("rclone", "ceph")
def test_a_signed_range_opens_no_other_one(bench: Bench) -> None:
    bench.store.put(KEY, BODY, len(BODY))
    signed = bench.store.url(KEY, "GET", 60, span=Span(4, 13))
    assert signed is not None
    sent = Sent("GET", signed.href, signed.headers)
    assert sent.go().content == BODY[4:13]
    for abuse in (headed(range="bytes=0-12"), lambda sent: replace(sent, headers={})):
        assert 400 <= abuse(sent).go().status_code < 500


@on("rclone", "ceph")
def test_a_signed_part_is_for_that_number_and_size_alone(bench: Bench) -> None:
    parts = bench.store.parts(KEY, PART)
    session = parts.begin()
    signed = parts.url(1, len(BODY), 60)
    assert signed is not None
    # Multipart clients send no header of ours.
    assert signed.headers == {}
    sent = upload(signed)
    for abuse in (
        tampered,
        swapped("partNumber=1", "partNumber=2"),
        swapped(session[-4:], "0000"),
        lambda sent: replace(sent, body=BODY + b"x"),
        lambda sent: replace(sent, href=sent.href.replace("partNumber=1&", "")),
    ):
        assert 400 <= abuse(sent).go().status_code < 500
    assert dict(parts.sent()) == {}
    answer = sent.go()
    assert [part.size for part in parts.sent().values()] == [len(BODY)]
    assert parts.finish([(1, answer.headers["etag"])]).size == len(BODY)
    # Its leave ended with the upload: what lies under the key stays.
    assert 400 <= sent.go().status_code < 500
    with bench.store.open(KEY) as reader:
        assert reader.read_all() == BODY


@pytest.mark.s3
@pytest.mark.xdist_group("ceph")
@pytest.mark.parametrize("style", ["path", "virtual"])
def test_clients_may_reach_the_bucket_by_another_name_than_we_do(ceph_server: S3Endpoint, style: str) -> None:
    if "WEIGHTROOM_TEST_CEPH" in os.environ:
        pytest.skip("a Ceph that runs already may have another name than s3.test")
    name, port = f"public-{uuid4().hex}", urlsplit(ceph_server.url).port
    make_bucket(ceph_server, name)
    open_bucket(ceph_server, name).put(KEY, BODY, len(BODY))
    keys = {"access_key": ceph_server.access_key, "secret_key": ceph_server.secret_key}
    public = f"http://s3.test:{port}"
    inside = {"endpoint": ceph_server.url, "public": public} if style == "path" else {"endpoint": public}
    signed = S3Store(Place(name, **inside, **keys, style=style)).url(KEY, "GET", 60)
    assert signed is not None
    parts = urlsplit(signed.href)
    assert parts.netloc == f"s3.test:{port}" if style == "path" else f"{name}.s3.test:{port}"
    here = signed.href.replace(parts.netloc, f"127.0.0.1:{port}")
    assert Sent("GET", here, {"host": parts.netloc}).go().content == BODY


@pytest.fixture
def offline() -> S3Store:
    return S3Store(Place("b", "in", endpoint="http://127.0.0.1:9", access_key="A", secret_key="S"))


def test_a_digest_is_signed_only_where_it_was_found_to_hold(offline: S3Store) -> None:
    def headers() -> dict[str, str] | None:
        signed = offline.url(KEY, "PUT", 60, size=5, sha256=OID)
        return signed and signed.headers

    assert headers() is None
    offline.believe(Probe("content_sha256", {}))
    assert headers() == {"content-type": "application/octet-stream", "x-amz-content-sha256": OID}
    offline.believe(Probe("checksum_sha256", {}))
    assert set(headers() or {}) == {"content-type", "x-amz-checksum-sha256"}
    offline.believe(Probe("none", {}))
    assert headers() is None


def test_nothing_weaker_than_asked_is_signed(offline: S3Store) -> None:
    assert offline.url(KEY, "PUT", 60) is None
    assert offline.url(KEY, "PUT", 60, size=(5 << 30) + 1) is None
    assert offline.url(KEY, "PUT", 60, size=5, span=Span(0, 5)) is None


@pytest.mark.parametrize(("asked", "signed"), [(60, "60"), (10**9, "604800"), (0, "1")])
def test_no_leave_outlives_seven_days(offline: S3Store, asked: int, signed: str) -> None:
    for found in (offline.url(KEY, "GET", asked), offline.url(KEY, "PUT", asked, size=5)):
        assert found is not None
        assert parse_qs(urlsplit(found.href).query)["X-Amz-Expires"] == [signed]


def test_keys_that_end_soon_are_asked_for_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As by a role: botocore's chain runs a program here that gives other keys each time."""
    program, config = tmp_path / "keys", tmp_path / "config"
    told = '{"Version": 1, "AccessKeyId": "AK%s", "SecretAccessKey": "S", "SessionToken": "T%s", "Expiration": "%s"}'
    program.write_text(f"#!/bin/sh\nn=$(date +%N)\nprintf '{told}' $n $n $(date -u -d '+1 minute' +%FT%TZ)\n")
    program.chmod(0o755)
    config.write_text(f"[default]\ncredential_process = {program}\n")
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    store = S3Store(Place("b", endpoint="http://127.0.0.1:9"))
    names, tokens = set(), set()
    for _ in range(2):
        signed = store.url(KEY, "GET", 60)
        assert signed is not None
        asked = parse_qs(urlsplit(signed.href).query)
        names.add(asked["X-Amz-Credential"][0])
        tokens.add(asked["X-Amz-Security-Token"][0])
    assert (len(names), len(tokens)) == (2, 2)


def test_without_keys_nothing_is_signed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    store = S3Store(Place("b", endpoint="http://127.0.0.1:9"))
    with pytest.raises(Denied, match="S3_ACCESS_KEY"):
        store.url(KEY, "GET", 60)
