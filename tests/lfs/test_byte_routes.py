"""An href opens what it was made for, from its first byte on; nobody can turn it into another one."""

from __future__ import annotations

import base64
import hashlib
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from starlette.applications import Starlette

from lfs.choices import Policy
from lfs.routes import LfsRoutes
from lfs.transfer import Transfer
from tests.contracts.memory_store import MemoryStore
from tests.lfs.conftest import MEDIA_TYPE, serving
from tests.lfs.memory_host import MemoryHost
from tests.lfs.ways import Site

BODY = b"weights " * 500
OID = hashlib.sha256(BODY).hexdigest()
OTHER = hashlib.sha256(b"x").hexdigest()


class Clock:
    """A clock that a test moves."""

    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def site(clock: Clock) -> Iterator[Site]:
    host, store = MemoryHost(), MemoryStore()
    policy = Policy(multipart_threshold=len(BODY) + 1, part_size=1000)
    door = LfsRoutes(
        host=host, store=store, transfer=Transfer(store=store), told=lambda: None, policy=policy, clock=clock
    )
    with (
        serving(Starlette(routes=door.routes())) as url,
        httpx.Client(verify=False, trust_env=False, timeout=30) as http,
    ):
        yield Site(url, host, store, "multipart", http)


def hrefs(site: Site) -> dict[str, tuple[str, str]]:
    """Return verb and href of every act that a grant may be for."""
    site.http.put(site.ask(BODY)["actions"]["upload"]["href"], content=BODY)
    large = site.ask_for(OTHER, len(BODY) + 1)["actions"]["upload"]
    site.way = "tus"
    resumed = site.ask_for(OTHER, 7)["actions"]["upload"]
    site.way = "basic"
    return {
        "put": ("PUT", site.ask_for(OTHER, 1)["actions"]["upload"]["href"]),
        "get": ("GET", site.ask(BODY, operation="download")["actions"]["download"]["href"]),
        "part": ("PUT", large["header"]["00001"]),
        "complete": ("POST", large["href"]),
        "tus": ("HEAD", resumed["href"]),
    }


def use(site: Site, verb: str, href: str) -> httpx.Response:
    headers: dict[str, str] = {"Tus-Resumable": "1.0.0", "Content-Type": MEDIA_TYPE}
    body: Any = b"" if verb in ("GET", "HEAD") else b"{}"
    return site.http.request(verb, href, headers=headers, content=body)


def test_every_href_works_until_its_time_and_no_longer(site: Site, clock: Clock) -> None:
    given = hrefs(site)
    for verb, href in given.values():
        assert use(site, verb, href).status_code in (200, 400)
    clock.now += 8 * 86400
    for verb, href in given.values():
        answer = use(site, verb, href)
        assert answer.status_code == 403
        assert verb == "HEAD" or "expired" in answer.json()["message"]


def test_a_grant_is_for_one_act_only(site: Site) -> None:
    given = hrefs(site)
    for act, (_, href) in given.items():
        text = href.partition("grant=")[2]
        for other, (verb, address) in given.items():
            if other != act:
                assert use(site, verb, address.partition("?")[0] + "?grant=" + text).status_code == 403


def test_a_grant_is_for_one_address_only(site: Site) -> None:
    for verb, href in hrefs(site).values():
        for there, elsewhere in ((OID, "1" * 64), (OTHER, "1" * 64), *((row, "1" * 32) for row in site.host.uploads)):
            if there in href.partition("?")[0]:
                assert use(site, verb, href.replace(there, elsewhere, 1)).status_code == 403


def test_no_byte_of_a_grant_can_be_changed(site: Site) -> None:
    for verb, href in hrefs(site).values():
        address, _, text = href.partition("?grant=")
        raw = bytearray(base64.urlsafe_b64decode(text + "=="))
        for at in range(0, len(raw), 7):
            forged = bytes(raw[:at]) + bytes([raw[at] ^ 1]) + bytes(raw[at + 1 :])
            told = base64.urlsafe_b64encode(forged).decode().rstrip("=")
            assert use(site, verb, f"{address}?grant={told}").status_code == 403
        assert use(site, verb, address).status_code == 403
        assert use(site, verb, f"{address}?grant=").status_code == 403


def test_an_upload_that_outlasts_its_grant_is_completed(site: Site, clock: Clock) -> None:
    into = urlsplit(site.ask(BODY)["actions"]["upload"]["href"])
    head = f"PUT {into.path}?{into.query} HTTP/1.1\r\nHost: {into.netloc}\r\nContent-Length: {len(BODY)}\r\n\r\n"
    with socket.create_connection((into.hostname, into.port), timeout=20) as client:
        client.sendall(head.encode() + BODY[:2000])
        # It has begun when another request, sent later, was answered.
        site.ask(BODY)
        clock.now += 86400
        client.sendall(BODY[2000:])
        assert client.recv(100).startswith(b"HTTP/1.1 200")
    site.wait(BODY)
    assert use(site, "PUT", into.geturl()).status_code == 403


def test_a_key_that_was_rotated_still_opens_what_it_signed() -> None:
    class Rotated(MemoryHost):
        def secret(self, kid: int) -> bytes | None:
            return (b"the new secret of the tests", super().secret(0))[kid]

    store, before = MemoryStore(), MemoryHost()
    after = Rotated(uploads=before.uploads, objects=before.objects, links=before.links)
    for host in (before, after):
        door = LfsRoutes(host=host, store=store, transfer=Transfer(store=store), told=lambda: None)
        with serving(Starlette(routes=door.routes())) as url, httpx.Client(verify=False, trust_env=False) as http:
            site = Site(url, host, store, "proxy", http)
            if host is before:
                href = urlsplit(site.ask(BODY)["actions"]["upload"]["href"])
            else:
                assert http.put(f"{url}{href.path}?{href.query}", content=BODY).status_code == 200
                assert site.pull(BODY) == BODY


def test_an_href_ends_with_its_upload_repo_or_link(site: Site) -> None:
    given = hrefs(site)
    site.host.uploads.clear()
    for act in ("part", "complete", "tus"):
        assert use(site, *given[act]).status_code == (400 if act == "complete" else 404)
    body = {"oid": OTHER, "parts": []}
    assert site.http.post(given["complete"][1], json=body).status_code == 404
    assert site.http.put(given["put"][1], content=b"x").status_code == 404
    site.host.links.clear()
    assert use(site, *given["get"]).status_code == 404


def test_many_who_ask_at_once_get_each_their_own_answer(site: Site) -> None:
    hrefs(site)
    href = site.ask(BODY, operation="download")["actions"]["download"]["href"]
    other = b"another"
    site.http.put(site.ask(other)["actions"]["upload"]["href"], content=other)
    asked: list[tuple[str, dict[str, str]]] = [
        (href, {}),
        (href, {"Range": "bytes=0-6"}),
        (href, {"Range": f"bytes={len(BODY)}-"}),
        (href, {"If-None-Match": f'"{OID}"'}),
        (site.ask(other, operation="download")["actions"]["download"]["href"], {}),
    ]
    site.host.links.discard((1, hashlib.sha256(other).hexdigest()))
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda each: site.http.get(each[0], headers=each[1]), asked * 8))
    assert [answer.status_code for answer in answers] == [200, 206, 416, 304, 404] * 8
    assert all(answer.content == BODY for answer in answers[::5])
    assert all(answer.content == BODY[:7] for answer in answers[1::5])
