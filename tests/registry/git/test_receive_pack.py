"""The push protocol: a client's words are read or refused, the report is what git prints."""

import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.errors import RegistryError
from registry.git import pkt, receive_pack
from registry.git.pkt import FLUSH, PktError, PktReader
from registry.git.receive_pack import Command, Push, Result
from registry.git.snapshot import ZERO, Ref, Snapshot

A, B = "a" * 40, "b" * 40
ALL = "report-status report-status-v2 side-band-64k quiet atomic push-options object-format=sha1 agent=git/2.39"


def wire(*lines, options=None, pack=b""):
    parts = [pkt.encode(line) for line in lines] + [FLUSH]
    if options is not None:
        parts += [pkt.encode(line) for line in options] + [FLUSH]
    return b"".join(parts) + pack


def read(data):
    reader = PktReader([data])
    return receive_pack.read_push(reader), b"".join(reader.rest())


def snapshot(refs):
    return Snapshot(1, b"refs/heads/main", {name: Ref(name, sha) for name, sha in refs.items()}, 1, 1, 0, None, ())


def test_commands_capabilities_options_and_pack_are_told_apart():
    data = wire(
        f"shallow {A}\n".encode(),
        f"{ZERO} {A} refs/heads/main\0 {ALL}".encode(),
        f"{B} {ZERO} refs/heads/old\n".encode(),
        options=[b"ci.skip\n", "pr.title=été".encode()],
        pack=b"PACK...",
    )
    push, rest = read(data)
    assert push.commands == (Command(ZERO, A, b"refs/heads/main"), Command(B, ZERO, b"refs/heads/old"))
    assert push.options == ("ci.skip", "pr.title=été")
    assert push.shallow == (A,)
    assert (push.atomic, push.side_band, push.quiet, push.report, push.brings_pack) == (True, True, True, 2, True)
    assert rest == b"PACK..."


def test_a_push_of_nothing_and_one_of_deletes():
    assert read(FLUSH) == (Push(()), b"")
    push, _ = read(wire(f"{A} {ZERO} refs/heads/x\0report-status delete-refs".encode()))
    assert not push.brings_pack
    assert (push.report, push.side_band) == (1, False)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        wire(f"{ZERO} {A} refs/heads/main".encode())[:-4],
        wire(b"x"),
        wire(f"{ZERO} {A}".encode()),
        wire(f"{ZERO} {A[:-1]} refs/heads/main".encode()),
        wire(f"{ZERO} {A.upper()} refs/heads/main".encode()),
        wire(f"{ZERO} {A} ".encode() + b"r" * 5000),
        wire(f"{ZERO} {A} a\0".encode(), f"{ZERO} {A} b\0caps".encode()),
        wire(f"{ZERO} {A} a\0".encode(), f"{ZERO} {B} a".encode()),
        wire(f"{ZERO} {A} a\0object-format=sha256".encode()),
        wire(b"push-cert\0report-status"),
        wire(f"{ZERO} {A} a\0push-options".encode(), options=[b"x"] * 65),
        wire(f"{ZERO} {A} a\0push-options".encode(), options=[b"x" * 1025]),
        wire(f"{ZERO} {A} a\0push-options".encode()),
        wire(*(f"{ZERO} {A} refs/heads/{n}".encode() for n in range(10_001))),
        b"0001",
        b"zzzz",
    ],
)
def test_words_that_are_no_push_are_refused(data):
    with pytest.raises(PktError):
        read(data)


@given(st.binary(max_size=300))
def test_garbage_raises_only_our_error(data):
    for prefix in (b"", pkt.encode(f"{ZERO} {A} a\0push-options".encode())):
        try:
            read(prefix + data)
        except RegistryError:
            pass


NAMES = st.binary(min_size=1, max_size=40).filter(lambda name: not {0, 10} & set(name))
SHAS = st.sampled_from([A, B, ZERO])


@given(st.lists(st.builds(Command, SHAS, SHAS, NAMES), min_size=1, unique_by=lambda one: one.name))
def test_what_is_sent_is_read(commands):
    lines = [f"{one.old} {one.new} ".encode() + one.name for one in commands]
    lines[0] += b"\0atomic report-status"
    push, rest = read(wire(*lines, pack=b"P"))
    assert push.commands == tuple(commands)
    assert push.atomic
    assert rest == b"P"


def test_the_advertisement_lists_visible_refs():
    refs = {b"refs/heads/main": A, b"refs/weightroom/x": B, b"refs/tags/v": B}
    lines = list(PktReader([receive_pack.advertise(snapshot(refs), agent="weightroom/1")]))
    assert lines[0] == b"# service=git-receive-pack\n"
    first, features = lines[2].split(b"\0")
    assert first == f"{A} refs/heads/main".encode()
    assert {b"report-status-v2", b"atomic", b"push-options", b"ofs-delta", b"agent=weightroom/1"} <= set(
        features.split()
    )
    assert lines[3:] == [f"{B} refs/tags/v\n".encode(), pkt.Mark.FLUSH]


def test_an_empty_repo_advertises_its_capabilities():
    lines = list(PktReader([receive_pack.advertise(snapshot({}), agent="w/1")]))
    assert lines[2].startswith(f"{ZERO} capabilities^{{}}\0report-status".encode())


def demux(data):
    channels = {1: b"", 2: b""}
    packets = list(PktReader([data]))
    assert packets.pop() is pkt.Mark.FLUSH
    for packet in packets:
        channels[packet[0]] += packet[1:]
    return channels


def test_the_report_of_version_two_tells_what_happened():
    push = Push((), frozenset(ALL.split()))
    results = [Result(b"refs/heads/a", forced=True, old=A, new=B), Result(b"refs/heads/b", "no\nway")]
    channels = demux(receive_pack.report(None, results, push, messages=["look: warning"]))
    assert channels[2] == b"look: warning\n"
    assert list(PktReader([channels[1]])) == [
        b"unpack ok\n",
        b"ok refs/heads/a\n",
        b"option old-oid " + A.encode() + b"\n",
        b"option new-oid " + B.encode() + b"\n",
        b"option forced-update\n",
        b"ng refs/heads/b no way\n",
        pkt.Mark.FLUSH,
    ]


def test_older_reports_are_plain():
    results = [Result(b"refs/heads/a", forced=True, old=A, new=B)]
    plain = receive_pack.report("bad pack", results, Push((), frozenset({"report-status"})), messages=["lost"])
    assert list(PktReader([plain])) == [b"unpack bad pack\n", b"ok refs/heads/a\n", pkt.Mark.FLUSH]
    assert receive_pack.report(None, results, Push(())) == b""
    assert receive_pack.report(None, results, Push((), frozenset({"side-band-64k"}))) == FLUSH


def test_a_report_of_many_refs_is_split_into_frames():
    push = Push((), frozenset(ALL.split()))
    names = [b"refs/tags/" + str(n).encode() * 10 for n in range(3000)]
    channels = demux(receive_pack.report(None, [Result(name) for name in names], push))
    assert sum(line.startswith(b"ok ") for line in PktReader([channels[1]]) if isinstance(line, bytes)) == 3000


def test_git_itself_sends_what_we_read(tmp_path):
    """`git send-pack --stateless-rpc` is the client half of a push over HTTP."""
    run = {"cwd": tmp_path, "check": True, "capture_output": True}
    subprocess.run(["git", "init", "-q", "-b", "main"], **run)
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", *who, "commit", "-q", "--allow-empty", "-m", "x"], **run)
    tip = subprocess.run(["git", "rev-parse", "HEAD"], **run).stdout.strip().decode()
    refs = receive_pack.advertise(snapshot({b"refs/heads/old": tip}), agent="w/1")
    refs = refs.removeprefix(pkt.encode(b"# service=git-receive-pack\n") + FLUSH)
    words = [b"main:refs/heads/main", b":refs/heads/old"]
    answer = receive_pack.report(
        None, [Result(b"refs/heads/main"), Result(b"refs/heads/old", "not today")], Push((), frozenset(ALL.split()))
    )
    done = subprocess.run(
        ["git", "send-pack", "--stateless-rpc", "--helper-status", "--push-option=hello", "--stdin", "."],
        cwd=tmp_path,
        input=b"".join(map(pkt.encode, words)) + FLUSH + refs + pkt.encode(answer.removesuffix(FLUSH)) + FLUSH,
        capture_output=True,
        check=False,
    )
    # The helper frames its request once more, as its parent process posts it in parts.
    body = b"".join(one for one in PktReader([done.stdout]) if isinstance(one, bytes) and one[:2] not in (b"ok", b"er"))
    push, pack = read(body)
    assert {(one.name, one.new) for one in push.commands} == {(b"refs/heads/main", tip), (b"refs/heads/old", ZERO)}
    assert push.options == ("hello",)
    assert push.report == 2
    assert pack[:4] == b"PACK"
