"""Resumable uploads over HTTP, as a client of tus sees them."""

from __future__ import annotations

import hashlib
import random
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from urllib.parse import urlsplit

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.routing import Route

from lfs.choices import Policy
from lfs.errors import Busy
from lfs.grants import Grant, Grants
from lfs.host import Opening, Wanted
from lfs.local import LocalStore
from lfs.problems import render
from lfs.transfer import Transfer
from lfs.tus import Tus
from lfs.tus_routes import TusRoutes
from tests.faults.proxy import Fault, Proxy, on
from tests.lfs.alone import application
from tests.lfs.conftest import serving
from tests.lfs.memory_host import MemoryHost

MIB = 1 << 20
BODY = random.Random(6).randbytes(3 * MIB + 17)
OID = hashlib.sha256(BODY).hexdigest()
L = "/org/model.git/info/lfs"
TUS = {"Tus-Resumable": "1.0.0"}
# Nobody logs in at these addresses.
ANYBODY = httpx.Client(verify=False, trust_env=False, timeout=30)
BYTES = TUS | {"Content-Type": "application/offset+octet-stream"}


@pytest.fixture
def url(host: MemoryHost, store: LocalStore) -> Iterator[str]:
    with serving(application(host, store, policy=Policy(tus_part=MIB))) as address:
        yield address


def opened(ann: httpx.Client, oid: str = OID, size: int = len(BODY)) -> str:
    """Ask a batch where to send an object, as a client that knows tus."""
    asked = {"operation": "upload", "transfers": ["tus", "basic"], "objects": [{"oid": oid, "size": size}]}
    answer = ann.post(f"{L}/objects/batch", json=asked).json()
    assert answer["transfer"] == "tus"
    (item,) = answer["objects"]
    href: str = item["actions"]["upload"]["href"]
    return href


def head(href: str, **headers: str) -> httpx.Response:
    return ANYBODY.head(href, headers=TUS | headers)


def patch(href: str, offset: int, body: bytes | Iterator[bytes], **headers: str) -> httpx.Response:
    told = BYTES | {"Upload-Offset": str(offset)} | headers
    return ANYBODY.patch(href, content=body, headers=told)


def test_an_upload_is_asked_for_sent_and_served(ann: httpx.Client, host: MemoryHost) -> None:
    href = opened(ann)
    found = head(href)
    assert (found.status_code, found.headers["upload-offset"]) == (200, "0")
    assert found.headers["upload-length"] == str(len(BODY))
    assert (found.headers["tus-resumable"], found.headers["cache-control"]) == ("1.0.0", "no-store")
    sent = patch(href, 0, BODY)
    assert (sent.status_code, sent.headers["upload-offset"], sent.content) == (204, str(len(BODY)), b"")
    assert sent.headers["tus-resumable"] == "1.0.0"
    assert host.links == {(1, OID)}
    assert head(href).headers["upload-offset"] == str(len(BODY))
    assert patch(href, len(BODY), b"").status_code == 204


def test_a_body_in_chunks_is_taken(ann: httpx.Client, host: MemoryHost) -> None:
    assert patch(opened(ann), 0, iter([BODY[:5], BODY[5:]])).status_code == 204
    assert host.links == {(1, OID)}


@pytest.mark.parametrize("end", ["reset", "close"])
def test_a_connection_that_breaks_costs_less_than_a_part(
    host: MemoryHost, store: LocalStore, url: str, ann: httpx.Client, end: str
) -> None:
    fault = Fault(up=2 * MIB + 4000, end=end)  # type: ignore[arg-type]
    with Proxy(urlsplit(url).port or 0, on("PATCH", "/lfs/tus/", fault)) as proxy:
        href = opened(ann)
        broken = href.replace(url, proxy.url)
        with pytest.raises(httpx.TransportError):
            patch(broken, 0, BODY)
    # A new process knows nothing of what the first one did.
    with serving(application(host, store, policy=Policy(tus_part=MIB))) as second:
        again = href.replace(url, second)
        if end == "close":
            # A reset may take away all that was not read yet; a clean end takes nothing.
            until(lambda: head(again).headers["upload-offset"] == str(2 * MIB))

        def went_on() -> bool:
            kept = int(head(again).headers["upload-offset"])
            assert kept in (0, MIB, 2 * MIB)
            # Until the server has heard of the broken connection, the upload has a writer.
            return patch(again, kept, BODY[kept:]).status_code == 204

        until(went_on)
        assert head(again).headers["upload-offset"] == str(len(BODY))


def test_a_new_batch_goes_on_with_the_upload_of_the_same_actor(ann: httpx.Client, url: str) -> None:
    href = opened(ann)
    assert patch(href, 0, BODY[:MIB]).headers["upload-offset"] == str(MIB)
    assert head(opened(ann)).headers["upload-offset"] == str(MIB)
    with httpx.Client(base_url=url, auth=("bob", "bob"), headers=ann.headers) as bob:
        assert head(opened(bob)).headers["upload-offset"] == "0"


def test_a_second_writer_is_told_to_wait(ann: httpx.Client) -> None:
    href = opened(ann)
    with closing(slow(href, BODY[:MIB])):
        until(lambda: head(href).headers["upload-offset"] == str(MIB))
        refused = patch(href, MIB, BODY[MIB:])
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "5")
        assert "Another request" in refused.json()["message"]
    assert until(lambda: patch(href, MIB, BODY[MIB:]).status_code == 204)


def test_a_slow_body_holds_its_upload_for_as_long_as_it_takes(host: MemoryHost, store: LocalStore) -> None:
    grants = Grants([b"secret"], time.time)
    tus = Tus(host=host, store=store, told=lambda: None, lease=0.3)
    routes = TusRoutes(grants=grants, transfer=Transfer(store=store), tus=tus)
    upload = host.begin(1, 1, [Opening(Wanted(OID, len(BODY)), "tus", MIB)])[OID]
    grant = Grant("tus", 1, OID, len(BODY), grants.until(60), 1, upload.id)

    def others() -> Iterator[bytes]:
        yield BODY[:100]
        until(lambda: upload.id in host.leases)
        end = time.monotonic() + 0.8
        while time.monotonic() < end:
            with pytest.raises(Busy):
                tus.lease(grant)
            time.sleep(0.05)
        yield BODY[100:]

    with serving(Starlette(routes=[Route("/lfs/tus/{upload}", routes.door(render))])) as url:
        assert patch(f"{url}/lfs/tus/{upload.id}?grant={grants.issue(grant)}", 0, others()).status_code == 204
    assert host.links == {(1, OID)}


def test_a_request_that_is_not_tus_is_refused_and_changes_nothing(ann: httpx.Client) -> None:
    href = opened(ann)
    for headers, status in [
        ({"Upload-Offset": "1"}, 409),
        ({"Upload-Offset": str(len(BODY))}, 400),
        ({"Upload-Offset": "-1"}, 400),
        ({"Upload-Offset": "0x10"}, 400),
        ({"Upload-Offset": ""}, 400),
        ({"Content-Type": "application/octet-stream"}, 415),
        ({"Content-Type": ""}, 415),
        ({"Content-Encoding": "gzip"}, 415),
        ({"Tus-Resumable": "0.2.2"}, 412),
        ({"Tus-Resumable": ""}, 412),
    ]:
        refused = patch(href, 0, BODY[:MIB], **headers)
        assert (refused.status_code, refused.headers["tus-resumable"]) == (status, "1.0.0")
        assert refused.headers.get("tus-version") == ("1.0.0" if status == 412 else None)
        assert head(href).headers["upload-offset"] == "0"


def test_more_bytes_than_announced_are_refused(ann: httpx.Client, host: MemoryHost) -> None:
    href = opened(ann)
    assert patch(href, 0, BODY + b"x").status_code == 400
    assert head(href).headers["upload-offset"] == "0"
    assert patch(href, 0, iter([BODY + b"x"])).status_code == 400
    assert host.links == set()


def test_wrong_bytes_are_refused_with_400_and_may_be_sent_again(ann: httpx.Client, host: MemoryHost) -> None:
    href = opened(ann)
    refused = patch(href, 0, bytes(len(BODY)))
    assert (refused.status_code, host.links) == (400, set())
    assert head(href).headers["upload-offset"] == "0"
    assert patch(href, 0, BODY).status_code == 204
    assert host.links == {(1, OID)}


def test_an_empty_object_is_linked_by_its_head(ann: httpx.Client, host: MemoryHost) -> None:
    empty = hashlib.sha256().hexdigest()
    found = head(opened(ann, empty, 0))
    assert (found.status_code, found.headers["upload-offset"], host.links) == (200, "0", {(1, empty)})


def test_leave_is_for_one_upload_one_act_and_a_time(ann: httpx.Client, host: MemoryHost, store: LocalStore) -> None:
    mine, other = opened(ann), opened(ann, "ab" * 32, 5)
    path, _, grant = mine.partition("?grant=")
    stolen = other.partition("?grant=")[2]
    for href in (f"{path}?grant={stolen}", path, f"{path}?grant={grant[:-2]}AA", other.replace(stolen, grant)):
        assert (head(href).status_code, patch(href, 0, BODY).status_code) == (403, 403)
    put = ann.post(f"{L}/objects/batch", json={"operation": "upload", "objects": [{"oid": OID, "size": len(BODY)}]})
    basic = put.json()["objects"][0]["actions"]["upload"]["href"].partition("?grant=")[2]
    assert head(f"{path}?grant={basic}").status_code == 403
    late = Grants([b"the secret of the tests"], lambda: time.time() - 10 * 86400)
    upload = path.rpartition("/")[2]
    expired = late.issue(Grant("tus", 1, OID, len(BODY), late.until(60), 1, upload))
    assert head(f"{path}?grant={expired}").status_code == 403
    host.uploads.clear()
    assert (head(mine).status_code, patch(mine, 0, BODY).status_code) == (404, 404)


def test_other_verbs_are_refused_and_options_tells_the_version(ann: httpx.Client) -> None:
    href = opened(ann)
    refused = ANYBODY.put(href, content=BODY)
    assert (refused.status_code, refused.headers["allow"]) == (405, "HEAD, PATCH, OPTIONS")
    told = ANYBODY.options(href)
    assert (told.status_code, told.headers["tus-version"]) == (204, "1.0.0")


def test_an_object_that_a_client_resumes_by_another_way_is_whole(ann: httpx.Client, host: MemoryHost) -> None:
    href = opened(ann)
    patch(href, 0, BODY[:MIB])
    asked = {"operation": "upload", "objects": [{"oid": OID, "size": len(BODY)}]}
    into = ann.post(f"{L}/objects/batch", json=asked).json()["objects"][0]["actions"]["upload"]["href"]
    assert ANYBODY.put(into, content=BODY).status_code == 200
    assert patch(href, MIB, BODY[MIB:]).status_code == 204
    assert host.links == {(1, OID)}


@settings(max_examples=40, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(
            ["Tus-Resumable", "Upload-Offset", "Content-Type", "Content-Encoding", "X-HTTP-Method-Override"]
        ),
        st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=30),
    )
)
def test_garbage_headers_are_only_ever_refused(garbage_door: str, headers: dict[str, str]) -> None:
    told = BYTES | {"Upload-Offset": "7"} | headers
    assert ANYBODY.patch(garbage_door, content=b"x", headers=told).status_code in (400, 409, 412, 415)


@pytest.fixture(scope="module")
def garbage_door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    shelf = LocalStore(tmp_path_factory.mktemp("shelf"), min_free=0, fsync=False)
    with serving(application(MemoryHost(), shelf)) as url, httpx.Client(base_url=url, auth=("ann", "ann")) as ann:
        yield opened(ann)


def slow(href: str, body: bytes) -> socket.socket:
    """Begin a PATCH at 0, send some of its body, and leave it at that."""
    into = urlsplit(href)
    head = [f"PATCH {into.path}?{into.query} HTTP/1.1", f"Host: {into.netloc}", "Upload-Offset: 0"]
    head += [f"{name}: {value}" for name, value in BYTES.items()] + [f"Content-Length: {len(BODY)}"]
    client = socket.create_connection((into.hostname or "", into.port or 0))
    client.sendall("\r\n".join([*head, "", ""]).encode() + body)
    return client


def until(done: Callable[[], bool]) -> bool:
    """Ask until it is so."""
    end = time.monotonic() + 20
    while not done():
        assert time.monotonic() < end
    return True
