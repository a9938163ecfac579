"""Pushes as they arrive: in any pieces, refused early or late, and answered while they are judged."""

from __future__ import annotations

import gzip
import hashlib
import itertools
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from registry.errors import NotAllowed
from registry.git import pkt
from registry.git.pkt import Mark, PktError
from registry.git.snapshot import ZERO
from registry.git.verdict import Limits
from registry.policy import Refusal
from registry.receive import Outcome
from registry.routes import judging
from registry.routes.pushes import Pushes
from tests.registry.git.packed import Depot, git, grow, new_repo
from tests.registry.git.serving import Door, Town, door

NEW = "1" * 40
KIND = {"Content-Type": "application/x-git-receive-pack-request"}
CAPABILITIES = "report-status side-band-64k push-options atomic agent=test"


def body(pack: bytes, *, capabilities: str = CAPABILITIES, options: tuple[str, ...] = ("ci.skip",)) -> bytes:
    """Build a push of one new branch."""
    lines = [pkt.encode(f"{ZERO} {NEW} refs/heads/new\0{capabilities}".encode()), pkt.FLUSH]
    if "push-options" in capabilities:
        lines += [*(pkt.encode(option.encode()) for option in options), pkt.FLUSH]
    return b"".join(lines) + pack


def pack(size: int = 100, objects: int = 1) -> bytes:
    """Bytes that pass for a pack until somebody looks inside."""
    made = b"PACK" + (2).to_bytes(4, "big") + objects.to_bytes(4, "big") + bytes(size)
    return made + hashlib.sha1(made).digest()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    folder = tmp_path_factory.mktemp("served")
    source = new_repo(folder / "source")
    grow(source, 5, seed=3)
    depot = Depot(folder)
    depot.add(source)
    with door(folder, depot) as running:
        running.town.snapshots["lab/open"] = depot.snapshot(source)
        yield running
        assert list((folder / "quarantine").iterdir()) == []


@pytest.fixture
def client(served: Door) -> Iterator[httpx.Client]:
    served.town.pushed.clear()
    served.town.gate = lambda updates, progress: Outcome(updates)
    with httpx.Client(base_url=served.url, auth=("user", "key")) as made:
        yield made


def push(client: httpx.Client, content: bytes | Iterator[bytes], **headers: str) -> httpx.Response:
    return client.post("/lab/open/git-receive-pack", content=content, headers=KIND | headers)


def channels(answer: bytes) -> dict[int, bytes]:
    """Split an answer into its channels; it must end with a flush."""
    found: dict[int, bytes] = {}
    *packets, last = pkt.PktReader([answer])
    assert last is Mark.FLUSH
    for packet in packets:
        assert isinstance(packet, bytes)
        found[packet[0]] = found.get(packet[0], b"") + packet[1:]
    return found


def report(answer: httpx.Response) -> list[bytes]:
    assert answer.status_code == 200
    return [packet for packet in pkt.PktReader([channels(answer.content)[1]]) if isinstance(packet, bytes)]


def test_writers_alone_see_the_push_side(client: httpx.Client) -> None:
    path = "/lab/open/info/refs?service=git-receive-pack"
    answer = client.get(path)
    assert answer.headers["content-type"] == "application/x-git-receive-pack-advertisement"
    assert b"report-status" in answer.content
    for auth, status in ((("user", "glance"), 403), (("user", "wrong"), 401)):
        assert client.get(path, auth=auth).status_code == status
        assert client.post("/lab/open/git-receive-pack", content=b"0000", headers=KIND, auth=auth).status_code == status
    assert httpx.get(str(client.base_url) + path).headers["www-authenticate"] == 'Basic realm="weightroom"'


def test_the_probe_and_the_wrong_type_reach_no_gate(client: httpx.Client, served: Door) -> None:
    probe = push(client, b"0000")
    assert (probe.status_code, probe.content) == (200, b"")
    assert client.post("/lab/open/git-receive-pack", content=body(pack())).status_code == 415
    assert served.town.pushed == []


@pytest.mark.parametrize("size", [100, 3 << 20])
def test_a_pack_reaches_the_gate_as_it_was_sent(client: httpx.Client, served: Door, size: int) -> None:
    sent = body(pack(size))
    pieces = (sent[at : at + 70_000] for at in range(0, len(sent), 70_000))
    answers = [push(client, sent), push(client, pieces)]
    if size < 1000:
        answers.append(push(client, gzip.compress(sent), **{"Content-Encoding": "gzip"}))
    for answer in answers:
        assert report(answer) == [b"unpack ok\n", b"ok refs/heads/new\n"]
    for origin, updates, content in served.town.pushed:
        assert content == pack(size)
        assert origin.push_options == ("ci.skip",)
        assert [(update.name, update.old, update.new) for update in updates] == [(b"refs/heads/new", ZERO, NEW)]
    assert len(served.town.pushed) == len(answers)


def test_a_push_that_only_deletes_brings_no_pack(client: httpx.Client, served: Door) -> None:
    line = pkt.encode(f"{NEW} {ZERO} refs/heads/old\0report-status".encode()) + pkt.FLUSH
    answer = push(client, line)
    assert b"ok refs/heads/old" in answer.content
    assert served.town.pushed[0][2] is None


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"not a pack at all", b"unpack not a pack"),
        (b"", b"unpack pack is cut short"),
        (pack()[:-5], b"unpack pack is corrupted or cut short"),
        (pack(objects=2_000_000), b"unpack pack of 2000000 objects"),
        (b"not a pack" + bytes(3 << 20), b"unpack not a pack"),
    ],
)
def test_what_is_no_pack_is_refused_in_the_report(
    client: httpx.Client, served: Door, sent: bytes, reason: bytes
) -> None:
    said = report(push(client, body(sent)))
    assert said[0].startswith(reason)
    assert said[1] == b"ng refs/heads/new unpacker error\n"
    assert served.town.pushed == []


def test_the_gate_speaks_while_it_judges_and_is_told_from_a_dead_one(
    client: httpx.Client, served: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judging, "_KEEP_ALIVE_SECONDS", 0.02)
    waited = threading.Event()

    def gate(updates: tuple, progress) -> Outcome:  # type: ignore[no-untyped-def, type-arg]
        progress("warning: look here")
        waited.wait(0.3)
        refusal = Refusal("protected branch", NotAllowed("no"))
        return Outcome(updates, None, {updates[0].name: refusal})

    served.town.gate = gate
    answer = push(client, body(pack()))
    assert channels(answer.content)[2] == b"warning: look here\n"
    assert pkt.KEEP_ALIVE in answer.content
    assert report(answer) == [b"unpack ok\n", b"ng refs/heads/new protected branch\n"]


def test_a_gate_that_breaks_is_reported_and_not_a_500(client: httpx.Client, served: Door) -> None:
    def gate(updates: tuple, progress) -> Outcome:  # type: ignore[no-untyped-def, type-arg]
        raise RuntimeError("broken")

    served.town.gate = gate
    assert report(push(client, body(pack()))) == [b"unpack internal error\n", b"ng refs/heads/new internal error\n"]


@pytest.mark.parametrize("sent", [b"zzzz", b"0009x", pkt.encode(b"hello\0report-status") + pkt.FLUSH])
def test_commands_that_are_none_are_a_bad_request(client: httpx.Client, sent: bytes) -> None:
    answer = push(client, sent)
    assert answer.status_code == 400
    assert answer.headers["content-type"].startswith("text/plain")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    size=st.integers(0, 400),
    cuts=st.lists(st.integers(0, 600), max_size=8),
    options=st.lists(st.text("abc"), max_size=3),
)
def test_an_intake_takes_any_pieces(tmp_path: Path, size: int, cuts: list[int], options: list[str]) -> None:
    sent = body(pack(size), options=tuple(options))
    with ThreadPoolExecutor(1) as workers:
        taker = Pushes(judging=Town().judging(workers), quarantine=tmp_path, limits=Limits(), agent="t", fsync=False)
        intake = taker.intake(gzipped=False)
        places = [0, *sorted(min(cut, len(sent)) for cut in cuts), len(sent)]
        for start, stop in itertools.pairwise(places):
            intake.feed(sent[start:stop])
        intake.end()
    assert intake.push is not None
    assert intake.push.options == tuple(options)
    assert intake.pack is not None
    assert intake.pack.read_bytes() == pack(size)
    intake.close()
    assert list(tmp_path.iterdir()) == []


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(garbage=st.binary(max_size=300), cut=st.integers(0, 300))
def test_garbage_raises_only_our_error_and_leaves_nothing(tmp_path: Path, garbage: bytes, cut: int) -> None:
    with ThreadPoolExecutor(1) as workers:
        taker = Pushes(judging=Town().judging(workers), quarantine=tmp_path, limits=Limits(), agent="t", fsync=False)
        intake = taker.intake(gzipped=False)
        try:
            intake.feed(garbage[:cut])
            intake.feed(garbage[cut:])
            intake.end()
        except PktError:
            pass
    intake.close()
    assert list(tmp_path.iterdir()) == []


def test_a_shallow_client_is_told_why_history_is_missing(client: httpx.Client, served: Door) -> None:
    served.town.gate = lambda updates, progress: Outcome(
        updates, None, {updates[0].name: Refusal("missing necessary objects", NotAllowed("no"))}
    )
    assert b"ng refs/heads/new missing necessary objects\n" in report(push(client, body(pack())))
    shallow = pkt.encode(b"shallow " + NEW.encode()) + body(pack())
    assert b"ng refs/heads/new shallow update not allowed\n" in report(push(client, shallow))


def test_git_itself_pushes_here(client: httpx.Client, served: Door, tmp_path: Path) -> None:
    source = new_repo(tmp_path / "mine")
    grow(source, 3, seed=8)
    url = str(client.base_url).replace("http://", "http://user:key@") + "/lab/open"
    git(source, "push", "-q", url, "main:refs/heads/mine")
    assert served.town.pushed[0][1][0].name == b"refs/heads/mine"


def test_pushes_that_wait_keep_nobody_else_waiting(client: httpx.Client, served: Door) -> None:
    ended, judged = threading.Event(), threading.Semaphore(0)

    def gate(updates: object, progress: object) -> Outcome:
        judged.release()
        ended.wait(30)
        return Outcome(updates)  # type: ignore[arg-type]

    served.town.gate = gate
    # More than the door has threads for short work.
    with ThreadPoolExecutor(12) as pool:
        waiting = [pool.submit(push, client, body(pack())) for _ in range(12)]
        try:
            for _ in range(4):
                assert judged.acquire(timeout=10)
            for _ in range(3):
                answer = client.get("/lab/open/info/refs?service=git-upload-pack", timeout=3)
                assert answer.status_code == 200
        finally:
            ended.set()
        assert {done.result(30).status_code for done in waiting} == {200}
