"""Requests of both protocol versions: odd bytes get one refusal in the client's dialect, old clients their packs."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.git import pkt
from registry.git.pkt import Mark, PktReader
from registry.git.responses import Responses
from registry.git.snapshot import Snapshot
from registry.git.upload_pack import UploadPack
from registry.git.upload_pack_v0 import UploadPackV0
from registry.git.view import Views
from tests.registry.git.packed import Depot, git, grow, new_repo


@dataclass
class Desk:
    """Both state machines over one repo."""

    new: UploadPack
    old: UploadPackV0
    snapshot: Snapshot
    commits: list[str]

    def ask(self, *lines: str | Mark) -> list[bytes | Mark]:
        """Send lines by the old protocol; raw bytes of a pack without side-band are left out."""
        body = b"".join(line.value if isinstance(line, Mark) else pkt.encode(line.encode() + b"\n") for line in lines)
        return self.read(self.old.serve(self.snapshot, [body]))

    def read(self, answer: Iterator[bytes]) -> list[bytes | Mark]:
        found: list[bytes | Mark] = []
        reader = PktReader(answer)
        try:
            found.extend(reader)
        except pkt.PktError:
            found.append(b"PACK")
        return found


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    folder = tmp_path_factory.mktemp("desk")
    source = new_repo(folder / "source")
    grow(source, 12, seed=6)
    depot = Depot(folder)
    depot.add(source)
    views = Views(depot.manifests)
    with ThreadPoolExecutor(2) as pool:
        made = Responses(folder / "responses", 1 << 20, pool)
        tip = git(source, "rev-parse", "main").decode().strip()
        first = git(source, "rev-list", "--max-parents=0", "main").decode().strip()
        yield Desk(
            UploadPack(views, made, agent="t"),
            UploadPackV0(views, made, agent="t"),
            depot.snapshot(source),
            [first, tip],
        )


LINES = """
command=fetch
command=ls-refs
command=object-info
agent=x
want
have
done
deepen 1
deepen x
deepen-since 5
deepen-not main
filter blob:none
filter x
shallow
symrefs
peel
size
oid
ref-prefix refs/
want-ref HEAD
sideband-all
wait-for-done
thin-pack
object-format=sha1
"""
WORDS = st.sampled_from(LINES.strip().splitlines())


@given(data=st.data())
def test_odd_requests_get_an_answer_and_never_an_exception(desk: Desk, data: st.DataObject) -> None:
    pieces = []
    for word in data.draw(st.lists(st.one_of(WORDS, st.sampled_from(list(Mark)), st.binary(max_size=20)), max_size=10)):
        if isinstance(word, Mark):
            pieces.append(word.value)
        elif isinstance(word, bytes):
            pieces.append(word)
        else:
            if word in ("want", "have", "shallow", "oid"):
                word += " " + data.draw(st.sampled_from([*desk.commits, "1" * 40, "x"]))
            pieces.append(pkt.encode(word.encode()))
    for machine in (desk.new, desk.old):
        assert isinstance(b"".join(machine.serve(desk.snapshot, pieces)), bytes)


def ack(sha: str, rest: str = "") -> bytes:
    return f"ACK {sha}{rest}\n".encode()


def test_every_dialect_of_acknowledging_is_spoken(desk: Desk) -> None:
    first, tip = desk.commits
    stranger = "1" * 40
    want, have = f"want {tip} ", [f"have {stranger}", f"have {first}"]
    flush = Mark.FLUSH
    assert desk.ask(want + "agent=x", flush, *have, flush) == [ack(first)]
    assert desk.ask(want + "multi_ack", flush, *have, flush) == [ack(first, " continue"), b"NAK\n"]
    detailed = [ack(first, " common"), b"NAK\n"]
    assert desk.ask(want + "multi_ack_detailed", flush, *have, flush) == detailed
    ready = [ack(first, " common"), ack(first, " ready"), b"NAK\n"]
    assert desk.ask(want + "multi_ack_detailed", flush, have[1], flush) == ready
    again = [ack(first, " common"), ack(stranger, " ready"), b"NAK\n"]
    assert desk.ask(want + "multi_ack_detailed", flush, have[1], have[0], flush) == again
    assert desk.ask(want + "agent=x", flush, have[0], flush) == [b"NAK\n"]
    assert desk.ask(want + "agent=x", flush, "done")[:1] == [b"NAK\n"]
    at_once = desk.ask(want + "multi_ack_detailed no-done side-band-64k", flush, have[1], flush)
    assert at_once[:4] == [*ready, ack(first)]
    assert isinstance(at_once[4], bytes)
    assert at_once[4].startswith(b"\x01PACK")


def test_a_pack_comes_raw_or_in_frames_of_either_size(desk: Desk) -> None:
    _, tip = desk.commits
    body = pkt.encode(f"want {tip} ofs-delta agent=x\n".encode()) + pkt.FLUSH + pkt.encode(b"done\n")
    raw = b"".join(desk.old.serve(desk.snapshot, [body]))
    assert raw.startswith(b"0008NAK\nPACK")
    for capability, longest in (("side-band", 996), ("side-band-64k", 65_516)):
        said = desk.ask(f"want {tip} ofs-delta {capability}", Mark.FLUSH, "done")
        frames = [packet for packet in said[1:] if isinstance(packet, bytes)]
        assert b"".join(frame[1:] for frame in frames) == raw[8:]
        assert max(map(len, frames)) <= longest
        assert said[-1] is Mark.FLUSH


def test_refusals_of_the_old_protocol_are_err_packets(desk: Desk) -> None:
    _, tip = desk.commits
    (said,) = desk.ask(f"want {'1' * 40} agent=x", Mark.FLUSH, "done")
    assert said == b"ERR upload-pack: not our ref " + b"1" * 40
    for lines in (
        [f"want {tip} surprise", Mark.FLUSH],
        [f"want {tip} agent=x", "deepen 2", "deepen-since 3", Mark.FLUSH],
    ):
        (said,) = desk.ask(*lines)
        assert isinstance(said, bytes)
        assert said.startswith(b"ERR ")


def test_the_depth_is_answered_before_the_haves(desk: Desk) -> None:
    _, tip = desk.commits
    said = desk.ask(f"want {tip} shallow side-band-64k", "deepen 1", Mark.FLUSH, "done")
    assert said[:3] == [f"shallow {tip}".encode(), Mark.FLUSH, b"NAK\n"]
