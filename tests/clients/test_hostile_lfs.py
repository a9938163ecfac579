"""A hostile LFS client: no oid opens what its sender may not have, no lie is stored, every refusal speaks LFS."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import secrets
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lfs.grants import Grant, Grants
from registry.config import Config
from tests.clients.hostile import LFS, MIB, Site, bodies_alike, refused, unharmed
from tests.services.house import open_house

pytestmark = pytest.mark.clients
OID = "ab" * 32


def weights(size: int = 1000) -> tuple[bytes, str]:
    """Make bytes that no repo holds yet; give them and their oid."""
    data = secrets.token_bytes(size)
    return data, hashlib.sha256(data).hexdigest()


def one(answer: httpx.Response) -> dict[str, Any]:
    """Return the one object of a batch answer."""
    assert answer.status_code == 200, answer.text
    (found,) = answer.json()["objects"]
    return dict(found)


def asked(site: Site, repo: str, oid: str, size: int, operation: str = "upload") -> dict[str, Any]:
    """Ask for one object."""
    return one(site.batch(repo, operation=operation, objects=[{"oid": oid, "size": size}]))


def href(site: Site, repo: str, oid: str, size: int) -> str:
    """Get leave to upload; return where."""
    action = asked(site, repo, oid, size)["actions"]["upload"]
    return str(action["href"]).removeprefix(site.house.url)


def put(site: Site, where: str, data: bytes) -> httpx.Response:
    """PUT bytes without a token, as clients do."""
    return site.ask("PUT", where, None, content=data)


def stored(site: Site, repo: str, size: int = 1000) -> tuple[bytes, str]:
    """Upload an object to a repo."""
    data, oid = weights(size)
    assert put(site, href(site, repo, oid, size), data).status_code == 200
    return data, oid


def absent(site: Site, repo: str, oid: str, size: int = 1000) -> bool:
    """Say whether a repo neither serves nor counts an object as there."""
    verify = site.ask("POST", f"/{repo}.git/info/lfs/verify", json={"oid": oid, "size": size})
    downloaded = asked(site, repo, oid, size, "download")
    upload = asked(site, repo, oid, size)
    return verify.status_code == 404 and downloaded["error"]["code"] == 404 and "actions" in upload


def grants(site: Site) -> Grants:
    """Sign as the server does, with the clock where a test wants it."""
    return Grants(Config.from_environ(site.house.environment).secrets(), lambda: 1_000_000_000.0)


def row_id(site: Site, repo: str) -> int:
    """Read a repo's row from a grant for it."""
    text = href(site, repo, OID, 1).partition("grant=")[2]
    return int.from_bytes(base64.urlsafe_b64decode(text + "==")[3:11], "big")


BAD_OIDS = ["", "ab", "ab" * 31, "ab" * 33, "AB" * 32, "../" * 21 + "a", "ab" * 31 + "zz", "ab" * 31 + "a\n", "é" * 64]
BAD_OIDS += ["ab" * 32 + "/..", "sha256:" + "a" * 57, "%61" * 21 + "a", "\x00" * 64, "０" * 64]


@pytest.mark.parametrize("oid", BAD_OIDS, ids=lambda oid: repr(oid[:12]))
def test_what_is_no_oid_is_refused_alone(small_site: Site, oid: str) -> None:
    repo = small_site.repo()
    for operation in ("upload", "download"):
        both = [{"oid": oid, "size": 1}, {"oid": OID, "size": 1}]
        answer = small_site.batch(repo, operation=operation, objects=both)
        bad, good = answer.json()["objects"]
        assert bad["error"]["code"] == 422
        assert "actions" in good or good["error"]["code"] == 404
    assert small_site.ask("POST", f"/{repo}.git/info/lfs/verify", json={"oid": oid, "size": 1}).status_code in (
        400,
        404,
    )


BAD_SIZES = [-1, 1.5, 1e300, 2**63, 10**400, "1", "", None, True, [], {}, "-1", "Infinity"]


@pytest.mark.parametrize("size", BAD_SIZES, ids=lambda size: repr(size)[:12])
def test_what_is_no_size_is_refused_alone(site: Site, size: object) -> None:
    repo = site.repo()
    found = one(site.batch(repo, operation="upload", objects=[{"oid": OID, "size": size}]))
    assert found["error"]["code"] == 422
    if size is not None:
        asked_for = site.batch(repo, operation="download", objects=[{"oid": OID, "size": size}])
        assert one(asked_for)["error"]["code"] in (404, 422)
    answer = site.ask("POST", f"/{repo}.git/info/lfs/verify", json={"oid": OID, "size": size})
    assert answer.status_code in (400, 404)
    refused(answer, "lfs", answer.status_code)


@pytest.mark.parametrize("thing", [None, 7, "x", [], {}, {"oid": None}, {"oid": 7, "size": 1}, {"size": 1}])
def test_objects_without_shape_are_refused_alone(small_site: Site, thing: object) -> None:
    assert one(small_site.batch(small_site.repo(), operation="upload", objects=[thing]))["error"]["code"] == 422


BAD_BODIES: dict[str, tuple[bytes, int]] = {
    "nothing": (b"", 400),
    "no json": (b"{", 400),
    "a list": (b"[]", 400),
    "a number": (b"1", 400),
    "half surrogate": (b'{"operation":"upload","objects":[],"ref":{"name":"\\ud800"}}', 400),
    "not utf-8": (b'{"operation":"\xff"}', 400),
    "deep": (b"[" * 100_000, 400),
    "long number": (b'{"operation":"upload","objects":[{"oid":"x","size":' + b"9" * 10_000 + b"}]}", 400),
    "no operation": (b'{"objects":[]}', 400),
    "other operation": (b'{"operation":"delete","objects":[{}]}', 400),
    "list operation": (b'{"operation":["upload"],"objects":[{}]}', 400),
    "no objects": (b'{"operation":"upload"}', 400),
    "empty objects": (b'{"operation":"upload","objects":[]}', 400),
    "object objects": (b'{"operation":"upload","objects":{}}', 400),
    "transfers": (b'{"operation":"upload","objects":[{}],"transfers":7}', 400),
    "other hash": (b'{"operation":"upload","objects":[{}],"hash_algo":"md5"}', 409),
    "list hash": (b'{"operation":"upload","objects":[{}],"hash_algo":["sha256"]}', 409),
    "too long": (b" " * (8 * MIB + 1), 413),
    "too many": (json.dumps({"operation": "upload", "objects": [{"oid": OID, "size": 1}] * 10_001}).encode(), 413),
}


@pytest.mark.parametrize("name", BAD_BODIES)
def test_bodies_that_are_no_batch_are_refused(small_site: Site, name: str) -> None:
    body, status = BAD_BODIES[name]
    address = f"/{small_site.repo()}.git/info/lfs/objects/batch"
    refused(small_site.ask("POST", address, content=body, headers={"Content-Type": LFS}), "lfs", status)


def test_10000_objects_are_answered_and_more_are_not(site: Site) -> None:
    repo = site.repo()
    objects = [{"oid": f"{n:064x}", "size": n} for n in range(10_001)]
    answer = site.batch(repo, operation="download", objects=objects[:-1])
    assert len(answer.json()["objects"]) == 10_000
    refused(site.batch(repo, operation="upload", objects=objects), "lfs", 413)


def test_media_types_are_negotiated(small_site: Site) -> None:
    at = f"/{small_site.repo()}.git/info/lfs"
    body = {"operation": "upload", "objects": [{"oid": OID, "size": 1}]}
    for route in ("objects/batch", "verify", "locks", "locks/verify", "locks/x/unlock"):
        for accept in ("text/html", "application/xml, image/png", "vnd.git-lfs"):
            headers = {"Accept": accept, "Content-Type": LFS}
            refused(small_site.ask("POST", f"{at}/{route}", json=body, headers=headers), "lfs", 406)
        for kind in ("text/plain", "application/x-www-form-urlencoded", "", "application/jsonx"):
            answer = small_site.ask("POST", f"{at}/{route}", content=b"{}", headers={"Content-Type": kind})
            refused(answer, "lfs", 415)
    for method, route in (("GET", "objects/batch"), ("PUT", "verify"), ("DELETE", "locks"), ("GET", "locks/verify")):
        answer = small_site.ask(method, f"{at}/{route}")
        refused(answer, "lfs", 405)
        assert answer.headers["allow"]


def test_only_the_granted_bytes_are_stored(site: Site) -> None:
    repo = site.repo()
    data, oid = weights()
    where = href(site, repo, oid, len(data))
    for wrong in (data[:-1], data + b"x", data[:-1] + bytes([data[-1] ^ 1]), b"", bytes(len(data))):
        refused(put(site, where, wrong), "lfs", 400)
        chunked = site.ask("PUT", where, None, content=iter([wrong]))
        refused(chunked, "lfs", 400)
    answer = site.ask("PUT", where, None, content=data, headers={"Content-Encoding": "gzip"})
    assert answer.status_code in (400, 415)
    refused(answer, "lfs", answer.status_code)
    assert absent(site, repo, oid)
    endless = (bytes(MIB) for _ in range(1000))
    try:
        refused(site.ask("PUT", where, None, content=endless), "lfs", 400)
    except httpx.TransportError:
        pass
    assert absent(site, repo, oid)
    assert put(site, where, data).status_code == 200
    assert not absent(site, repo, oid)


def test_a_body_that_breaks_off_is_never_stored(site: Site) -> None:
    repo = site.repo()
    data, oid = weights(100_000)
    for declared, sent in ((len(data), 50_000), (len(data), 0)):
        wire = http.client.HTTPConnection("127.0.0.1", site.house.port, timeout=10)
        wire.putrequest("PUT", href(site, repo, oid, len(data)))
        wire.putheader("Content-Length", str(declared))
        wire.endheaders()
        wire.send(data[:sent])
        wire.close()
    assert absent(site, repo, oid, len(data))


def test_no_bytes_move_without_a_grant_for_just_that(small_site: Site) -> None:
    # A bucket that checks no signature takes anything; what one does that checks them is tried elsewhere.
    site = small_site
    repo, other = site.repo(), site.repo()
    data, oid = weights()
    kept, held = stored(site, repo)
    where = href(site, repo, oid, len(data))
    good = where.partition("grant=")[2]
    get = str(asked(site, repo, held, len(kept), "download")["actions"]["download"]["href"])
    raw = bytearray(base64.urlsafe_b64decode(good + "=" * (-len(good) % 4)))
    bad = ["", "x", "a" * 5000, "%00", "é", good[:-4], good + "AAAA", get.partition("grant=")[2]]
    for at in range(0, len(raw), 5):
        raw[at] ^= 1
        bad.append(base64.urlsafe_b64encode(raw).decode().rstrip("="))
        raw[at] ^= 1
    bad.append(grants(site).issue(Grant("put", row_id(site, repo), oid, len(data), 999_999_999)))
    bad.append(grants(site).issue(Grant("verify", row_id(site, repo), oid, len(data), 1 << 40)))
    for grant in bad:
        refused(site.ask("PUT", f"/lfs/o/{oid}", content=data, params={"grant": grant}), "lfs", 403)
        if grant != bad[7]:
            refused(site.ask("GET", f"/lfs/o/{held}", params={"grant": grant}), "lfs", 403)
    refused(site.ask("PUT", f"/lfs/o/{oid}", content=data), "lfs", 403)
    refused(put(site, where.replace(oid, held), kept), "lfs", 403)
    refused(put(site, where.replace(oid, oid.upper()), data), "lfs", 403)
    refused(put(site, get.removeprefix(site.house.url), kept), "lfs", 403)
    assert absent(site, repo, oid)
    assert absent(site, other, held)


def test_old_leave_to_read_ends_with_its_repo(small_site: Site) -> None:
    # What a bucket signed itself lives on for its minutes.
    site = small_site
    repo = site.repo()
    data, oid = stored(site, repo)
    get = str(asked(site, repo, oid, len(data), "download")["actions"]["download"]["href"])
    path = get.removeprefix(site.house.url)
    late, late_oid = weights()
    where = href(site, repo, late_oid, len(late))
    assert site.ask("HEAD", path, None).status_code == 200
    assert site.ask("DELETE", "/api/repos/delete", json={"name": repo.split("/")[1]}).status_code == 200
    refused(site.ask("GET", path, None), "lfs", 404)
    refused(put(site, where, late), "lfs", 404)


def test_verify_takes_no_ones_word(site: Site) -> None:
    repo = site.repo()
    data, oid = stored(site, repo)
    at = f"/{repo}.git/info/lfs/verify"
    refused(site.ask("POST", at, json={"oid": oid, "size": len(data) + 1}), "lfs", 409)
    refused(site.ask("POST", at, json={"oid": OID, "size": 1}), "lfs", 404)
    refused(site.ask("POST", f"{at}?grant=x", json={"oid": oid, "size": len(data)}), "lfs", 403)
    refused(site.ask("POST", at, "reader", json={"oid": oid, "size": len(data)}), "lfs", 403)
    refused(site.ask("POST", at, None, json={"oid": oid, "size": len(data)}), "lfs", 401)
    assert site.ask("POST", at, json={"oid": oid, "size": len(data)}).status_code == 200


def test_knowing_an_oid_opens_no_step(site: Site) -> None:
    secret, mine = site.repo(private=True), f"mal/theft-{secrets.token_hex(4)}"
    data, oid = stored(site, secret)
    made = site.ask("POST", "/api/repos/create", "stranger", json={"name": mine.split("/")[1]})
    assert made.status_code == 200
    unknown = weights()[1]
    for each in (oid, unknown):
        objects = [{"oid": each, "size": len(data)}]
        action = one(site.batch(mine, "stranger", operation="upload", objects=objects))["actions"]["upload"]
        where = str(action["href"]).removeprefix(site.house.url)
        refused(put(site, where, b"x" * len(data)), "lfs", 400)
        gone = one(site.batch(mine, "stranger", operation="download", objects=objects))
        assert gone["error"]["code"] == 404
        at = f"/{mine}.git/info/lfs/verify"
        refused(site.ask("POST", at, "stranger", json={"oid": each, "size": len(data)}), "lfs", 404)
        refused(site.batch(secret, "stranger", operation="download", objects=objects), "lfs", 404)
    get = str(asked(site, secret, oid, len(data), "download")["actions"]["download"]["href"])
    assert site.ask("GET", get.replace(oid, unknown), None).status_code == 403
    for size in (len(data) - 1, 0):
        objects = [{"oid": oid, "size": size}]
        assert "actions" in one(site.batch(mine, "stranger", operation="upload", objects=objects))


RANGES = [
    "bytes=",
    "bytes=-",
    "bytes=a-b",
    "bytes=5-1",
    "items=0-1",
    "bytes=0-1,3-4",
    "bytes=--1",
    "bytes= 1 -",
    "\u00b2",
]
RANGES += ["bytes=0-" + "9" * 400, "bytes=" + "0-1," * 2000 + "0-1", "bytes=0x0-0x9", "bytes=-0"]
BEYOND = ["bytes=1000-", "bytes=99999999999999999999-", "bytes=1000-1001", "bytes=9999999999999999999-"]


def test_odd_ranges_get_the_whole_or_a_416(small_site: Site) -> None:
    repo = small_site.repo()
    data, oid = stored(small_site, repo)
    get = str(asked(small_site, repo, oid, len(data), "download")["actions"]["download"]["href"])
    for text in [*RANGES, *BEYOND]:
        answer = small_site.client.get(get, headers={"Range": text.encode("latin-1")})
        assert answer.status_code in (200, 206, 416), text
        if answer.status_code == 416:
            assert answer.headers["content-range"] == f"bytes */{len(data)}"
        else:
            assert data.startswith(answer.content) or data.endswith(answer.content)


WHO = {None: 401, "unknown": 401, "expired": 401, "revoked": 401}


@pytest.mark.parametrize("who", [None, "unknown", "expired", "revoked", "stranger"])
def test_private_and_absent_repos_look_alike(site: Site, who: str | None) -> None:
    secret, nowhere = site.repo(private=True), f"ann/nowhere-{secrets.token_hex(4)}"
    status = WHO.get(who, 404)
    objects = [{"oid": OID, "size": 1}]
    for operation in ("upload", "download"):
        answers = [site.batch(name, who, operation=operation, objects=objects) for name in (secret, nowhere)]
        refused(answers[0], "lfs", status)
        bodies_alike(*answers, names=(secret, nowhere))
    for method, route in (("POST", "verify"), ("POST", "locks"), ("GET", "locks"), ("POST", "locks/verify")):
        body = {"json": {"oid": OID, "size": 1, "path": "a"}} if method == "POST" else {}
        answers = [site.ask(method, f"/{name}/info/lfs/{route}", who, **body) for name in (secret, nowhere)]
        refused(answers[0], "lfs", status)
        bodies_alike(*answers, names=(secret, nowhere))


def test_a_read_token_and_a_query_token_write_nothing(site: Site) -> None:
    repo, objects = site.repo(), [{"oid": OID, "size": 1}]
    refused(site.batch(repo, "reader", operation="upload", objects=objects), "lfs", 403)
    refused(site.batch(repo, "stranger", operation="upload", objects=objects), "lfs", 403)
    owner = site.tokens["owner"]
    body = {"operation": "upload", "objects": objects}
    for query in (f"token={owner}", f"access_token={owner}", f"Authorization=Bearer%20{owner}"):
        refused(site.ask("POST", f"/{repo}.git/info/lfs/objects/batch?{query}", None, json=body), "lfs", 401)
    for path in ("a/../b", "/etc/passwd", "", ".", "a//b", "a\x00b", "p" * 5000, 7, None, ["a"]):
        refused(site.ask("POST", f"/{repo}.git/info/lfs/locks", json={"path": path}), "lfs", 400)
    for query in ("cursor=x", "limit=-1", "limit=x", "cursor=" + "9" * 30, "limit=" + "9" * 30):
        refused(site.ask("GET", f"/{repo}.git/info/lfs/locks?{query}"), "lfs", 400)
    for lock_id in ("x", "%27%20OR%201=1", "9" * 400):
        refused(site.ask("POST", f"/{repo}.git/info/lfs/locks/{lock_id}/unlock", json={"force": True}), "lfs", 404)


def test_a_file_beyond_the_limit_of_a_house_is_refused_at_batch(tmp_path: Path) -> None:
    with open_house(tmp_path / "h", MAX_FILE="1KiB") as house, Site(house) as site, unharmed(site):
        error = asked(site, site.repo(), OID, 1025)["error"]
        assert error["code"] == 413
        assert "MAX_FILE" in str(error["message"])


@settings(max_examples=60, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    body=st.binary(max_size=200)
    | st.recursive(st.none() | st.floats() | st.integers() | st.text(), st.lists).map(
        lambda thing: json.dumps({"operation": "upload", "objects": thing, "path": thing, "oid": thing}).encode()
    )
)
def test_garbage_never_fails_the_server(small_site: Site, body: bytes) -> None:
    for route in ("objects/batch", "verify", "locks", "locks/verify", "locks/x/unlock"):
        answer = small_site.ask("POST", f"/ann/x/info/lfs/{route}", content=body, headers={"Content-Type": LFS})
        assert answer.status_code < 500
    assert put(small_site, f"/lfs/o/{OID}", body).status_code == 403
