"""Parts make an object once they are all there, in order, and each of its length; nothing else does."""

from __future__ import annotations

import hashlib
import json
import random
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lfs.errors import (
    BadRequest,
    Busy,
    DigestMismatch,
    LfsError,
    ObjectAbsent,
    QuotaExceeded,
    SizeMismatch,
    Unavailable,
)
from lfs.grants import Grant
from lfs.host import Opening, Proof, Upload, Wanted
from lfs.multipart import Multipart, parse
from lfs.store import lfs_key
from tests.contracts.memory_store import MemoryStore
from tests.lfs.memory_host import MemoryHost
from tests.lfs.ways import MIB, Site, until, walking
from tests.services.s3 import make_bucket, moto, open_bucket

SIZE = 1000
BODY = random.Random(5).randbytes(3 * SIZE + 7)
OID = hashlib.sha256(BODY).hexdigest()
PARTS = [BODY[start : start + SIZE] for start in range(0, len(BODY), SIZE)]
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=10,
)
fields = st.sampled_from(["oid", "parts", "partNumber", "etag"])


class Desk:
    """One upload in parts, of a memory host and shelf."""

    def __init__(self, body: bytes = BODY) -> None:
        self.host, self.store, self.told = MemoryHost(), MemoryStore(), 0
        self.multipart = Multipart(host=self.host, store=self.store, told=self._tell)
        self.oid = hashlib.sha256(body).hexdigest()
        opening = Opening(Wanted(self.oid, len(body)), "multipart", SIZE)
        self.upload = self.host.begin(1, 1, [opening])[self.oid]
        self.grant = Grant("complete", 1, self.oid, len(body), 0, 1, self.upload.id)
        self.key = lfs_key(self.oid, self.upload.id)

    def _tell(self) -> None:
        self.told += 1

    def put(self, number: int, part: bytes) -> str:
        upload = self.multipart.expected(self.grant, number)
        return self.multipart.take(upload, number, [part])

    def complete(self, *parts: tuple[int, str]) -> None:
        told = [{"partNumber": number, "etag": tag} for number, tag in parts]
        self.multipart.complete(self.grant, json.dumps({"oid": self.oid, "parts": told}).encode())

    def all(self) -> list[tuple[int, str]]:
        return [(number, self.put(number, part)) for number, part in enumerate(PARTS, 1)]

    def state(self) -> str:
        return self.host.uploads[self.upload.id].state


def test_parts_in_any_order_become_one_object_that_waits_for_its_proof() -> None:
    desk = Desk()
    tags = {number: desk.put(number, PARTS[number - 1]) for number in (3, 1, 4, 2)}
    tags[2] = desk.put(2, PARTS[1])
    desk.complete(*sorted(tags.items()))
    assert (desk.state(), desk.told, desk.host.links) == ("arrived", 1, set())
    assert desk.store.objects == {desk.key: BODY}


def test_a_completion_may_be_repeated_also_after_the_proof() -> None:
    desk = Desk()
    parts = desk.all()
    for _ in range(2):
        desk.complete(*parts)
    desk.host.finish(desk.upload.id, desk.key, Proof(OID, len(BODY), "read-back"))
    desk.complete(*parts)
    assert desk.state() == "done"


def test_a_completion_that_was_cut_off_between_store_and_host_goes_on() -> None:
    class Away(MemoryHost):
        def arrive(self, upload_id: str, key: str) -> None:
            raise Unavailable("The database is away.")

    desk = Desk()
    parts = desk.all()
    away = Away(uploads=desk.host.uploads)
    body = json.dumps({"oid": OID, "parts": [{"partNumber": number, "etag": tag} for number, tag in parts]})
    with pytest.raises(Unavailable):
        Multipart(host=away, store=desk.store, told=lambda: None).complete(desk.grant, body.encode())
    assert desk.state() == "open"
    desk.complete(*parts)
    assert desk.state() == "arrived"


@dataclass
class Shut(MemoryHost):
    """A host whose database is locked at the first look of each kind."""

    refused: list[str] = field(default_factory=list)

    def upload(self, upload_id: str) -> Upload:
        self._refuse("upload")
        return super().upload(upload_id)

    def arrive(self, upload_id: str, key: str) -> None:
        self._refuse("arrive")
        super().arrive(upload_id, key)

    def _refuse(self, what: str) -> None:
        if what not in self.refused:
            self.refused.append(what)
            raise Busy("The database does not answer; try again in a few seconds.")


def test_a_database_that_is_locked_for_a_moment_costs_no_part_and_no_completion() -> None:
    """The git agent of huggingface_hub does not come back after a 429."""
    desk = Desk()
    parts = desk.all()
    shut = Shut(uploads=desk.host.uploads)
    body = json.dumps({"oid": OID, "parts": [{"partNumber": number, "etag": tag} for number, tag in parts]}).encode()
    Multipart(host=shut, store=desk.store, told=lambda: None).complete(desk.grant, body)
    assert (desk.state(), shut.refused) == ("arrived", ["upload", "arrive"])
    with pytest.raises(Busy):
        Multipart(host=Shut(), store=desk.store, told=lambda: None, patience=0).expected(desk.grant, 1)


@pytest.mark.parametrize(
    ("pick", "words"),
    [
        ((), "4 of 4 parts are not listed"),
        ((0, 1, 2), "the first is part 4"),
        ((0, 2, 1, 3), "in the order"),
        ((0, 1, 2, 3, 3), "each of them once"),
        ((0, 0, 1, 2), "not listed"),
    ],
)
def test_a_list_with_gaps_repeats_or_disorder_is_refused(pick: tuple[int, ...], words: str) -> None:
    desk = Desk()
    parts = desk.all()
    with pytest.raises(BadRequest, match=words):
        desk.complete(*(parts[place] for place in pick))
    assert desk.state() == "open"
    desk.complete(*parts)


def test_parts_that_were_not_sent_or_sent_again_are_told() -> None:
    desk = Desk()
    parts = desk.all()
    with pytest.raises(BadRequest, match="Part 2 came with another etag"):
        desk.complete(parts[0], (2, '"x"'), *parts[2:])
    desk.store.uploads[desk.key].pop(3)
    with pytest.raises(BadRequest, match="the first is part 3"):
        desk.complete(*parts)
    again = desk.put(3, bytes(SIZE))
    assert again != parts[2][1]
    with pytest.raises(BadRequest, match="Part 3"):
        desk.complete(*parts)


def test_a_part_has_exactly_its_length() -> None:
    desk = Desk()
    for number, part in ((1, PARTS[0][:-1]), (1, PARTS[0] + b"x"), (4, PARTS[0]), (4, b"")):
        with pytest.raises(SizeMismatch):
            desk.put(number, part)
    for number in (0, 5, 10**9):
        with pytest.raises(BadRequest, match="parts 1 to 4"):
            desk.put(number, b"x")


def test_a_bucket_that_took_a_part_of_another_length_is_not_believed() -> None:
    desk = Desk()
    parts = desk.all()
    desk.store.uploads[desk.key][1] = b"short"
    with pytest.raises(SizeMismatch, match="Part 1 has 5 bytes"):
        desk.complete(*parts)


def test_what_is_complete_or_failed_or_gone_takes_nothing_more() -> None:
    desk = Desk()
    parts = desk.all()
    desk.complete(*parts)
    with pytest.raises(ObjectAbsent):
        desk.put(1, PARTS[0])
    desk.host.fail(desk.upload.id, "The bytes hash to something else.")
    with pytest.raises(DigestMismatch, match="something else"):
        desk.complete(*parts)
    desk.host.uploads.clear()
    with pytest.raises(ObjectAbsent):
        desk.complete(*parts)


def test_an_upload_of_another_kind_takes_no_parts() -> None:
    desk = Desk()
    other = desk.host.begin(1, 1, [Opening(Wanted(OID, len(BODY)), "proxy")])[OID]
    grant = Grant("part", 1, OID, len(BODY), 0, 1, other.id)
    with pytest.raises(ObjectAbsent):
        desk.multipart.expected(grant, 1)


def test_a_quota_that_ran_out_meanwhile_is_told_at_completion() -> None:
    class Full(MemoryHost):
        def arrive(self, upload_id: str, key: str) -> None:
            raise QuotaExceeded("The repo is full.")

    desk = Desk()
    parts = desk.all()
    desk.multipart = Multipart(host=Full(uploads=desk.host.uploads), store=desk.store, told=lambda: None)
    with pytest.raises(QuotaExceeded):
        desk.complete(*parts)


@given(st.binary(max_size=200) | st.dictionaries(fields, anything).map(lambda sent: json.dumps(sent).encode()))
def test_garbage_is_refused_in_our_words(raw: bytes) -> None:
    with pytest.raises(LfsError):
        parse(raw, OID)


@given(st.lists(st.dictionaries(fields, anything, max_size=3), max_size=4))
def test_a_list_of_any_shape_is_read_or_refused_in_our_words(parts: list[object]) -> None:
    try:
        told = parse(json.dumps({"oid": OID, "parts": parts}).encode(), OID)
    except LfsError:
        return
    assert len(told) == len(parts)


@given(
    st.lists(
        st.tuples(st.integers(1, 10_000), st.text(st.characters(codec="ascii", exclude_characters="\0"), min_size=1))
    )
)
def test_what_clients_send_is_read_as_sent(parts: list[tuple[int, str]]) -> None:
    told = [{"partNumber": number, "etag": tag} for number, tag in parts]
    assert list(parse(json.dumps({"oid": OID, "parts": told}).encode(), OID)) == parts


@pytest.fixture
def site() -> Iterator[Site]:
    with walking("multipart", MemoryHost(), MemoryStore(), SIZE, slots=1) as found:
        yield found


def test_an_action_names_its_parts_so_that_text_and_number_agree(site: Site) -> None:
    action = site.ask_for(OID, 12 * SIZE)["actions"]["upload"]
    header = dict(action["header"])
    assert header.pop("chunk_size") == str(SIZE)
    assert list(header) == sorted(header) == [f"{number:05d}" for number in range(1, 13)]
    assert action["expires_in"] == 24 * 3600 - 60


def test_the_door_tells_each_part_its_etag(site: Site) -> None:
    item = site.ask(BODY)
    first = item["actions"]["upload"]["header"]["00001"]
    for number in ("0", "5", "x", "-1", "9" * 30):
        assert site.http.put(first.replace("/1?", f"/{number}?"), content=b"x").status_code == 400
    *sent, done = site.send(item, BODY)
    assert [each.status_code for each in sent] == [200] * 4
    assert all(each.headers["etag"].startswith('"') for each in sent)
    assert (done.status_code, done.json()) == (200, {})
    assert site.http.put(first, content=PARTS[0]).status_code == 404


def test_a_body_that_says_it_is_too_long_is_refused_before_it_comes(site: Site) -> None:
    href = site.ask(BODY)["actions"]["upload"]["header"]["00004"]
    answer = site.http.put(href, content=PARTS[0])
    assert (answer.status_code, "7" in answer.json()["message"]) == (400, True)
    assert site.http.put(href, content=PARTS[3], headers={"Content-Encoding": "gzip"}).status_code == 415


def test_a_part_is_never_shed(site: Site) -> None:
    href = site.ask(BODY)["actions"]["upload"]["header"]["00001"]
    into = urlsplit(href)
    head = f"PUT {into.path}?{into.query} HTTP/1.1\r\nHost: {into.netloc}\r\nContent-Length: {SIZE}\r\n\r\n"
    # The only thread waits for a slow client; the others wait for the thread.
    with socket.create_connection((into.hostname, into.port), timeout=20) as slow:
        slow.sendall(head.encode() + PARTS[0][:10])
        with socket.create_connection((into.hostname, into.port), timeout=20) as second:
            second.sendall(head.encode() + PARTS[0])
            slow.sendall(PARTS[0][10:])
            assert slow.recv(100).startswith(b"HTTP/1.1 200")
            assert second.recv(100).startswith(b"HTTP/1.1 200")


@pytest.mark.s3
@pytest.mark.xdist_group("s3")
def test_parts_go_to_the_bucket_itself_unless_it_may_not_be_reached() -> None:
    body = random.Random(6).randbytes(10 * MIB + 3)
    with moto() as endpoint:
        make_bucket(endpoint, "parts")
        store, host = open_bucket(endpoint, "parts"), MemoryHost()
        with walking("multipart", host, store, 5 * MIB) as site:
            item = site.push(body)
            assert all(
                item["actions"]["upload"]["header"][name].startswith(endpoint.url) for name in ("00001", "00003")
            )
            assert site.pull(body) == body
            assert (host.begun, host.attached) == (1, 1)
            until(lambda: list(store.walk()) == [lfs_key(hashlib.sha256(body).hexdigest(), site.rows(body)[0].id)])
