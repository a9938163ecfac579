"""A hostile uploader on every way into the store: nothing is taken on trust, and nobody's bytes on somebody's word."""

from __future__ import annotations

import bisect
import hashlib
import json
import random
import secrets
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from lfs.grants import Grants, Op
from registry.config import Config
from tests.clients.hostile import Site, refused, unharmed
from tests.clients.test_git import create
from tests.clients.uploading import DIRECT, PART, PARTS, PROXY, STAGING, TUS_WAY, Sending, Way, asked, begin, until
from tests.conftest import LITTLE, QUIET, bucket
from tests.services import s3
from tests.services.house import House, open_house
from tests.services.programs import Git, need

pytestmark = pytest.mark.clients
CEPH = [pytest.mark.s3, pytest.mark.xdist_group("ceph")]
MOTO = [pytest.mark.s3, pytest.mark.xdist_group("staging")]


@pytest.fixture(scope="module")
def staging_house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A house that sends uploads to a bucket which enforces nothing."""
    with s3.moto() as endpoint:
        s3.make_bucket(endpoint, "weights")
        settings = bucket(endpoint) | QUIET | LITTLE | {"UPLOAD": "staging"}
        with open_house(tmp_path_factory.mktemp("staging"), **settings) as house:
            house.enforced()
            yield house


@pytest.fixture
def door(request: pytest.FixtureRequest, sites: dict[str, Site]) -> Iterator[tuple[Site, Way]]:
    """A site, and a way that bytes take there; it must be well after the test."""
    name, way = request.param
    house: House = request.getfixturevalue(f"{name}_house")
    site = sites.get(house.url) or sites.setdefault(house.url, Site(house))
    with unharmed(site):
        yield site, way


WAYS = [
    pytest.param(("small", PROXY), id="proxy"),
    pytest.param(("small", TUS_WAY), id="tus"),
    pytest.param(("small", PARTS), id="parts"),
    pytest.param(("ceph", DIRECT), id="direct", marks=CEPH),
    pytest.param(("ceph", PARTS), id="parts to a bucket", marks=CEPH),
    pytest.param(("staging", STAGING), id="staging", marks=MOTO),
]
IN_PARTS = [WAYS[2], WAYS[4]]


def weights(way: Way) -> tuple[bytes, str]:
    """Make bytes that no repo holds yet; give them and their oid."""
    data = secrets.token_bytes(1000) * (way.size // 1000) + secrets.token_bytes(way.size % 1000)
    return data, hashlib.sha256(data).hexdigest()


def strangers(site: Site) -> str:
    """Make a repo of the stranger."""
    name = f"theft-{secrets.token_hex(4)}"
    assert site.ask("POST", "/api/repos/create", "stranger", json={"name": name}).status_code == 200
    return f"mal/{name}"


def held(site: Site, way: Way, repo: str, oid: str, who: str = "owner") -> bool:
    """Say whether a repo counts an object as there; it must not have served one before it counts it."""
    download = asked(site, way, repo, oid, who, "download")
    upload = asked(site, way, repo, oid, who, "upload")
    assert "error" in download or "actions" not in upload, (download, upload)
    return "actions" not in upload


def commit(site: Site, repo: str, oid: str, size: int, who: str) -> int:
    """Commit a pointer to an object by the Hub's API; return the status."""
    lines: list[object] = [{"key": "header", "value": {"summary": "s"}}]
    lines.append({"key": "lfsFile", "value": {"path": "w.bin", "algo": "sha256", "oid": oid, "size": size}})
    body = b"\n".join(json.dumps(line).encode() for line in lines)
    return site.ask("POST", f"/api/models/{repo}/commit/main", who, content=body).status_code


def served(site: Site, way: Way, repo: str, oid: str) -> bytes:
    """Download an object as a client does, as soon as it is proven: what has arrived counts as there before."""
    until(lambda: "actions" in asked(site, way, repo, oid, "owner", "download"))
    action = asked(site, way, repo, oid, "owner", "download")["actions"]["download"]
    return site.ask("GET", action["href"], None, headers=action.get("header", {})).content


@pytest.mark.parametrize("door", WAYS, indirect=True)
def test_an_oid_is_no_proof_and_bytes_that_are_not_its_own_are_none(door: tuple[Site, Way]) -> None:
    site, way = door
    secret, mine = site.repo(private=True), strangers(site)
    data, oid = weights(way)
    assert begin(site, way, secret, oid).send(data).status_code in (200, 204)
    until(lambda: held(site, way, secret, oid))
    theft = begin(site, way, mine, oid, "stranger")
    if "verify" in theft.actions:
        refused(theft.verify(), "lfs", 404)
    at = f"/{mine}.git/info/lfs/verify"
    refused(site.ask("POST", at, "stranger", json={"oid": oid, "size": way.size}), "lfs", 404)
    if way is PARTS:
        for parts in ([], [{"partNumber": n, "etag": "x"} for n in (1, 2)]):
            refused(theft.complete(parts), "lfs", 400)
    if way is TUS_WAY:
        assert theft.offset().headers["upload-offset"] == "0"
        assert theft.patch(b"", way.size).status_code == 409
    garbage(theft)
    assert not held(site, way, mine, oid, "stranger")
    assert commit(site, mine, oid, way.size, "stranger") in (400, 404, 422)
    assert served(site, way, secret, oid) == data


def garbage(theft: Sending) -> None:
    """Send bytes of the right length; return once they are refused for good."""
    site, way = theft.site, theft.way
    answer = theft.send(bytes(way.size))
    if way is PARTS:
        until(lambda: theft.complete([{"partNumber": n, "etag": "x"} for n in (1, 2)]).status_code == 400)
    elif way is STAGING:
        until(lambda: theft.verify().status_code == 404)
    elif way is DIRECT:
        assert answer.status_code in (400, 403)
        refused(theft.verify(), "lfs", 404)
    else:
        refused(answer, "lfs", 400)
        if way is TUS_WAY:
            assert theft.offset().headers["upload-offset"] == "0"
    assert site.ask("GET", "/version", None).status_code == 200


OPS: dict[str, Op] = {"o": "put", "part": "part", "complete": "complete", "tus": "tus"}
VERBS: dict[Op, str] = {"put": "PUT", "part": "PUT", "tus": "PATCH", "complete": "POST", "verify": "POST"}


def op_of(href: str) -> Op:
    """Say what an address of ours is for."""
    path = urlsplit(href).path
    return "verify" if path.endswith("/verify") else OPS[path.split("/")[2]]


def ours(sending: Sending) -> list[str]:
    """List the addresses of an upload that carry leave of ours; the bucket checks its own."""
    parts = sending.parts()[:1] if sending.way is PARTS else []
    verify = [str(sending.actions["verify"]["href"])] if "verify" in sending.actions else []
    return [href for href in (sending.href, *parts, *verify) if "grant=" in href]


@pytest.mark.parametrize("door", WAYS, indirect=True)
def test_leave_is_for_one_upload_one_act_and_a_while(door: tuple[Site, Way]) -> None:
    site, way = door
    repo, other = site.repo(), site.repo()
    _, oid = weights(way)
    one, two = begin(site, way, repo, oid), begin(site, way, other, oid)
    grants = Grants(Config.from_environ(site.house.environment).secrets(), lambda: 0.0)
    body = json.dumps({"oid": oid, "size": way.size})
    for href, others in zip(ours(one), ours(two), strict=True):
        path, _, good = href.partition("?grant=")
        granted = grants.read(good, op_of(href), oid)
        wrong = ["", "x", good[:-1], "B" + good[1:], good + good]
        wrong += [grants.issue(replace(granted, op=op)) for op in (*VERBS, "get") if op != granted.op]
        wrong.append(grants.issue(replace(granted, expires=1_000_000_000)))
        if granted.op not in ("put", "verify"):
            # These two are for an object, which the other repo was promised as well.
            wrong.append(others.partition("?grant=")[2])
        for grant in wrong:
            headers = {"Content-Type": "application/json", "Tus-Resumable": "1.0.0"}
            answer = site.ask(VERBS[granted.op], f"{path}?grant={grant}", None, content=body, headers=headers)
            refused(answer, "lfs", 403)
    assert not held(site, way, repo, oid)
    log = site.house.log.read_text()
    assert not [href for href in ours(one) if href.partition("?grant=")[2] in log]


@pytest.mark.parametrize("door", IN_PARTS, indirect=True)
def test_parts_make_the_object_or_nothing(door: tuple[Site, Way]) -> None:
    site, way = door
    repo = site.repo()
    data, oid = weights(way)
    upload = begin(site, way, repo, oid)
    to_us = upload.parts()[0].startswith(site.house.url)
    if to_us:
        odd_parts(upload, data)
    else:
        short = site.ask("PUT", upload.parts()[0], None, content=data[: PART - 1])
        assert short.status_code in (200, 400, 403)
        refused(upload.complete([{"partNumber": 1, "etag": "x"}, {"partNumber": 2, "etag": "y"}]), "lfs", 400)
    sent = upload.put_parts(data)
    one, two = sent
    for listed in ([], [one], [two], [two, one], [one, one], [one, two, two], [one, {**two, "etag": "x"}]):
        refused(upload.complete(listed), "lfs", 400)
    for odd in (None, 7, "x", [7], [{}], [{"partNumber": "1", "etag": "x"}], [{**one, "partNumber": 1.0}, two]):
        refused(upload.complete(odd), "lfs", 400)
    for number in (0, -1, 3, 10**30):
        refused(upload.complete([one, {**two, "partNumber": number}]), "lfs", 400)
    refused(upload.complete(sent, oid="ab" * 32), "lfs", 400)
    assert not held(site, way, repo, oid)
    assert [upload.complete(sent).status_code for _ in range(3)] == [200, 200, 200]
    until(lambda: held(site, way, repo, oid))
    assert upload.complete(sent).status_code == 200
    late = site.ask("PUT", upload.parts()[0], None, content=bytes(PART))
    assert late.status_code == 404
    assert served(site, way, repo, oid) == data


def odd_parts(upload: Sending, data: bytes) -> None:
    """Send parts of wrong lengths and of no number; all are refused, none with 422."""
    first, site = upload.parts()[0], upload.site
    for wrong in (data[: PART - 1], data[: PART + 1], b"", iter([data[: PART - 1]]), iter([data[: PART + 1]])):
        refused(site.ask("PUT", first, None, content=wrong), "lfs", 400)
    for number in ("0", "3", "-1", "x", "1e0", "9" * 30):
        answer = site.ask("PUT", first.replace("/1?", f"/{number}?"), None, content=data[:PART])
        refused(answer, "lfs", 400)
    assert site.ask("GET", first, None).status_code == 405
    refused(upload.complete([{"partNumber": n, "etag": "x"} for n in (1, 2)]), "lfs", 400)


@pytest.mark.s3
@pytest.mark.xdist_group("ceph")
@pytest.mark.parametrize("door", [WAYS[3]], indirect=True)
def test_a_bucket_takes_just_the_bytes_that_were_signed(door: tuple[Site, Way]) -> None:
    site, way = door
    repo = site.repo()
    data, oid = weights(way)
    upload = begin(site, way, repo, oid)
    other = begin(site, way, repo, weights(way)[1])
    assert not upload.href.startswith(site.house.url)
    header = upload.actions["upload"]["header"]
    (bound,) = (name for name in header if name.lower() == "x-amz-content-sha256")
    tries = [upload.whole(bytes(way.size)), upload.whole(data[:-1]), upload.whole(data + b"x")]
    tries += [upload.whole(bytes(way.size), **{bound: hashlib.sha256(bytes(way.size)).hexdigest()})]
    tries += [upload.whole(bytes(way.size), **{bound: "UNSIGNED-PAYLOAD"})]
    without = {name: value for name, value in header.items() if name != bound}
    tries.append(site.ask("PUT", upload.href, None, content=bytes(way.size), headers=without))
    moved = upload.href.replace(upload.href.partition("?")[0], other.href.partition("?")[0])
    tries.append(site.ask("PUT", moved, None, content=data, headers=header))
    longer = upload.href.replace("X-Amz-Expires=", "X-Amz-Expires=9")
    tries.append(site.ask("PUT", longer, None, content=data, headers=header))
    tries += [site.ask(verb, upload.href, None, headers=header) for verb in ("GET", "DELETE")]
    assert {answer.status_code for answer in tries} <= {400, 403, 411}
    refused(upload.verify(), "lfs", 404)
    assert upload.whole(data).status_code == 200
    refused(upload.verify(way.size + 1), "lfs", 409)
    refused(other.verify(), "lfs", 404)
    assert [upload.verify().status_code for _ in range(2)] == [200, 200]
    assert upload.whole(bytes(way.size)).status_code in (400, 403)
    assert served(site, way, repo, oid) == data


@pytest.mark.s3
@pytest.mark.xdist_group("staging")
@pytest.mark.parametrize("door", [WAYS[5]], indirect=True)
def test_a_url_that_is_used_once_more_changes_nothing_that_was_proven(door: tuple[Site, Way]) -> None:
    site, way = door
    repo = site.repo()
    data, oid = weights(way)
    upload = begin(site, way, repo, oid)
    assert upload.whole(data).status_code == 200
    refused(upload.verify(way.size - 1), "lfs", 409)
    assert upload.verify().status_code == 200
    assert served(site, way, repo, oid) == data
    assert upload.whole(bytes(way.size)).status_code == 200
    assert upload.verify().status_code == 200
    assert served(site, way, repo, oid) == data


def test_a_full_disk_is_told_to_who_pushes(tmp_path: Path, git: Git) -> None:
    need("git-lfs")
    with open_house(tmp_path / "h", **QUIET) as house:
        repo = create(house, "full")
        git("lfs", "install", "--skip-repo")
        git("clone", "-q", house.remote(repo), "work", at=tmp_path)
        git("config", "lfs.transfer.maxretries", "1", at=tmp_path / "work")
        git.commit(tmp_path / "work", {"a.safetensors": b"weights"})
        house.stop()
        house.settings = {**house.settings, "WEIGHTROOM_MIN_FREE": "8000000TiB"}
        house.start()
        said = git.attempt("lfs", "push", "origin", "main", at=tmp_path / "work")
        assert said.returncode != 0
        assert "MIN_FREE" in said.stderr
        assert '"status": 507' in house.log.read_text()
        git("clone", "-q", house.remote(repo), "again", at=tmp_path)


def distance(one: list[float], other: list[float]) -> float:
    """Return the statistic of Kolmogorov and Smirnov: the greatest distance between two distributions."""
    return max(
        abs(bisect.bisect_right(one, at) / len(one) - bisect.bisect_right(other, at) / len(other))
        for one, other in [(sorted(one), sorted(other))]
        for at in (*one, *other)
    )


def test_time_tells_nobody_which_oids_others_hold(small_site: Site) -> None:
    site, way = small_site, PROXY
    secret, mine = site.repo(private=True), strangers(site)
    data, known = weights(way)
    assert begin(site, way, secret, known).send(data).status_code == 200
    unknown = weights(way)[1]
    chosen = random.Random(1)
    # Neighbours on a busy machine fall upon both alike; a chance in a thousand becomes one in a billion.
    for _ in range(3):
        spent: dict[tuple[str, str], list[float]] = {}
        for _ in range(200):
            for oid in chosen.sample((known, unknown), 2):
                began = time.perf_counter()
                theft = begin(site, way, mine, oid, "stranger")
                asked_for = time.perf_counter()
                assert theft.whole(bytes(way.size)).status_code == 400
                spent.setdefault(("batch", oid), []).append(asked_for - began)
                spent.setdefault(("put", oid), []).append(time.perf_counter() - asked_for)
        told = [distance(spent[step, known], spent[step, unknown]) for step in ("batch", "put")]
        if max(told) < 0.195:
            return
    raise AssertionError(f"the distributions differ by {told}, three times")
