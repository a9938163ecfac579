"""What holds for an object whichever way it comes: proven before it is served, possession before a link, no 422."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from uuid import uuid4

import pytest

from lfs.local import LocalStore
from lfs.store import ObjectStore, Probe
from tests.contracts.memory_store import MemoryStore
from tests.lfs.memory_host import MemoryHost
from tests.lfs.ways import MIB, Item, Site, until, walking
from tests.services.s3 import S3Endpoint, make_bucket, moto, open_bucket

BODY = random.Random(3).randbytes(3000)
OID = hashlib.sha256(BODY).hexdigest()
S3 = [pytest.mark.s3, pytest.mark.xdist_group("s3")]
SHELVES = {"memory": ("proxy", "multipart", "tus"), "disk": ("proxy", "multipart", "tus")}
SHELVES["moto"] = ("proxy", "direct", "staging", "multipart", "tus")
WAYS = [
    pytest.param((shelf, way), marks=S3 if shelf == "moto" else [], id=f"{way} to {shelf}")
    for shelf, ways in SHELVES.items()
    for way in ways
]
# moto holds nobody to a signature: what a bucket enforces is asked of one that does.
WITHOUT_MEMORY = [way for way in WAYS if "memory" not in str(way.id)]
UNENFORCED = [way for way in WITHOUT_MEMORY if way.id != "direct to moto"]
PAST_US = [way for way in WAYS if way.id in ("direct to moto", "staging to moto")]


@pytest.fixture(scope="module")
def endpoint() -> Iterator[S3Endpoint]:
    with moto() as found:
        make_bucket(found, "ways")
        yield found


def shelf_of(request: pytest.FixtureRequest, kind: str, way: str) -> ObjectStore:
    if kind == "memory":
        return MemoryStore()
    if kind == "disk":
        folder: Path = request.getfixturevalue("tmp_path")
        return LocalStore(folder / "shelf", min_free=0, fsync=False)
    store = open_bucket(request.getfixturevalue("endpoint"), "ways", prefix=uuid4().hex)
    store.believe(Probe("content_sha256" if way == "direct" else "none", {}))
    return store


@pytest.fixture
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    kind, way = request.param
    with walking(way, MemoryHost(), shelf_of(request, kind, way), 5 * MIB if kind == "moto" else 1000) as found:
        yield found


def lies(site: Site) -> list[str]:
    """Return the keys of objects that lie on the shelf, proven or not."""
    return [*site.store.walk("lfs/"), *site.store.walk("staging/")]


@pytest.mark.parametrize("site", WAYS, indirect=True)
def test_an_object_comes_back_as_it_was_sent(site: Site) -> None:
    item = site.push(BODY)
    assert (item["authenticated"], item["size"]) == (True, len(BODY))
    assert site.ask(BODY) == {"oid": OID, "size": len(BODY)}
    assert site.pull(BODY) == BODY
    assert [row.mode for row in site.rows(BODY)] == [site.way]
    until(lambda: len(lies(site)) == 1)


@pytest.mark.parametrize("site", UNENFORCED, indirect=True)
def test_wrong_bytes_are_refused_and_nothing_of_them_stays(site: Site) -> None:
    for wrong in (bytes(len(BODY)), BODY[:-1], BODY + b"x"):
        item = site.ask(BODY)
        answers = site.send(last_part_takes_the_rest(item), wrong)
        if "verify" in item["actions"]:
            answers.append(site.verify(item))
        assert {answer.status_code for answer in answers} <= {200, 400, 404, 409}
        # What went past us is found out when it is read back.
        until(lambda: all(row.state != "arrived" for row in site.rows(BODY)))
        assert site.refused(BODY)
        assert not site.host.links
    site.push(BODY)
    assert site.pull(BODY) == BODY
    until(lambda: len([key for key in lies(site) if key.startswith("lfs/")]) == 1)


def last_part_takes_the_rest(item: Item) -> Item:
    """Make a client that has bytes too many send them with the last part: for more parts there is no address."""
    header = item["actions"]["upload"].get("header", {})
    if "chunk_size" in header:
        first = min(name for name in header if name.isdigit())
        item["actions"]["upload"]["header"] = {"chunk_size": str(2 * len(BODY)), first: header[first]}
    return item


@pytest.mark.parametrize("site", WITHOUT_MEMORY, indirect=True)
def test_who_knows_an_oid_gets_nothing_for_it(site: Site) -> None:
    theirs = site.push(BODY)
    item = site.ask(BODY, "bob", "org/other")
    assert item["actions"]["upload"]["href"] != theirs["actions"]["upload"]["href"]
    at, told = f"{site.url}/org/other.git/info/lfs/verify", {"oid": OID, "size": len(BODY)}
    claims = [site.http.post(at, json=told, auth=("bob", "bob"))]
    if "verify" in item["actions"]:
        claims.append(site.verify(item))
    if site.way == "multipart":
        count = len(item["actions"]["upload"]["header"]) - 1
        claims.append(site.complete(item, ['"x"'] * count))
        # Also with the tags that the same bytes had when their owner sent them.
        claims.append(site.complete(item, [f'"{hashlib.sha256(BODY).hexdigest()}"'] * count))
    assert {claim.status_code for claim in claims} <= {400, 404}
    assert site.refused(BODY, "bob", "org/other")
    site.push(BODY, "bob", "org/other")
    assert site.pull(BODY, "bob", "org/other") == site.pull(BODY) == BODY


@pytest.mark.parametrize("site", PAST_US, indirect=True)
def test_verify_says_what_arrived_under_this_upload(site: Site) -> None:
    item = site.ask(BODY)
    assert site.verify(item).status_code == 404
    site.send(item, BODY)
    assert site.verify(item, len(BODY) + 1).status_code == 409
    assert [site.verify(item).status_code for _ in range(3)] == [200, 200, 200]
    site.wait(BODY)
    assert site.verify(item).status_code == 200
    at, told = f"{site.url}/org/model.git/info/lfs/verify", {"oid": OID, "size": len(BODY)}
    assert site.http.post(at, json=told, auth=("ann", "ann")).status_code == 200


@pytest.mark.parametrize("site", PAST_US, indirect=True)
def test_bytes_of_another_size_in_the_bucket_are_a_conflict(site: Site) -> None:
    item = site.ask(BODY)
    # moto takes any length: a bucket that did so too must not be believed.
    site.http.put(item["actions"]["upload"]["href"], content=b"x", headers=item["actions"]["upload"]["header"])
    assert site.verify(item).status_code == 409
    assert site.refused(BODY)


@pytest.mark.parametrize("site", WITHOUT_MEMORY, indirect=True)
def test_eight_clients_with_one_object_all_succeed(site: Site) -> None:
    who = [("ann", "org/model"), ("bob", "org/other")] * 4
    items = [site.ask(BODY, *each) for each in who]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda item, each: site.deliver(item, BODY, each[1]), items, who))
    assert site.host.links == {(1, OID), (2, OID)}
    assert site.pull(BODY) == BODY
    served = site.host.objects[OID].key
    until(lambda: lies(site) == [served])


@pytest.mark.parametrize(
    ("kind", "ways"),
    [
        ("disk", ("proxy", "multipart", "tus")),
        pytest.param("moto", ("proxy", "staging", "multipart", "tus"), marks=S3),
    ],
)
def test_one_object_may_come_by_all_ways_at_once(
    request: pytest.FixtureRequest, kind: str, ways: tuple[str, ...]
) -> None:
    host, store = MemoryHost(), shelf_of(request, kind, "mixed")
    with ExitStack() as stack:
        sites = [stack.enter_context(walking(way, host, store, 5 * MIB)) for way in ways]
        sites = [sites[number % len(sites)] for number in range(8)]
        items = [site.ask(BODY) for site in sites]
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda site, item: site.deliver(item, BODY), sites, items))
        assert sites[0].pull(BODY) == BODY
        served = host.objects[OID].key
        shared = served.partition(".")[0]
        until(lambda: set(lies(sites[0])) <= {served, shared})


@pytest.mark.parametrize("site", WITHOUT_MEMORY[:3], indirect=True)
def test_a_quota_that_is_used_up_stops_the_batch(site: Site) -> None:
    site.host.quota = len(BODY) - 1
    told = {"operation": "upload", "objects": [{"oid": OID, "size": len(BODY)}]}
    at = f"{site.url}/org/model.git/info/lfs/objects/batch"
    answer = site.http.post(at, json=told, auth=("ann", "ann"))
    assert answer.status_code == 507
    assert "objects" not in answer.json()


@pytest.mark.parametrize("site", [*WITHOUT_MEMORY[:3], *PAST_US], indirect=True)
def test_an_empty_object_is_a_normal_object(site: Site) -> None:
    item = site.ask(b"")
    answers = site.send(item, b"")
    if "verify" in item["actions"]:
        answers.append(site.verify(item))
    assert all(answer.is_success for answer in answers)
    site.wait(b"")
    assert site.pull(b"") == b""
