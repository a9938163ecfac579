"""The git door's HTTP contract, as raw requests see it."""

from __future__ import annotations

import gzip
from collections.abc import Iterator

import httpx
import pytest

from registry.git import pkt
from registry.routes.problems import NO_CACHE
from tests.registry.git.packed import Depot, git, grow, new_repo
from tests.registry.git.serving import Door, door

FETCH = "application/x-git-upload-pack-request"
V2 = {"Git-Protocol": "version=2", "Content-Type": FETCH}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Door, str]]:
    folder = tmp_path_factory.mktemp("served")
    source = new_repo(folder / "source")
    grow(source, 8, seed=3)
    depot = Depot(folder)
    depot.add(source)
    with door(folder, depot) as running:
        snapshot = depot.snapshot(source)
        for name in ("lab/open", "lab/shut", "datasets/lab/data"):
            running.town.snapshots[name] = snapshot
        running.town.private.add("lab/shut")
        yield running, git(source, "rev-parse", "main").decode().strip()


@pytest.fixture
def client(served: tuple[Door, str]) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served[0].url) as made:
        yield made


def request(*lines: str, arguments: tuple[str, ...] = ()) -> bytes:
    """Build one version 2 request."""
    head = b"".join(pkt.encode(line.encode() + b"\n") for line in lines)
    return head + pkt.DELIM + b"".join(pkt.encode(line.encode() + b"\n") for line in arguments) + pkt.FLUSH


def lines(body: bytes) -> list[bytes]:
    return [packet if isinstance(packet, bytes) else packet.name.encode() for packet in pkt.PktReader([body])]


def test_every_answer_forbids_caching_refusals_too(client: httpx.Client) -> None:
    answers = [
        client.get("/lab/open/info/refs?service=git-upload-pack"),
        client.get("/lab/open.git/info/refs"),
        client.get("/lab/none/info/refs?service=git-upload-pack"),
        client.get("/lab/open/HEAD"),
        client.get("/lab/open/objects/info/packs"),
        client.post("/lab/open/git-upload-pack", content=b"0000"),
    ]
    assert [answer.status_code for answer in answers] == [200, 403, 401, 404, 404, 415]
    for answer in answers:
        assert {name: answer.headers[name] for name in NO_CACHE} == NO_CACHE


def test_the_advertisement_names_the_service_first(client: httpx.Client) -> None:
    answer = client.get("/lab/open.git/info/refs?service=git-upload-pack", headers={"Git-Protocol": "version=2"})
    assert answer.headers["content-type"] == "application/x-git-upload-pack-advertisement"
    said = lines(answer.content)
    assert said[:3] == [b"# service=git-upload-pack\n", b"FLUSH", b"version 2\n"]
    assert b"object-format=sha1\n" in said
    for offered in ("version=1:version=2", "version=2:foo", "foo:version=2:version=9"):
        again = client.get("/lab/open/info/refs?service=git-upload-pack", headers={"Git-Protocol": offered})
        assert again.content == answer.content
    old = client.get("/lab/open/info/refs?service=git-upload-pack", headers={"Git-Protocol": "version=9"})
    assert b"multi_ack_detailed" in lines(old.content)[2]


def test_strangers_are_asked_for_a_token_and_wrong_ones_are_told_nothing(client: httpx.Client) -> None:
    path = "info/refs?service=git-upload-pack"
    for name in ("shut", "absent", "-odd"):
        answer = client.get(f"/lab/{name}/{path}")
        assert (answer.status_code, answer.headers.get("www-authenticate")) == (
            (404, None) if name == "-odd" else (401, 'Basic realm="weightroom"')
        )
    assert client.get(f"/lab/absent/{path}", auth=("user", "glance")).status_code == 404
    assert client.get(f"/lab/shut/{path}", auth=("user", "glance")).status_code == 200
    assert client.get(f"/lab/open/{path}", auth=("user", "wrong")).status_code == 401
    assert client.get(f"/datasets/lab/data/{path}").status_code == 200
    assert client.get(f"/spaces/lab/data/{path}").status_code == 401


def test_the_probe_of_four_bytes_gets_an_empty_answer(client: httpx.Client) -> None:
    answer = client.post("/lab/open/git-upload-pack", content=b"0000", headers={"Content-Type": FETCH})
    assert (answer.status_code, answer.content) == (200, b"")
    shut = client.post("/lab/shut/git-upload-pack", content=b"0000", headers={"Content-Type": FETCH})
    assert shut.status_code == 401


def test_bodies_may_be_gzipped_and_are_bounded(client: httpx.Client) -> None:
    body = request("command=ls-refs", "agent=x", arguments=("symrefs", "ref-prefix refs/heads/"))
    plain = client.post("/lab/open/git-upload-pack", content=body, headers=V2)
    for name in ("gzip", "x-gzip"):
        packed = client.post(
            "/lab/open/git-upload-pack", content=gzip.compress(body), headers={**V2, "Content-Encoding": name}
        )
        assert packed.content == plain.content
    chunked = client.post("/lab/open/git-upload-pack", content=iter([body[:9], body[9:]]), headers=V2)
    assert chunked.content == plain.content
    bomb = gzip.compress(bytes(70 << 20))
    answer = client.post("/lab/open/git-upload-pack", content=bomb, headers={**V2, "Content-Encoding": "gzip"})
    assert (answer.status_code, "gzip body inflates" in answer.text) == (413, True)
    answer = client.post("/lab/open/git-upload-pack", content=bomb[:99], headers={**V2, "Content-Encoding": "gzip"})
    assert (answer.status_code, answer.text) == (400, "gzip body is cut short\n")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (request("command=nothing"), "unknown command"),
        (request("command=ls-refs", "command=fetch"), "exactly one command"),
        (request("agent=x"), "exactly one command"),
        (request("command=ls-refs", "object-format=sha256"), "object format"),
        (request("command=ls-refs", "surprise"), "unknown capability"),
        (request("command=ls-refs", arguments=("surprise",)), "unexpected line"),
        (request("command=fetch", arguments=("surprise",)), "unexpected line"),
        (request("command=fetch", arguments=("want 12",)), "not an object id"),
        (request("command=fetch", arguments=("deepen 0", "done")), "not a positive number"),
        (request("command=fetch", arguments=("filter sparse:oid=" + "1" * 40, "done")), "not supported"),
        (request("command=fetch", arguments=("want-ref refs/heads/none", "done")), "unknown ref refs/heads/none"),
        (request("command=fetch", arguments=("want " + "1" * 40, "done")), "not our ref " + "1" * 40),
        (request("command=ls-refs") + b"0000", "one command"),
        (request("command=ls-refs")[:-4], "flush"),
        (b"zzzz", "length"),
        (b"0011command=", "within a packet"),
    ],
)
def test_what_breaks_the_protocol_is_told_in_one_err_packet(client: httpx.Client, body: bytes, reason: str) -> None:
    answer = client.post("/lab/open/git-upload-pack", content=body, headers=V2)
    assert answer.status_code == 200
    (said,) = lines(answer.content)
    assert said.startswith(b"ERR ")
    assert reason in said.decode()


def test_refs_are_wanted_by_name_and_sections_come_in_order(client: httpx.Client, served: tuple[Door, str]) -> None:
    arguments = ("want-ref refs/heads/main", "deepen 1", "ofs-delta", "sideband-all", "done")
    answer = client.post("/lab/open/git-upload-pack", content=request("command=fetch", arguments=arguments), headers=V2)
    said = lines(answer.content)
    sha = served[1].encode()
    assert said[:6] == [
        b"\x01shallow-info\n", b"\x01shallow " + sha + b"\n", b"DELIM",
        b"\x01wanted-refs\n", b"\x01" + sha + b" refs/heads/main\n", b"DELIM",
    ]  # fmt: skip
    assert said[6] == b"\x01packfile\n"
    assert said[-1] == b"FLUSH"


def test_haves_are_answered_and_ready_brings_the_pack(client: httpx.Client, served: tuple[Door, str]) -> None:
    want = f"want {served[1]}"

    def ask(*more: str) -> list[bytes]:
        body = request("command=fetch", arguments=(want, *more))
        return lines(client.post("/lab/open/git-upload-pack", content=body, headers=V2).content)

    assert ask("have " + "2" * 40) == [b"acknowledgments\n", b"NAK\n", b"FLUSH"]
    ready = ask(f"have {served[1]}")
    assert ready[:5] == [
        b"acknowledgments\n",
        b"ACK " + served[1].encode() + b"\n",
        b"ready\n",
        b"DELIM",
        b"packfile\n",
    ]
    waiting = ask(f"have {served[1]}", "wait-for-done")
    assert waiting[1:] == [b"ACK " + served[1].encode() + b"\n", b"FLUSH"]


def test_sizes_are_told_of_what_is_reachable_only(client: httpx.Client, served: tuple[Door, str]) -> None:
    absent = "3" * 40
    body = request("command=object-info", arguments=("size", f"oid {served[1]}", f"oid {absent}"))
    said = lines(client.post("/lab/open/git-upload-pack", content=body, headers=V2).content)
    assert said[0] == b"size\n"
    assert said[1].split()[0] == served[1].encode()
    assert int(said[1].split()[1]) > 100
    assert said[2] == absent.encode() + b" \n"
