"""Each call that the shelf makes, and each way in which a bucket fails: tried again, never wrong, never half done."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from urllib.parse import urlsplit
from uuid import uuid4

import pytest

from lfs.errors import Missing, Unavailable
from lfs.s3.bucket import TRIES, Patience
from lfs.s3.parts import S3Parts
from lfs.s3.shelf import S3Store
from lfs.s3.writing import PART
from lfs.store import Probe, Stat, Verified, lfs_key
from tests.faults.proxy import Fault, Proxy, always, answer, calm, on
from tests.services.s3 import S3Endpoint, make_bucket, moto, open_bucket

pytestmark = [pytest.mark.s3, pytest.mark.faults, pytest.mark.xdist_group("s3")]

SMALL = b"a few bytes"
LARGE = random.Random(3).randbytes(PART + 5)
# Only small things may be asked of the one that has no time: the machine may be busy.
CALM, HURRIED = Patience(), Patience(connect=2.0, read=0.7)

INTERNAL = b"<Error><Code>InternalError</Code><Message>We encountered an internal error.</Message></Error>"
STALL = Fault(lost=True, end="stall")
LOST = Fault(lost=True)


@dataclass(frozen=True)
class Scene:
    """A shelf behind a proxy that does harm, and one that does not wait long."""

    store: S3Store
    hurried: S3Store
    proxy: Proxy

    def key(self, body: bytes = b"") -> str:
        """Return a name that no other test has; with a body, one that holds it already."""
        key = lfs_key(hashlib.sha256(body).hexdigest(), uuid4().hex)
        if body:
            self.store.put(key, body, len(body))
        return key

    def parts(self, *bodies: bytes) -> tuple[S3Parts, list[tuple[int, str]]]:
        parts = self.store.parts(self.key(), PART)
        parts.begin()
        return parts, [(number, parts.put(number, body, len(body))) for number, body in enumerate(bodies, start=1)]

    def read(self, key: str) -> bytes:
        with self.store.open(key) as reader:
            return reader.read_all()


@pytest.fixture(scope="module")
def stage() -> Iterator[Scene]:
    with moto() as endpoint, Proxy(urlsplit(endpoint.url).port or 0) as proxy:
        make_bucket(endpoint, "shelf")
        behind = S3Endpoint(proxy.url, endpoint.access_key, endpoint.secret_key)
        calm_one, hurried = (open_bucket(behind, "shelf", "in", patience) for patience in (CALM, HURRIED))
        yield Scene(calm_one, hurried, proxy)


@pytest.fixture
def scene(stage: Scene, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    # How long boto3 waits between two tries is its own affair, and most of the time that these would take. So is that
    # it stops trying again when a hundred tries in a row were in vain, as they are here.
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda self, context: 0)
    monkeypatch.setattr("botocore.retries.quota.RetryQuota.acquire", lambda self, amount: True)
    stage.proxy.plan = calm
    yield stage
    stage.proxy.plan = calm


@dataclass(frozen=True)
class Call:
    """One request to a bucket: how it is told from others, and an act that needs it and checks what came of it."""

    method: str
    target: str
    act: Callable[[Scene], Callable[[], object]]


def stat(scene: Scene) -> Callable[[], object]:
    key = scene.key(SMALL)
    return lambda: scene.store.stat(key).size == len(SMALL)


def read(scene: Scene) -> Callable[[], object]:
    key = scene.key(SMALL)
    return lambda: scene.read(key) == SMALL


def put(scene: Scene) -> Callable[[], object]:
    key = scene.key()
    return lambda: scene.store.put(key, SMALL, len(SMALL)) and scene.read(key) == SMALL


def begin(scene: Scene) -> Callable[[], object]:
    parts = scene.store.parts(scene.key(), PART)
    return lambda: parts.begin() == parts.begin()


def part(scene: Scene) -> Callable[[], object]:
    parts, _ = scene.parts()
    return lambda: parts.put(1, SMALL, len(SMALL)) == parts.sent()[1].tag


def copy(scene: Scene) -> Callable[[], object]:
    source, key = scene.key(SMALL), scene.key()
    return lambda: scene.store.copy(source, key) and scene.read(key) == SMALL


def delete(scene: Scene) -> Callable[[], object]:
    key = scene.key(SMALL)
    return lambda: scene.store.delete(key) is None and key not in scene.store.walk(key)


def walk(scene: Scene) -> Callable[[], object]:
    key = scene.key(SMALL)
    return lambda: list(scene.store.walk(key)) == [key]


def sent(scene: Scene) -> Callable[[], object]:
    parts, tags = scene.parts(SMALL)
    return lambda: [(number, part.tag) for number, part in parts.sent().items()] == tags


def finish(scene: Scene) -> Callable[[], object]:
    parts, tags = scene.parts(SMALL)
    return lambda: parts.finish(tags).size == len(SMALL)


def abort(scene: Scene) -> Callable[[], object]:
    parts, _ = scene.parts(SMALL)
    return lambda: parts.abort() is None and not parts.sent()


def sweep(scene: Scene) -> Callable[[], object]:
    parts, _ = scene.parts(SMALL)
    return lambda: scene.store.sweep(0) >= 1 and not parts.sent()


CALLS = {
    "HeadObject": Call("HEAD", "/lfs/", stat),
    "GetObject": Call("GET", "/lfs/", read),
    "PutObject": Call("PUT", "/lfs/", put),
    "CreateMultipartUpload": Call("POST", "?uploads", begin),
    "UploadPart": Call("PUT", "partNumber=1", part),
    "CompleteMultipartUpload": Call("POST", "uploadId=", finish),
    "AbortMultipartUpload": Call("DELETE", "uploadId=", abort),
    "ListParts": Call("GET", "uploadId=", sent),
    "ListMultipartUploads": Call("GET", "?uploads", sweep),
    "CopyObject": Call("PUT", "/lfs/", copy),
    "DeleteObject": Call("DELETE", "/lfs/", delete),
    "ListObjectsV2": Call("GET", "list-type=2", walk),
}

BODILESS = {"HeadObject", "PutObject", "UploadPart", "DeleteObject", "AbortMultipartUpload"}

FAULTS = {
    "500, then 503": [answer(500, INTERNAL), answer(503)],
    "reset before the answer": [LOST],
    "reset in the answer": [Fault(down=3)],
    "stall": [STALL],
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", CALLS)
def test_a_fault_that_passes_is_not_noticed(scene: Scene, name: str, fault: str) -> None:
    call = CALLS[name]
    act = call.act(replace(scene, store=scene.hurried) if fault == "stall" else scene)
    before = len(scene.proxy.asked(call.method, call.target))
    scene.proxy.plan = on(call.method, call.target, *FAULTS[fault])
    assert act()
    # An answer without a body cannot be cut in the middle of it.
    cut = fault != "reset in the answer" or name not in BODILESS
    assert len(scene.proxy.asked(call.method, call.target)) >= before + (2 if cut else 1)


@pytest.mark.parametrize("name", CALLS)
def test_a_fault_that_stays_is_told_after_three_tries(scene: Scene, name: str) -> None:
    call = CALLS[name]
    act = call.act(scene)
    before = len(scene.proxy.asked(call.method, call.target))
    scene.proxy.plan = always(call.method, call.target, answer(503))
    with pytest.raises(Unavailable):
        act()
    assert len(scene.proxy.asked(call.method, call.target)) - before == TRIES
    # The same thing again, once the bucket is well: nothing half done stands in its way.
    scene.proxy.plan = calm
    assert act()


@pytest.mark.parametrize(
    ("method", "target"), [("PUT", "partNumber=1"), ("PUT", "partNumber=2"), ("POST", "uploadId=")]
)
def test_what_broke_on_its_way_leaves_nothing_behind(scene: Scene, method: str, target: str) -> None:
    key = scene.key()
    scene.store.sweep(0)
    scene.proxy.plan = always(method, target, answer(500, INTERNAL))
    with pytest.raises(Unavailable):
        scene.store.put(key, LARGE, len(LARGE))
    scene.proxy.plan = calm
    with pytest.raises(Missing):
        scene.store.stat(key)
    assert scene.store.sweep(0) == 0
    assert scene.store.put(key, LARGE, len(LARGE)) == Verified(key, len(LARGE), hashlib.sha256(LARGE).hexdigest())


def test_a_put_that_cannot_begin_disturbs_no_other_of_its_key(scene: Scene) -> None:
    """It dropped every upload to the key, also that of another writer of the same bytes."""
    key = scene.key()

    def source() -> Iterator[bytes]:
        yield LARGE[:PART]
        scene.proxy.plan = always("POST", "?uploads", answer(503))
        with pytest.raises(Unavailable):
            scene.store.put(key, LARGE, len(LARGE))
        scene.proxy.plan = calm
        yield LARGE[PART:]

    scene.store.put(key, source(), len(LARGE))
    assert scene.read(key) == LARGE


def test_an_error_inside_a_success_is_an_error(scene: Scene) -> None:
    """Amazon may answer 200 to a completion, and tell only in the body that it failed."""
    parts, tags = scene.parts(SMALL)
    scene.proxy.plan = always("POST", "uploadId=", answer(200, INTERNAL))
    with pytest.raises(Unavailable):
        parts.finish(tags)
    scene.proxy.plan = on("POST", "uploadId=", answer(200, INTERNAL))
    assert parts.finish(tags).size == len(SMALL)


def test_a_completion_whose_answers_are_all_lost_has_happened(scene: Scene) -> None:
    parts, tags = scene.parts(SMALL)
    scene.proxy.plan = always("POST", "uploadId=", LOST)
    assert isinstance(parts.finish(tags), Stat)


def test_a_body_that_is_cut_is_sent_again_whole(scene: Scene) -> None:
    key = scene.key()
    scene.proxy.plan = on("PUT", "partNumber=1", Fault(up=PART // 2), Fault(up=PART - 1))
    scene.store.put(key, LARGE, len(LARGE))
    assert scene.read(key) == LARGE


def test_a_read_goes_on_where_it_was_cut(scene: Scene) -> None:
    key = scene.key(LARGE)
    scene.proxy.plan = on("GET", "/lfs/", *[Fault(down=n, end="close") for n in (1, 100_000, PART // 2)], Fault(down=5))
    assert scene.read(key) == LARGE


def test_a_line_that_only_ever_brings_a_few_bytes_is_told_after_three_tries(scene: Scene) -> None:
    key, before = scene.key(SMALL * 1000), len(scene.proxy.asked("GET", "/lfs/"))
    scene.proxy.plan = always("GET", "/lfs/", Fault(down=20, end="close"))
    with pytest.raises(Unavailable):
        scene.read(key)
    assert len(scene.proxy.asked("GET", "/lfs/")) - before == TRIES


@pytest.mark.parametrize("name", ["HeadObject", "GetObject", "PutObject", "CreateMultipartUpload", "UploadPart"])
def test_a_page_that_stands_for_a_bucket_is_none(scene: Scene, name: str) -> None:
    """A proxy in maintenance answers 200 to everything: an upload that it swallowed is not taken for stored."""
    call = CALLS[name]
    act = call.act(scene)
    page = answer(200, b"" if name == "HeadObject" else b"<html><br></html>", Content_Type="text/html")
    scene.proxy.plan = always(call.method, call.target, page)
    with pytest.raises(Unavailable):
        act()
    scene.proxy.plan = calm
    assert act()


def test_a_bucket_that_fails_is_not_judged(scene: Scene) -> None:
    """A 503 to a forged request is no refusal of the forgery."""
    scene.store.believe(Probe("none", {}))
    scene.proxy.plan = always("PUT", "X-Amz-Signature", answer(503))
    with pytest.raises(Unavailable):
        scene.store.probe()
    scene.proxy.plan = calm
    assert list(scene.store.walk("staging/")) == []
