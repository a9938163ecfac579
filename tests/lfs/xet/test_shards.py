"""Shards are read as the layout says and as the real client writes them; what does not add up is refused."""

from __future__ import annotations

import hashlib
import time
import tracemalloc
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lfs.errors import BadXet
from lfs.xet import hashes
from lfs.xet.formats import MAX_CHUNK, MAX_CHUNKS, MAX_RAW, XorbReader, XorbTable
from lfs.xet.shards import Chunk, FiledFile, FiledXorb, Shard, Term, build, dedup_answer, parse
from tests.lfs.xet.conftest import CONTENT, Recorded, record
from tests.lfs.xet.recorder import Recorder

TAG = bytes.fromhex("48465265706f4d6574614461746100556967456a7b815783a5bdd95ccdd14aa9")
BOOKEND = b"\xff" * 32 + bytes(16)
MARK = 1 << 31
KEY = bytes(range(1, 33))


def u32(*values: int) -> bytes:
    return b"".join(value.to_bytes(4, "little") for value in values)


def u64(*values: int) -> bytes:
    return b"".join(value.to_bytes(8, "little") for value in values)


def name(letter: int) -> bytes:
    return bytes([letter]) * 32


# Made by hand, record by record; `at` counts bytes from the front.
GOLDEN = b"".join(
    [
        TAG + u64(2, 0),
        name(1) + u32(0xC000_0000, 2) + bytes(8),  # at 48: a file of two terms
        name(0xA0) + u32(0, 300, 0, 2),  # at 96
        name(0xA0) + u32(0, 100, 2, 3),
        name(0xB1) + bytes(16),  # at 192: their proofs
        name(0xB2) + bytes(16),
        bytes(range(32)) + bytes(16),  # at 288: the SHA-256, in the order of the text form
        bytes(32) + u32(0x8000_0000, 0) + bytes(8),  # at 336: an empty file, whose SHA-256 was not asked for
        BOOKEND,  # at 384
        name(0xA0) + u32(0, 3, 400, 0),  # at 432: a xorb of three chunks
        name(0xC0) + u32(0, 200, MARK, 0),  # at 480
        name(0xC1) + u32(200, 100, 0, 0),  # at 528
        name(0xC2) + u32(300, 100, 0, 0),
        BOOKEND,  # at 624
    ]
)
MEANT = Shard(
    files=(
        FiledFile(
            name(1),
            (Term(name(0xA0), 300, 0, 2, name(0xB1)), Term(name(0xA0), 100, 2, 3, name(0xB2))),
            "07060504030201000f0e0d0c0b0a090817161514131211101f1e1d1c1b1a1918",
        ),
        FiledFile(bytes(32), (), ""),
    ),
    xorbs=(
        FiledXorb(
            name(0xA0),
            (
                Chunk(name(0xC0), 0, 200, eligible=True),
                Chunk(name(0xC1), 200, 100, eligible=False),
                Chunk(name(0xC2), 300, 100, eligible=False),
            ),
            400,
        ),
    ),
)

names = st.binary(min_size=32, max_size=32).filter(lambda raw: raw not in (bytes(32), b"\xff" * 32))


@st.composite
def terms(draw: st.DrawFn, *, proven: bool) -> Term:
    start = draw(st.integers(0, MAX_CHUNKS - 1))
    end = draw(st.integers(start + 1, MAX_CHUNKS))
    unpacked = draw(st.integers(end - start, (end - start) * MAX_CHUNK))
    return Term(draw(names), unpacked, start, end, draw(names) if proven else b"")


@st.composite
def files(draw: st.DrawFn) -> FiledFile:
    sha256 = draw(st.just("") | names.map(bytes.hex))
    found = draw(st.lists(terms(proven=draw(st.booleans())), max_size=4))
    return FiledFile(draw(names) if found else bytes(32), tuple(found), sha256)


@st.composite
def xorbs(draw: st.DrawFn) -> FiledXorb:
    made, at = [], 0
    for length in draw(st.lists(st.integers(1, MAX_CHUNK), min_size=1, max_size=6)):
        made.append(Chunk(draw(names), at, length, draw(st.booleans())))
        at += length
    return FiledXorb(draw(names), tuple(made), at)


shards = st.builds(
    Shard,
    st.lists(files(), max_size=4, unique_by=lambda file: file.hash).map(tuple),
    st.lists(xorbs(), max_size=3).map(tuple),
)


def test_the_layout_is_read_and_written_as_drawn() -> None:
    assert parse(GOLDEN) == MEANT
    assert build(MEANT) == GOLDEN
    assert [file.size for file in parse(GOLDEN).files] == [400, 0]


@given(shards)
def test_a_shard_survives_its_bytes(shard: Shard) -> None:
    assert parse(build(shard)) == shard


def test_terms_are_a_sequence_like_any_other() -> None:
    found, meant = parse(GOLDEN).files[0].terms, MEANT.files[0].terms
    assert (found[0], found[-1], found[1:], len(found)) == (meant[0], meant[-1], meant[1:], 2)
    with pytest.raises(IndexError):
        found[2]


def test_every_truncation_is_refused() -> None:
    for end in range(len(GOLDEN)):
        with pytest.raises(BadXet):
            parse(GOLDEN[:end])


def means_the_same_again(data: bytes) -> bool:
    """True if `data` is refused, or understood in a way that can be written down."""
    try:
        found = parse(data)
    except BadXet:
        return True
    return parse(build(found)) == found


def test_no_flipped_bit_does_more_than_change_a_value() -> None:
    for at in range(len(GOLDEN) * 8):
        flipped = bytearray(GOLDEN)
        flipped[at // 8] ^= 1 << at % 8
        assert means_the_same_again(bytes(flipped))


@given(shards, st.lists(st.tuples(st.integers(0), st.binary(min_size=1, max_size=8)), max_size=4))
def test_bytes_written_over_a_shard_raise_only_our_error(shard: Shard, scars: list[tuple[int, bytes]]) -> None:
    data = bytearray(build(shard))
    for place, scar in scars:
        at = place % len(data)
        data[at : at + len(scar)] = scar
    assert means_the_same_again(bytes(data))


@given(st.binary(max_size=400))
@example(b"")
def test_garbage_behind_a_header_raises_only_our_error(data: bytes) -> None:
    assert means_the_same_again(data)
    assert means_the_same_again(TAG + u64(2, 0) + data)


@pytest.mark.parametrize(
    ("at", "value", "why"),
    [
        (0, b"X", "does not begin"),
        (32, u64(3), "version 3"),
        (80, u32(0xE000_0000), "not understood"),
        (84, u32(2**32 - 1), "ends before the terms"),
        (84, u32(0), "hash of nothing"),
        (336, name(1), "twice"),
        (336, name(2), "hash of nothing"),
        (132, u32(0), "chunks"),
        (136, u32(2), "chunks 2 to 2"),
        (132, u32(9000, 0, MAX_CHUNKS + 1), "chunks 0 to 8193"),
        (132, u32(2 * MAX_CHUNK + 1), "262145 bytes"),
        (132, u32(2**32 - 1), "4294967295 bytes"),
        (384, name(3), "hash of nothing"),
        (384, name(3) + u32(0, 9), "ends before the terms"),
        (468, u32(2**32 - 1), "4294967295 chunks"),
        (468, u32(0), "0 chunks"),
        (468, u32(5), "ends before the chunks"),
        (472, u32(401), "400 bytes, and it says 401"),
        (472, u32(MAX_RAW + 1), "the limits are"),
        (560, u32(199), "where byte 200 is next"),
        (564, u32(0), "a chunk of 0 bytes"),
        (564, u32(MAX_CHUNK + 1), "a chunk of 131073 bytes"),
        (624, name(3), "0 chunks"),
    ],
)
def test_what_does_not_add_up_is_refused_with_its_reason(at: int, value: bytes, why: str) -> None:
    data = bytearray(GOLDEN)
    data[at : at + len(value)] = value
    with pytest.raises(BadXet, match=why):
        parse(bytes(data))


@pytest.mark.parametrize("at", [384, 624])
def test_a_section_without_its_bookend_is_refused(at: int) -> None:
    with pytest.raises(BadXet):
        parse(GOLDEN[:at] + GOLDEN[at + len(BOOKEND) :])


def test_what_follows_the_end_is_announced_or_refused() -> None:
    with pytest.raises(BadXet, match="200 bytes follow"):
        parse(GOLDEN + bytes(200))
    announced = GOLDEN[:40] + u64(200) + GOLDEN[48:]
    with pytest.raises(BadXet, match="199 bytes follow"):
        parse(announced + bytes(199))
    assert parse(announced + bytes(200)) == MEANT


def test_a_footer_of_an_old_client_may_be_missing_or_have_tables_before_it() -> None:
    """hf_xet 1.1 and 1.2 say 200 and send none of them, or look-up tables too; they could upload nothing."""
    announced = GOLDEN[:40] + u64(200) + GOLDEN[48:]
    assert parse(announced) == MEANT
    assert parse(announced + bytes(1916)) == MEANT


def test_proofs_are_for_all_terms_or_none() -> None:
    half = FiledFile(name(1), (Term(name(2), 1, 0, 1, b""), Term(name(2), 1, 0, 1, name(3))), "")
    with pytest.raises(BadXet, match="all terms"):
        build(Shard((half,), ()))


def test_a_million_rows_take_little_more_than_their_bytes() -> None:
    count = 100_000
    data = TAG + u64(2, 0) + name(1) + u32(0, count) + bytes(8) + (name(2) + u32(0, 1, 0, 1)) * count + BOOKEND * 2
    tracemalloc.start()
    try:
        found = parse(data)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(found.files[0].terms) == count
    assert most < 1.1 * len(data)


def table(*rows: tuple[bytes, int, int]) -> bytes:
    return b"".join(chunk + u32(packed, unpacked) for chunk, packed, unpacked in rows)


def test_an_answer_is_laid_out_as_the_client_reads_it() -> None:
    first = table((name(1), 108, 100), (name(2), 166, 200))
    second = table((name(3), 58, 50))
    data = dedup_answer([(name(0xA0), first), (name(0xA1), second)], key=KEY, created=1000, expires=2000)
    footer = data[-200:]
    assert data[:48] == TAG + u64(2, 200)
    assert data[48:96] == BOOKEND
    assert data[96:-200] == b"".join(
        [
            name(0xA0) + u32(0, 2, 200, 166),
            hashes.keyed(KEY, name(1)) + u32(0, 100, 0, 0),
            hashes.keyed(KEY, name(2)) + u32(100, 100, 0, 0),
            name(0xA1) + u32(0, 1, 50, 58),
            hashes.keyed(KEY, name(3)) + u32(0, 50, 0, 0),
            BOOKEND,
        ]
    )
    at = len(data) - 200
    assert footer[:24] == u64(1, 48, 96)
    assert footer[24:72] == u64(at, 0, at, 0, at, 0)
    assert footer[72:104] == KEY
    assert footer[104:120] == u64(1000, 2000)
    assert footer[120:168] == bytes(48)
    assert footer[168:] == u64(224, 0, 250, at)
    assert [len(xorb.chunks) for xorb in parse(data).xorbs] == [2, 1]


def test_an_answer_never_tells_plain_hashes() -> None:
    with pytest.raises(ValueError, match="plain"):
        dedup_answer([], key=bytes(32), created=0, expires=1)


def test_a_stored_table_agrees_with_its_own_chunks_alone() -> None:
    xorb = MEANT.xorbs[0]
    rows = [(name(0xC0), 9, 200), (name(0xC1), 19, 300), (name(0xC2), 29, 400)]
    assert xorb.agrees(table(*rows))
    assert not xorb.agrees(table(*rows[:2]))
    assert not xorb.agrees(table(*rows[:2], (name(0xC3), 29, 400)))
    assert not xorb.agrees(table(rows[0], (name(0xC1), 19, 299), rows[2]))


COMMITS = [*CONTENT, "together"]


def only_shard(commit: Recorded) -> Shard:
    (body,) = commit.cas.shards
    return parse(body)


def proven(commit: Recorded) -> dict[bytes, XorbTable]:
    """The tables of all xorbs that a commit sent."""
    found = {}
    for hash_, body in commit.cas.xorbs.items():
        reader = XorbReader()
        reader.feed(body)
        found[hash_] = reader.finish(hash_)
    return found


@pytest.mark.clients
@pytest.mark.parametrize("title", COMMITS)
def test_the_client_files_each_file_once(title: str, recorded: Mapping[str, Recorded]) -> None:
    commit = recorded[title]
    files = {file.hash: file for file in only_shard(commit).files}
    assert files.keys() == {sent.hash for sent in commit.sent}
    for each, sent in zip(commit.names, commit.sent, strict=True):
        # Of nothing hf_xet 1.8 computes no SHA-256, and says zeros.
        digest = hashlib.sha256(CONTENT[each]).hexdigest() if CONTENT[each] else "0" * 64
        assert (files[sent.hash].size, files[sent.hash].sha256) == (len(CONTENT[each]), digest)
        assert (sent.size, sent.sha256) == (len(CONTENT[each]), digest)


@pytest.mark.clients
@pytest.mark.parametrize("title", COMMITS)
def test_we_write_the_very_bytes_that_the_client_does(title: str, recorded: Mapping[str, Recorded]) -> None:
    (body,) = recorded[title].cas.shards
    assert build(parse(body)) == body


@pytest.mark.clients
@pytest.mark.parametrize("title", COMMITS)
def test_every_claim_of_the_client_follows_from_its_xorbs(title: str, recorded: Mapping[str, Recorded]) -> None:
    tables, shard = proven(recorded[title]), only_shard(recorded[title])
    for xorb in shard.xorbs:
        assert xorb.agrees(tables[xorb.hash].rows)
        assert xorb.raw_size == tables[xorb.hash].raw_size
    for file in shard.files:
        for term in file.terms:
            assert term.unpacked == tables[term.xorb].unpacked(term.start, term.end)
            assert term.proof == tables[term.xorb].span(term.start, term.end)
        leaves = [leaf for term in file.terms for leaf in tables[term.xorb].leaves(term.start, term.end)]
        assert hashes.file(leaves) == file.hash


@pytest.mark.clients
def test_the_client_believes_our_answer_and_sends_no_xorb(recorded: Mapping[str, Recorded], tmp_path: Path) -> None:
    before = recorded["random"]
    ((xorb, rows),) = proven(before).items()
    now = int(time.time())
    answer = dedup_answer([(xorb, rows.rows)], key=KEY, created=now, expires=now + 86400)
    after = record(tmp_path, "random", cas=Recorder(answers={hashes.text(rows.hash(0)): answer}))
    assert not after.cas.xorbs
    (file,) = only_shard(after).files
    assert file == only_shard(before).files[0]
    assert not only_shard(after).xorbs
