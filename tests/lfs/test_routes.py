"""Git LFS over HTTP, as a client sees it."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import time
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from lfs.choices import Policy
from lfs.store import lfs_key
from tests.lfs.alone import application
from tests.lfs.conftest import MEDIA_TYPE, serving
from tests.lfs.memory_host import MemoryHost

L = "/org/model.git/info/lfs"
BODY = b"weights " * 1000
OID = hashlib.sha256(BODY).hexdigest()


def ask(client: httpx.Client, operation: str, *objects: dict[str, object], at: str = L, **more: object) -> dict:
    answer = client.post(f"{at}/objects/batch", json={"operation": operation, "objects": objects, **more})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith(MEDIA_TYPE)
    return answer.json()


def href(client: httpx.Client, operation: str, body: bytes = BODY, at: str = L) -> str:
    oid = hashlib.sha256(body).hexdigest()
    return ask(client, operation, {"oid": oid, "size": len(body)}, at=at)["objects"][0]["actions"][operation]["href"]


def send(verb: str, url: str, **more: Any) -> httpx.Response:
    """Ask as a client without credentials; no certificates to load, so it costs no time."""
    return httpx.request(verb, url, verify=False, trust_env=False, **more)


def push(client: httpx.Client, body: bytes = BODY, at: str = L) -> None:
    assert send("PUT", href(client, "upload", body, at), content=body).status_code == 200


def test_an_uploaded_object_comes_back(ann: httpx.Client, host: MemoryHost) -> None:
    answer = ask(ann, "upload", {"oid": OID, "size": len(BODY)})
    assert (answer["transfer"], answer["hash_algo"]) == ("basic", "sha256")
    (item,) = answer["objects"]
    assert item["authenticated"] is True
    action = item["actions"]["upload"]
    assert action["header"] == {"Content-Type": "application/octet-stream"}
    assert action["expires_in"] == 840
    sent = send("PUT", action["href"], content=BODY, headers=action["header"])
    assert (sent.status_code, sent.content) == (200, b"")
    assert ask(ann, "upload", {"oid": OID, "size": len(BODY)})["objects"] == [{"oid": OID, "size": len(BODY)}]
    got = send("GET", href(ann, "download"))
    assert got.content == BODY
    assert got.headers["etag"] == f'"{OID}"'
    assert got.headers["x-content-type-options"] == "nosniff"


def test_an_empty_object_is_a_normal_object(ann: httpx.Client) -> None:
    push(ann, b"")
    got = send("GET", href(ann, "download", b""))
    assert (got.status_code, got.content, got.headers["content-length"]) == (200, b"", "0")


@pytest.mark.parametrize("at", [L, "/org/model/info/lfs"])
def test_both_addresses_of_a_repo_are_the_same(ann: httpx.Client, at: str) -> None:
    push(ann, at=at)
    assert "actions" not in ask(ann, "upload", {"oid": OID, "size": len(BODY)})["objects"][0]


def test_a_dataset_is_another_repo(ann: httpx.Client) -> None:
    push(ann)
    at = "/datasets/org/data.git/info/lfs"
    assert "upload" in ask(ann, "upload", {"oid": OID, "size": len(BODY)}, at=at)["objects"][0]["actions"]
    push(ann, at=at)


def test_an_oid_that_another_repo_holds_looks_absent_until_its_bytes_are_sent(ann: httpx.Client) -> None:
    push(ann)
    other = "/org/other.git/info/lfs"
    assert ask(ann, "download", {"oid": OID, "size": len(BODY)}, at=other)["objects"][0]["error"]["code"] == 404
    into = href(ann, "upload", at=other)
    assert send("PUT", into, content=b"garbage!" * 1000).status_code == 400
    assert ask(ann, "download", {"oid": OID}, at=other)["objects"][0]["error"]["code"] == 404
    wrong_size = ask(ann, "upload", {"oid": OID, "size": 1}, at=other)["objects"][0]
    assert "upload" in wrong_size["actions"]
    assert send("PUT", into, content=BODY).status_code == 200
    assert send("GET", href(ann, "download", at=other)).content == BODY


@pytest.mark.parametrize("body", [BODY[:-1], BODY + b"x", b"x" * len(BODY), b""])
def test_wrong_bytes_are_refused_with_400_and_leave_nothing(ann: httpx.Client, folder: Path, body: bytes) -> None:
    into = href(ann, "upload")
    assert send("PUT", into, content=body).status_code == 400
    chunked = send("PUT", into, content=iter([body]))
    assert chunked.status_code == 400
    assert chunked.json()["message"]
    assert "download" not in ask(ann, "download", {"oid": OID})["objects"][0].get("actions", {})
    assert [path for path in folder.rglob("*") if path.is_file()] == []
    assert send("PUT", into, content=iter([BODY])).status_code == 200


def test_an_upload_may_be_repeated(ann: httpx.Client) -> None:
    into = href(ann, "upload")
    assert [send("PUT", into, content=BODY).status_code for _ in range(3)] == [200, 200, 200]


def test_a_grant_opens_nothing_else(ann: httpx.Client) -> None:
    push(ann)
    up, down = href(ann, "upload", b"other"), href(ann, "download")
    other = down.replace(OID, "0" * 64)
    for refused in (
        send("PUT", down, content=BODY),
        send("GET", up),
        send("GET", other),
        send("GET", down[:-4] + "AAAA"),
        send("GET", down.split("?")[0]),
        ann.get(down.split("?")[0]),
    ):
        assert refused.status_code == 403
        assert refused.headers["content-type"].startswith(MEDIA_TYPE)


def test_a_deleted_link_ends_its_grants(ann: httpx.Client, host: MemoryHost) -> None:
    push(ann)
    down = href(ann, "download")
    host.links.clear()
    assert send("GET", down).status_code == 404


def test_a_download_goes_on_where_it_stopped(ann: httpx.Client) -> None:
    body = os.urandom(3 * (1 << 20) + 5)
    push(ann, body)
    down = href(ann, "download", body)
    part = send("GET", down, headers={"Range": f"bytes=1000000-{len(body) - 1}"})
    assert part.status_code == 206
    assert part.headers["content-range"] == f"bytes 1000000-{len(body) - 1}/{len(body)}"
    assert part.content == body[1_000_000:]
    assert send("GET", down, headers={"Range": "bytes=-5"}).content == body[-5:]
    assert send("GET", down, headers={"Range": "bytes=0-1,5-6"}).status_code == 200
    beyond = send("GET", down, headers={"Range": f"bytes={len(body)}-"})
    assert (beyond.status_code, beyond.headers["content-range"]) == (416, f"bytes */{len(body)}")
    other = send("GET", down, headers={"Range": "bytes=1-", "If-Range": '"another"'})
    assert (other.status_code, other.content) == (200, body)


def test_head_and_if_none_match_send_no_bytes(ann: httpx.Client) -> None:
    push(ann)
    down = href(ann, "download")
    head = send("HEAD", down)
    assert (head.status_code, head.headers["content-length"], head.content) == (200, str(len(BODY)), b"")
    for tags in (f'"{OID}"', f'"x", W/"{OID}"', "*"):
        same = send("GET", down, headers={"If-None-Match": tags})
        assert (same.status_code, same.content) == (304, b"")
    assert send("GET", down, headers={"If-None-Match": '"x"'}).status_code == 200


def test_duplicates_are_answered_twice_and_faults_per_object(ann: httpx.Client) -> None:
    good = {"oid": OID, "size": len(BODY)}
    bad = [{"oid": OID.upper(), "size": 1}, {"oid": "../x", "size": 1}, {"size": 1}, "x", None]
    sizes: list[object] = [-1, 2**63, "1", None, True, 1.5]
    misfits = [{"oid": "1" * 64, "size": size} for size in sizes]
    answer = ask(ann, "upload", good, *bad, *misfits, good)["objects"]
    assert len(answer) == 2 + len(bad) + len(misfits)
    assert answer[0] == answer[-1]
    assert "upload" in answer[0]["actions"]
    assert {item["error"]["code"] for item in answer[1:-1]} == {422}


def test_a_wrong_size_of_a_stored_object_is_told(ann: httpx.Client) -> None:
    push(ann)
    for operation in ("upload", "download"):
        assert ask(ann, operation, {"oid": OID, "size": 1})["objects"][0]["error"]["code"] == 422
    assert "download" in ask(ann, "download", {"oid": OID})["objects"][0]["actions"]


@pytest.mark.parametrize("ref", [None, {}, {"name": ""}, {"name": "refs/heads/x"}, "main", {"name": None}])
@pytest.mark.parametrize("transfers", [None, [], ["basic"], ["xet", "lfs-standalone-file", "ssh"]])
def test_every_form_of_ref_and_transfers_is_understood(ann: httpx.Client, ref: object, transfers: object) -> None:
    answer = ask(ann, "upload", {"oid": OID, "size": 1}, ref=ref, transfers=transfers, hash_algo="sha_256", extra=[1])
    assert answer["transfer"] == "basic"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"[]", 400),
        (b"[" * 100_000, 400),
        (b'{"operation": "delete", "objects": [{}]}', 400),
        (b'{"operation": "upload", "objects": []}', 400),
        (b'{"operation": "upload", "objects": [{}], "transfers": "basic"}', 400),
        (b'{"operation": "upload", "objects": [{}], "ref": 5}', 400),
        (b'{"operation": "upload", "objects": [{}], "hash_algo": "sha512"}', 409),
        (b'{"operation": "upload", "objects": [' + b",".join([b"{}"] * 10_001) + b"]}", 413),
        (b" " * (8 << 20) + b"{}", 413),
    ],
)
def test_a_batch_without_shape_is_refused(ann: httpx.Client, body: bytes, status: int) -> None:
    answer = ann.post(f"{L}/objects/batch", content=body)
    assert answer.status_code == status
    assert answer.headers["content-type"].startswith(MEDIA_TYPE)
    assert set(answer.json()) == {"message", "request_id"}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Accept": "text/html"}, 406),
        ({"Accept": "text/html, application/json;q=0.1"}, 200),
        ({"Accept": "*/*"}, 200),
        ({"Accept": "application/vnd.git-lfs+json; charset=utf-8"}, 200),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/json; charset=utf-8"}, 200),
    ],
)
def test_media_types_are_negotiated(ann: httpx.Client, headers: dict[str, str], status: int) -> None:
    body = json.dumps({"operation": "download", "objects": [{"oid": OID, "size": 1}]})
    assert ann.post(f"{L}/objects/batch", content=body, headers=headers).status_code == status


def test_who_is_not_known_is_asked_to_log_in(url: str) -> None:
    headers = {"Content-Type": MEDIA_TYPE}
    body = {"operation": "download", "objects": [{"oid": OID, "size": 1}]}
    for auth in (None, ("ann", "wrong")):
        answer = send("POST", url + L + "/objects/batch", json=body, headers=headers, auth=auth)
        assert answer.status_code == 401
        assert answer.headers["lfs-authenticate"] == 'Basic realm="weightroom"'
        assert answer.headers["www-authenticate"] == 'Basic realm="weightroom"'


def test_rights_decide_what_a_batch_may_do(url: str) -> None:
    def status(repo: str, operation: str) -> int:
        body = {"operation": operation, "objects": [{"oid": OID, "size": 1}]}
        at = f"{url}/{repo}/info/lfs/objects/batch"
        return send("POST", at, json=body, auth=("eve", "eve")).status_code

    assert status("org/model.git", "download") == 200
    assert status("org/model.git", "upload") == 403
    assert status("org/absent.git", "download") == 404


def test_other_verbs_are_told_which_ones_to_use(ann: httpx.Client) -> None:
    for verb, path, allowed in (
        ("GET", L, "POST"),
        ("GET", f"{L}/objects/batch", "POST"),
        ("PUT", f"{L}/locks", "GET, POST"),
        ("POST", f"/lfs/o/{OID}", "GET, HEAD, PUT"),
    ):
        answer = ann.request(verb, path)
        assert (answer.status_code, answer.headers["allow"]) == (405, allowed)


def test_a_quota_stops_the_batch_with_507(ann: httpx.Client, host: MemoryHost) -> None:
    host.quota = 10
    answer = ann.post(f"{L}/objects/batch", json={"operation": "upload", "objects": [{"oid": OID, "size": 11}]})
    assert answer.status_code == 507
    assert "10 bytes" in answer.json()["message"]


def test_verify_confirms_what_arrived(ann: httpx.Client) -> None:
    def status(size: object, oid: object = OID) -> int:
        return ann.post(f"{L}/verify", json={"oid": oid, "size": size}).status_code

    assert status(len(BODY)) == 404
    push(ann)
    assert status(len(BODY)) == 200
    assert status(1) == 409
    assert status("x") == 400
    assert status(None) == 400
    assert status(1, oid=5) == 400


def test_a_damaged_object_is_healed_by_a_new_upload(ann: httpx.Client, host: MemoryHost) -> None:
    push(ann)
    host.objects[OID] = replace(host.objects[OID], state="damaged")
    assert ask(ann, "download", {"oid": OID})["objects"][0]["error"]["code"] == 410
    push(ann)
    assert host.objects[OID].key != lfs_key(OID)
    assert send("GET", href(ann, "download")).content == BODY


def test_an_object_that_is_being_deleted_comes_back_under_a_key_of_its_own(ann: httpx.Client, host: MemoryHost) -> None:
    push(ann)
    host.objects[OID] = replace(host.objects[OID], state="deleting")
    push(ann)
    assert host.objects[OID].key != lfs_key(OID)
    assert send("GET", href(ann, "download")).content == BODY


def test_a_file_above_the_limit_is_told_the_setting(host: MemoryHost, store) -> None:  # type: ignore[no-untyped-def]
    with (
        serving(application(host, store, policy=Policy(max_file=10))) as url,
        httpx.Client(base_url=url, auth=("ann", "ann")) as ann,
    ):
        answer = ask(ann, "upload", {"oid": OID, "size": 11}, {"oid": "0" * 64, "size": 10})["objects"]
    assert answer[0]["error"]["code"] == 413
    assert "upload" in answer[1]["actions"]


def test_more_uploads_than_slots_are_told_to_wait(host: MemoryHost, store) -> None:  # type: ignore[no-untyped-def]
    with (
        serving(application(host, store, upload_slots=1)) as url,
        httpx.Client(base_url=url, auth=("ann", "ann")) as ann,
    ):
        into = urlsplit(href(ann, "upload"))
        with socket.create_connection((into.hostname, into.port)) as slow:
            head = (
                f"PUT {into.path}?{into.query} HTTP/1.1\r\nHost: {into.netloc}\r\nContent-Length: {len(BODY)}\r\n\r\n"
            )
            slow.sendall(head.encode() + BODY[:10])
            refused = _until(429, lambda: send("PUT", into.geturl(), content=BODY))
            assert 0 < int(refused.headers["retry-after"]) <= 60
        # The slow client left: its slot is free again, and nothing of it was kept.
        _until(200, lambda: send("PUT", into.geturl(), content=BODY))


def test_a_client_that_leaves_leaves_nothing(ann: httpx.Client, folder: Path) -> None:
    body = BODY * 300
    into = urlsplit(href(ann, "upload", body))
    with socket.create_connection((into.hostname, into.port)) as client:
        head = f"PUT {into.path}?{into.query} HTTP/1.1\r\nHost: {into.netloc}\r\nContent-Length: {len(body)}\r\n\r\n"
        client.sendall(head.encode() + body[:-4000])
        _wait(lambda: len(list((folder / "tmp").iterdir())) == 1)
    _wait(lambda: not list((folder / "tmp").iterdir()))
    oid = hashlib.sha256(body).hexdigest()
    assert ask(ann, "download", {"oid": oid})["objects"][0]["error"]["code"] == 404


def test_locks_are_taken_listed_split_and_given_up(ann: httpx.Client, url: str) -> None:
    taken = ann.post(f"{L}/locks", json={"path": "a/weights.bin", "ref": {"name": "refs/heads/main"}})
    assert taken.status_code == 201
    lock = taken.json()["lock"]
    assert lock["owner"] == {"name": "ann"}
    assert lock["locked_at"].endswith("Z")
    again = ann.post(f"{L}/locks", json={"path": "a/weights.bin"})
    assert again.status_code == 409
    assert again.json()["lock"] == lock
    ann.post(f"{L}/locks", json={"path": "b"})
    assert [each["path"] for each in ann.get(f"{L}/locks").json()["locks"]] == ["a/weights.bin", "b"]
    page = ann.get(f"{L}/locks", params={"limit": 1}).json()
    assert len(page["locks"]) == 1
    rest = ann.get(f"{L}/locks", params={"cursor": page["next_cursor"]}).json()
    assert [each["path"] for each in rest["locks"]] == ["b"]
    assert "next_cursor" not in rest
    assert ann.get(f"{L}/locks", params={"path": "b"}).json()["locks"] == rest["locks"]
    assert ann.get(f"{L}/locks", params={"id": lock["id"]}).json()["locks"] == [lock]
    with httpx.Client(base_url=url, auth=("bob", "bob")) as bob:
        split = bob.post(f"{L}/locks/verify", json={}).json()
        assert (len(split["ours"]), len(split["theirs"])) == (0, 2)
        for force in (False, True):
            assert bob.post(f"{L}/locks/{lock['id']}/unlock", json={"force": force}).status_code == 403
        other = bob.post(f"{L}/locks", json={"path": "c"}).json()["lock"]
    assert ann.post(f"{L}/locks/{other['id']}/unlock", json={}).status_code == 403
    assert ann.post(f"{L}/locks/{other['id']}/unlock", json={"force": True}).json()["lock"] == other
    assert ann.post(f"{L}/locks/{lock['id']}/unlock", json={}).status_code == 200
    assert ann.post(f"{L}/locks/{lock['id']}/unlock", json={}).status_code == 404


@pytest.mark.parametrize("path", ["", "/a", "a/../b", "a//b", "a\0b", "./a", "x" * 5000, None, 5, "\ud800"])
def test_a_lock_needs_a_path_in_the_repo(ann: httpx.Client, path: object) -> None:
    assert ann.post(f"{L}/locks", content=json.dumps({"path": path})).status_code == 400


def _until(status: int, act) -> httpx.Response:  # type: ignore[no-untyped-def]
    end = time.monotonic() + 20
    while (answer := act()).status_code != status:
        assert time.monotonic() < end, answer.status_code
    return answer  # type: ignore[no-any-return]


def _wait(done) -> None:  # type: ignore[no-untyped-def]
    end = time.monotonic() + 20
    while not done():
        assert time.monotonic() < end
