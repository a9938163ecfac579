"""A pack that lies about sizes, counts, types or checksums is refused with a reason, before it costs anything."""

import hashlib
import re
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.git import ingest
from registry.git.packfile import BLOB, COMMIT, TREE
from registry.git.packing import entry_header
from registry.git.snapshot import ZERO
from registry.git.verdict import Job, Limits, Update
from tests.registry.git.pushed import MAIN, Bench, by_id, by_offset, delta, one_commit, pack, sha, whole

A = whole(BLOB, b"a" * 100)
GOOD, TIP = one_commit((b"100644", b"a", b"hello"), (b"100644", b"b", b"x" * 70_000))
LIMITS = Limits(
    objects=1000, blob_hard=1 << 20, tree=1 << 16, header=1 << 12, delta_target=1 << 20, ratio_floor=4 << 20
)


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


def broken_zlib(content):
    stream = bytearray(zlib.compress(content))
    stream[-1] ^= 1
    return entry_header(BLOB, len(content)) + bytes(stream)


def resealed(data):
    return data + hashlib.sha1(data).digest()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not a pack"),
        (b"PACK", "not a pack"),
        (resealed(b"JUNK" + GOOD[4:-20]), "not a pack"),
        (resealed(b"PACK\0\0\0\4" + GOOD[8:-20]), "version"),
        (GOOD[:-1] + bytes([GOOD[-1] ^ 1]), "trailer does not match"),
        (GOOD[:60] + bytes([GOOD[60] ^ 1]) + GOOD[61:], "trailer does not match"),
        (GOOD[:-30], "trailer does not match"),
        (pack(A, count=2), "ends before its last object"),
        (pack(A, whole(BLOB, b"b"), count=1), "between the last object and the trailer"),
        (pack(A, count=999), "too short for its number of objects"),
        (pack(A, count=1001), "at most 1000"),
        (pack(A, A), "holds an object twice"),
        (pack(whole(BLOB, b"abc", size=2)), "larger than it declares"),
        (pack(whole(BLOB, b"abc", size=4)), "smaller than it declares"),
        (pack(whole(BLOB, b"x" * 70_000, size=69_999)), "larger than it declares"),
        (pack(whole(BLOB, b"x" * 70_000, size=70_001)), "smaller than it declares"),
        (pack(whole(BLOB, b"", size=1)), "smaller than it declares"),
        (pack(broken_zlib(b"abc")), "does not inflate"),
        (pack(broken_zlib(b"abc" * 50_000)), "does not inflate"),
        (pack(entry_header(BLOB, 100) + zlib.compress(bytes(range(100)))[:-6]), "does not inflate|ends within"),
        (pack(entry_header(BLOB, 9) + b"not zlib at all"), "does not inflate"),
        (pack(bytes([5 << 4]) + zlib.compress(b"")), "unknown object type 5"),
        (pack(bytes([0]) + zlib.compress(b"")), "unknown object type 0"),
        (pack(bytes([0xB0]) + b"\xff" * 40), "bad object header"),
        (pack(whole(BLOB, b"0" * ((1 << 20) + 1))), "blob of 1048577 bytes"),
        (pack(whole(TREE, b"0" * ((1 << 16) + 1))), "tree of 65537 bytes"),
        (pack(whole(COMMIT, b"0" * ((1 << 12) + 1))), "commit of 4097 bytes"),
        (pack(by_offset(10_000, b"\1\1\1a")), "base offset is out of bound"),
        (pack(A, by_offset(len(A) - 1, delta(100, [b"b"]))), "unresolved deltas: 1"),
        (pack(by_id(b"\7" * 20, delta(100, [b"b"]))), "base 0707070707070707070707070707070707070707 is not in"),
        (pack(A, by_offset(len(A), delta(99, [b"b"]))), "does not fit its base"),
        (pack(A, by_offset(len(A), delta(100, [(90, 20)]))), "does not fit its base"),
        (pack(A, by_offset(len(A), delta(100, [b"b"], target=2))), "does not fit its base"),
        (pack(A, by_offset(len(A), b"\x64")), "a delta is cut short"),
        (pack(A, by_offset(len(A), b"\x64" + b"\xff" * 11)), "a delta is cut short"),
        (pack(A, by_offset(len(A), delta(100, [b"b"], target=1 << 50))), "core.bigFileThreshold"),
        (pack(A, by_offset(len(A), delta(100, [(0, 100)]))), "holds an object twice"),
        (pack(whole(COMMIT, b"x"), by_offset(len(whole(COMMIT, b"x")), delta(1, []))), "makes an empty object"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_lies_are_named(bench, data, reason):
    verdict = bench.check(data, (MAIN, ZERO, TIP), limits=LIMITS)
    assert verdict.unpack_error is not None
    assert re.search(reason, verdict.unpack_error)
    assert verdict.pack is None


def test_a_bomb_is_refused_by_its_declared_size(bench):
    bombs = [whole(BLOB, bytes([n]) + bytes(1 << 20), level=9) for n in range(5)]
    verdict = bench.check(pack(*bombs), (MAIN, ZERO, TIP), limits=Limits(ratio_floor=4 << 20))
    assert "inflates beyond" in verdict.unpack_error


def test_a_bomb_that_hides_its_size_is_stopped_while_it_inflates(bench):
    verdict = bench.check(pack(whole(BLOB, bytes(50 << 20), size=70_000, level=9)), (MAIN, ZERO, TIP))
    assert verdict.unpack_error == "an object is larger than it declares"


def test_deltas_that_unfold_without_end_are_refused(bench):
    base = whole(BLOB, b"b" * 1000)
    grown = by_offset(len(base), delta(1000, [(0, 1000)] * 1000))
    entries, back = [base, grown], len(grown)
    for n in range(20):
        entries.append(by_offset(back, delta(1_000_000, [(0, 999_000), bytes([n])])))
        back = len(entries[-1])
    verdict = bench.check(pack(*entries), (MAIN, ZERO, TIP), limits=Limits(expanded=10_000_000))
    assert "unfold beyond 10000000" in verdict.unpack_error


def test_streams_longer_than_they_need_to_be_are_taken(bench):
    """Empty deflate blocks are legal; git accepts them, however many there are."""
    for content in (b"abc", b"x" * 70_000):
        packer = zlib.compressobj()
        stream = packer.compress(content) + b"".join(packer.flush(zlib.Z_FULL_FLUSH) for _ in range(50))
        stream += b"".join(packer.compress(b"") + packer.flush(zlib.Z_FULL_FLUSH) for _ in range(50))
        extra = b"\0\0\0\xff\xff" * 20_000
        stream += extra + packer.flush()
        entry, found = entry_header(BLOB, len(content)) + stream, sha(BLOB, content).hex()
        verdict = bench.check(pack(entry), (b"refs/tags/x", ZERO, found))
        assert verdict.unpack_error is None
        assert set(verdict.tips) == {found}


@given(st.data())
def test_garbage_gets_a_verdict(tmp_path_factory, data):
    """Whatever bytes stand behind a true checksum, the answer is a verdict."""
    body = bytearray(GOOD[:-20])
    for _ in range(data.draw(st.integers(1, 5))):
        body[data.draw(st.integers(8, len(body) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("q") / "x.pack"
    path.write_bytes(resealed(bytes(body)))
    verdict = ingest.check(Job(str(path), (), (Update(MAIN, ZERO, TIP),), limits=LIMITS))
    assert verdict.unpack_error or verdict.refusals or verdict.tips


@given(st.binary(max_size=200), st.integers(0, 3))
def test_random_entries_get_a_verdict(tmp_path_factory, entries, count):
    path = tmp_path_factory.mktemp("q") / "x.pack"
    path.write_bytes(pack(entries, count=count))
    assert ingest.check(Job(str(path), (), (Update(MAIN, ZERO, TIP),))).pack is None
