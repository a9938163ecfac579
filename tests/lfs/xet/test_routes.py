"""The Xet door answers as its clients expect, and opens nothing that a token was not made for."""

from __future__ import annotations

import hashlib
import json
import socket
from pathlib import Path

import httpx
import pytest
from anyio import from_thread, to_thread

from lfs.heavy import Heavy
from lfs.local import LocalStore
from lfs.store import shard_key
from lfs.xet import hashes
from lfs.xet.asked import MAX_SHARD
from lfs.xet.index import Granted, Leave
from lfs.xet.proving import LONGEST
from lfs.xet.tokens import XetTokens
from tests.lfs.xet.alone import Alone
from tests.lfs.xet.memory_index import DOMAIN, OTHER, MemoryIndex
from tests.lfs.xet.sending import AT, NAME, ONE, TWO, filed, shard_of, stored
from tests.lfs.xet.xorbs import Signing

WRITES = [
    ("POST", f"/v1/xorbs/default/{NAME}"),
    ("POST", f"/v1/xorb-commits/default/{NAME}/grant/{'a' * 32}"),
    ("POST", "/v1/shards"),
    ("POST", "/v2/shards"),
]
ASKS = [("GET", f"/v1/chunks/default/{NAME}"), ("POST", f"/v1/xorb-grants/default/{NAME}")]
READS = [
    ("HEAD", f"/v1/xorbs/default/{NAME}"),
    ("GET", f"/v1/reconstructions/{NAME}"),
    ("GET", f"/v2/reconstructions/{NAME}"),
    ("HEAD", f"/v1/files/{NAME}"),
]


@pytest.mark.parametrize(("verb", "path"), [*WRITES, *ASKS, *READS])
def test_every_address_looks_at_the_token_before_all_else(alone: Alone, verb: str, path: str) -> None:
    alone.index.repos[4] = DOMAIN
    foreign = XetTokens([b"another secret"], alone.clock).issue(Leave(1, 1, DOMAIN, "write", 1 << 40))
    gone = alone.token(repo=4)
    del alone.index.repos[4]
    with alone.speaking() as http:

        def status(token: str, at: str = AT) -> int:
            body = b'{"length": 1}' if verb == "POST" else None
            return http.request(verb, at + path, headers={"authorization": token}, content=body).status_code

        assert status("") == status("Basic YTpi") == status("Bearer xet_AAAA.BBBB") == 401
        assert status(f"Bearer {foreign}") == status(f"Bearer {alone.token(seconds=-1)}") == 401
        assert status(f"Bearer {alone.token(repo=3, domain=OTHER)}") == 403
        assert status(f"Bearer {alone.token()}", f"/xet/{OTHER}/g0") == 403
        assert status(f"Bearer {gone}") == 404
        assert status(f"Bearer {alone.token()}", f"/xet/{DOMAIN}/g1") == 404
        assert status(f"Bearer {alone.token()}", f"/xet/{DOMAIN}/g{'9' * 5000}") == 404
        alone.index.refused_actors.add(1)
        assert status(f"Bearer {alone.token()}") == 401


def test_leave_to_read_writes_nothing_and_finds_nothing_out(alone: Alone) -> None:
    with alone.speaking() as http:
        stored(http, ONE)
        filed(http, ONE, (0, 3))
    mark = hashes.text(hashes.chunk(ONE.parts[0]))
    with alone.speaking(alone.token("read")) as http:
        for verb, path in WRITES:
            assert http.request(verb, AT + path).status_code == 403
        assert http.get(f"{AT}/v1/chunks/default/{mark}").status_code == 404
        grant = http.post(f"{AT}/v1/xorb-grants/default/{NAME}", json={"length": len(ONE.body)})
        assert grant.status_code == 404


def test_the_host_hears_whose_good_token_it_is(alone: Alone) -> None:
    with alone.speaking(alone.token(actor=0)) as http:
        http.head(f"{AT}/v1/files/{NAME}")
    token = alone.token("read", actor=7)
    with alone.speaking(token) as http:
        http.head(f"{AT}/v1/files/{NAME}")
        http.post(f"{AT}/v1/xorbs/default/{NAME}")
        assert alone.greeted == [(token, 7)]
        alone.index.refused_actors.add(7)
        assert http.head(f"{AT}/v1/files/{NAME}").status_code == 401
    assert alone.greeted == [(token, 7)]


def test_a_refusal_says_why_in_a_sentence(http: httpx.Client) -> None:
    refused = http.post(f"{AT}/v1/shards", headers={"authorization": ""})
    assert refused.headers["www-authenticate"].startswith("Bearer")
    assert refused.json() == {"error": "Send the Xet token that the Hub gave you: Authorization: Bearer xet_…."}


@pytest.mark.parametrize("verb", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"])
def test_what_is_not_spoken_here_is_404(http: httpx.Client, verb: str) -> None:
    for path in ("/xet/", "/xet/blob", f"{AT}/v1/file-chunk-hashes/{NAME}", f"{AT}/v3/shards", f"{AT}/v1/batch", AT):
        assert http.request(verb, path).status_code == 404
    if verb != "POST":
        assert http.request(verb, f"{AT}/v1/shards").status_code == 404
        assert http.request(verb, "/v1/telemetry").status_code == 404
    assert http.request("PUT", f"/xet/blob/xet/xorbs/aa/{NAME}").status_code == 404


def test_telemetry_is_taken_and_bounded(http: httpx.Client) -> None:
    assert http.post("/v1/telemetry", json={"uploads": 1}).status_code == 200
    assert http.post("/v1/telemetry", content=bytes(70_000)).status_code == 413


def test_a_xorb_is_taken_once(http: httpx.Client) -> None:
    at = f"{AT}/v1/xorbs/default/{NAME}"
    assert http.head(at).status_code == 404
    stored(http, ONE)
    assert http.post(at, content=ONE.body).json() == {"was_inserted": False}
    there = http.head(at.replace("default", "default-merkledb"))
    assert (there.status_code, there.headers["content-length"]) == (200, str(len(ONE.body)))
    assert http.head(at.replace("default", "elsewhere")).status_code == 404


def test_a_xorb_that_is_not_what_it_says_is_refused(http: httpx.Client) -> None:
    at = f"{AT}/v1/xorbs/default/"
    for name, body in ((NAME, TWO.body), (NAME, ONE.body[:-1]), (NAME, b""), (NAME.upper(), ONE.body), ("x", ONE.body)):
        refused = http.post(at + name, content=body)
        assert (refused.status_code, refused.json()["error"][-1]) == (400, ".")
    assert http.post(at + NAME, content=ONE.body, headers={"content-encoding": "gzip"}).status_code == 400
    assert http.head(at + NAME).status_code == 404


def test_too_long_a_body_is_refused_by_its_length(http: httpx.Client) -> None:
    for path, size in ((f"/v1/xorbs/default/{NAME}", LONGEST), ("/v1/shards", MAX_SHARD), ("/v2/shards", MAX_SHARD)):
        request = f"POST {AT}{path} HTTP/1.1\r\nhost: x\r\nauthorization: {http.headers['authorization']}\r\n"
        with socket.create_connection((http.base_url.host, http.base_url.port or 80), timeout=10) as wire:
            wire.sendall(f"{request}content-length: {size + 1}\r\n\r\n".encode())
            assert wire.recv(4096).startswith(b"HTTP/1.1 413")


def test_a_full_house_asks_to_come_again(heavy: Heavy, tmp_path: Path) -> None:
    alone = Alone(LocalStore(tmp_path / "shelf", min_free=0, fsync=False), heavy, tmp_path / "coming", slots=0)
    with alone.speaking() as http:
        for path in (f"/v1/xorbs/default/{NAME}", "/v1/shards", "/v2/shards"):
            refused = http.post(AT + path, content=ONE.body)
            assert (refused.status_code, refused.headers["retry-after"]) == (429, "5")


def test_a_shelf_that_signs_nothing_grants_what_it_has(http: httpx.Client) -> None:
    at, asked = f"{AT}/v1/xorb-grants/default/{NAME}", {"length": len(ONE.body)}
    assert http.post(at, json=asked).status_code == 404
    stored(http, ONE)
    assert http.post(at, json=asked).status_code == 200
    for wrong in (b"", b"[]", b'{"length": "many"}', b'{"length": 0}', b'{"checksum": {"algo": 1}}', b"\xff"):
        assert http.post(at, content=wrong).status_code == 400
    assert http.post(at, json={"length": LONGEST + 1}).status_code == 413
    assert http.post(at, content=bytes(70_000)).status_code == 413


def test_a_shelf_that_signs_takes_xorbs_itself(heavy: Heavy, tmp_path: Path) -> None:
    store = Signing()
    with Alone(store, heavy, tmp_path).speaking() as http:
        checksum = {"algo": "crc64nvme", "value": str(2**64 - 1)}
        asked = {"length": len(ONE.body), "checksum": checksum}
        granted = http.post(f"{AT}/v1/xorb-grants/default/{NAME}", json=asked)
        ticket = granted.json()
        assert (granted.status_code, ticket["method"]) == (201, "PUT")
        assert ticket["headers"] == {"content-type": "application/octet-stream"}
        commit = f"{AT}/v1/xorb-commits/default/{NAME}/grant/{ticket['id']}"
        assert http.post(commit).status_code == 404
        store.arrive(ticket["url"], ONE.body)
        assert http.post(commit.replace(NAME, hashes.text(TWO.hash))).status_code == 404
        assert http.post(commit).json() == {"was_inserted": True}
        assert http.post(commit).json() == {"was_inserted": False}
        assert http.post(f"{AT}/v1/xorb-commits/default/{NAME}/grant/unknown").status_code == 200


class Watched(MemoryIndex):
    """An index that sees how many threads are taken that all requests share."""

    taken: tuple[int, ...] = ()

    def granted(self, id: str) -> Granted:
        found = from_thread.run_sync(lambda: to_thread.current_default_thread_limiter().borrowed_tokens)
        self.taken += (found,)
        return super().granted(id)


def test_a_xorb_is_proven_on_a_thread_that_nobody_else_needs(heavy: Heavy, tmp_path: Path) -> None:
    index = Watched()
    with Alone(Signing(), heavy, tmp_path, index).speaking() as http:
        assert http.post(f"{AT}/v1/xorb-commits/default/{NAME}/grant/unknown").status_code == 404
    assert index.taken == (0,)


def test_a_shard_is_filed_once(alone: Alone, http: httpx.Client) -> None:
    stored(http, ONE)
    data = shard_of(ONE, (0, 2), (4, 5), sha256="ab" * 32)
    answers = [http.post(f"{AT}/{version}/shards", content=data) for version in ("v2", "v1")]
    lines = [json.loads(line) for line in answers[0].text.splitlines()]
    assert lines[-1] == {"type": "result", "result": 1}
    assert {"type": "validating", "verified": 1, "total": 1} in lines
    assert {"type": "committing", "stage": "syncing"} in lines
    assert answers[1].json() == {"result": 0}
    assert list(alone.index.links.values()) == ["declared"]
    sha256 = hashlib.sha256(data).hexdigest()
    assert alone.store.stat(shard_key(sha256)).size == len(data)


@pytest.mark.parametrize(
    ("shard", "why"),
    [
        (b"", "does not begin"),
        (bytes(1000), "does not begin"),
        (shard_of(TWO, (0, 1)), "not here any more"),
        (shard_of(ONE, (0, 1), proof=b""), "proves nothing"),
        (shard_of(ONE, (0, 1), proof=bytes(32)), "others here"),
        (
            shard_of(ONE, (0, 1)).replace(hashes.file([(hashes.chunk(ONE.parts[0]), 20_000)]), bytes(31) + b"1"),
            "another",
        ),
        (shard_of(ONE, (0, 1)).replace(hashes.chunk(ONE.parts[3]), bytes(31) + b"1"), "not as it is"),
    ],
)
def test_a_shard_that_lies_is_refused_with_its_reason(http: httpx.Client, shard: bytes, why: str) -> None:
    stored(http, ONE)
    refused = http.post(f"{AT}/v1/shards", content=shard)
    assert refused.status_code == 400
    assert why in refused.json()["error"]
    told = http.post(f"{AT}/v2/shards", content=shard)
    last = json.loads(told.text.splitlines()[-1])
    assert told.status_code == 200
    assert last == {"type": "error", "message": refused.json()["error"], "retryable": False}
