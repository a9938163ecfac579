"""A xorb is taken if every byte of it is right; any other bytes are refused, and cost no more memory than a chunk."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

import lz4.frame
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lfs.errors import BadXet
from lfs.xet import hashes
from lfs.xet.formats import (
    BG4,
    HEADER,
    LZ4,
    MAX_BODY,
    MAX_CHUNK,
    MAX_CHUNKS,
    MAX_PAYLOAD,
    STORED,
    XorbReader,
    XorbTable,
    chunks,
    pack,
    unpack,
)

SCHEMES = [STORED, LZ4, BG4]
schemes = st.sampled_from(SCHEMES)
# Text packs, noise does not, and every remainder of a length by four has to come back from regrouping.
lists = st.lists(
    st.binary(min_size=1, max_size=300)
    | st.builds(bytes.__mul__, st.binary(min_size=1, max_size=9), st.integers(1, 99)),
    min_size=1,
    max_size=12,
)
SMALL = [b"weights " * 20, b"\x00\x01\x02", random.Random(1).randbytes(50), bytes(97)]


def name_of(parts: Iterable[bytes]) -> bytes:
    return hashes.xorb((hashes.chunk(part), len(part)) for part in parts)


def read(body: bytes, expected: bytes, piece: int = 1 << 20) -> XorbTable:
    reader = XorbReader()
    for at in range(0, len(body), piece):
        reader.feed(body[at : at + piece])
    return reader.finish(expected)


def header(payload: int, scheme: int, size: int, version: int = 0) -> bytes:
    return bytes([version]) + payload.to_bytes(3, "little") + bytes([scheme]) + size.to_bytes(3, "little")


def one(payload: bytes, scheme: int, size: int) -> bytes:
    return header(len(payload), scheme, size) + payload


@given(lists, schemes, st.lists(st.integers(0, 5000), max_size=8))
def test_a_packed_xorb_is_proven_wherever_it_is_split(parts: list[bytes], scheme: int, cuts: list[int]) -> None:
    body, reader = pack(parts, scheme), XorbReader()
    edges = sorted({0, len(body), *(cut % len(body) for cut in cuts)})
    for start, end in pairwise(edges):
        reader.feed(memoryview(body)[start:end])
    table = reader.finish(name_of(parts))
    assert table.chunks == len(parts)
    assert table.raw_size == sum(map(len, parts))
    assert table.body_size == len(body)
    assert list(chunks(body)) == parts


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_xorb_may_come_byte_by_byte(scheme: int) -> None:
    assert read(pack(SMALL, scheme), name_of(SMALL), piece=1).chunks == len(SMALL)


def test_ten_bytes_regrouped() -> None:
    body = one(lz4.frame.compress(bytes([0, 4, 8, 1, 5, 9, 2, 6, 3, 7])), BG4, 10)
    assert unpack(body) == bytes(range(10))


@given(lists, schemes)
def test_a_table_says_where_the_chunks_lie(parts: list[bytes], scheme: int) -> None:
    body = pack(parts, scheme)
    table = read(body, name_of(parts))
    names = [hashes.chunk(part) for part in parts]
    for start in range(len(parts)):
        assert table.hash(start) == names[start]
        for end in range(start + 1, len(parts) + 1):
            first, last = table.physical(start, end)
            assert b"".join(chunks(body[first:last])) == b"".join(parts[start:end])
            assert table.unpacked(start, end) == sum(map(len, parts[start:end]))
            assert table.span(start, end) == hashes.span(names[start:end])
            assert list(table.hashes(start, end)) == names[start:end]
            assert list(table.leaves(start, end)) == [(hashes.chunk(part), len(part)) for part in parts[start:end]]


@given(lists)
def test_the_chunk_of_a_byte_is_found(parts: list[bytes]) -> None:
    table = read(pack(parts, STORED), name_of(parts))
    owners = [at for at, part in enumerate(parts) for _ in part]
    assert [table.chunk_at(offset) for offset in range(len(owners))] == owners
    for offset in (-1, len(owners)):
        with pytest.raises(BadXet):
            table.chunk_at(offset)


@pytest.mark.parametrize(("start", "end"), [(-1, 1), (0, 0), (2, 1), (0, 5), (4, 5), (0, 1 << 40)])
@pytest.mark.parametrize("ask", [XorbTable.physical, XorbTable.unpacked, XorbTable.span, XorbTable.leaves])
def test_chunks_that_a_xorb_does_not_have_are_refused(
    start: int, end: int, ask: Callable[[XorbTable, int, int], object]
) -> None:
    table = read(pack(SMALL, STORED), name_of(SMALL))
    with pytest.raises(BadXet):
        ask(table, start, end)


@given(lists, schemes)
def test_a_table_survives_its_bytes(parts: list[bytes], scheme: int) -> None:
    table = read(pack(parts, scheme), name_of(parts))
    again = XorbTable.from_bytes(table.to_bytes())
    assert len(again.to_bytes()) == 40 * len(parts) + 32
    assert again.to_bytes() == table.to_bytes()
    assert (again.chunks, again.raw_size, again.body_size) == (table.chunks, table.raw_size, table.body_size)


@given(st.binary(max_size=200) | st.binary(min_size=112, max_size=112))
def test_garbage_is_no_table(data: bytes) -> None:
    with pytest.raises(BadXet):
        XorbTable.from_bytes(data)


@given(st.binary(max_size=200) | st.binary(min_size=80, max_size=80))
def test_rows_that_no_xorb_has_are_no_table_whatever_their_check_says(rows: bytes) -> None:
    with pytest.raises(BadXet):
        XorbTable.from_bytes(rows + hashes.check(rows))


@given(lists, schemes, st.data())
def test_a_stored_table_with_any_byte_changed_is_never_believed(
    parts: list[bytes], scheme: int, data: st.DataObject
) -> None:
    """A flipped bit where a chunk ends in the xorb was believed, and sent clients to wrong ranges until the scrub."""
    stored = bytearray(read(pack(parts, scheme), name_of(parts)).to_bytes())
    stored[data.draw(st.integers(0, len(stored) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(BadXet):
        XorbTable.from_bytes(bytes(stored))


@given(st.binary(max_size=400), st.integers(1, 50))
def test_garbage_is_no_xorb(data: bytes, piece: int) -> None:
    with pytest.raises(BadXet):
        read(data, bytes(32), piece)


@given(st.binary(max_size=200), st.sampled_from([LZ4, BG4]), st.integers(1, MAX_CHUNK))
def test_garbage_behind_a_good_header_is_no_chunk(payload: bytes, scheme: int, size: int) -> None:
    for frame in (payload, b"\x04\x22\x4d\x18" + payload):
        for ask in (unpack, lambda data: list(chunks(data)), lambda data: read(data, bytes(32))):
            with pytest.raises(BadXet):
                ask(one(frame, scheme, size))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_xorb_cut_short_anywhere_is_refused(scheme: int) -> None:
    body, expected = pack(SMALL, scheme), name_of(SMALL)
    for end in range(len(body)):
        with pytest.raises(BadXet):
            read(body[:end], expected)
        with pytest.raises(BadXet):
            read(body[:end], expected, piece=5)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_no_flipped_bit_yields_other_chunks(scheme: int) -> None:
    """A flip is refused, or it struck what unpacks alike: some bits of an LZ4 frame mean nothing."""
    body, expected = pack(SMALL, scheme), name_of(SMALL)
    for at in range(len(body) * 8):
        flipped = bytearray(body)
        flipped[at // 8] ^= 1 << at % 8
        try:
            read(bytes(flipped), expected)
        except BadXet:
            continue
        assert scheme != STORED
        assert list(chunks(bytes(flipped))) == SMALL


def test_a_xorb_under_another_name_is_refused() -> None:
    body = pack(SMALL, STORED)
    for parts in (SMALL[:-1], SMALL[::-1], [*SMALL, b"more"], [b"".join(SMALL)]):
        with pytest.raises(BadXet, match=hashes.text(name_of(SMALL))):
            read(body, name_of(parts))


def test_a_footer_is_passed_over_and_not_counted() -> None:
    body, footer = pack(SMALL, LZ4), b"XETBLOB" + bytes(40 * len(SMALL) + 101)
    for piece in (1, 7, 100, 10_000):
        table = read(body + footer, name_of(SMALL), piece)
        assert table.body_size == len(body)
    for bad in (b"XETBLOB", b"XETBLOC" + footer[7:], footer + bytes(2000)):
        with pytest.raises(BadXet):
            read(body + bad, name_of(SMALL))
    with pytest.raises(BadXet):
        read(footer, bytes(32))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        header(1, STORED, 1, version=1) + b"x",
        header(1, 3, 1) + b"x",
        header(0, STORED, 0),
        header(0, LZ4, 1),
        header(2, STORED, 1) + b"xx",
        header(1, STORED, 2) + b"x",
        header(MAX_CHUNK + 1, STORED, MAX_CHUNK + 1) + bytes(MAX_CHUNK + 1),
        header(MAX_PAYLOAD + 1, LZ4, MAX_CHUNK),
        header((1 << 24) - 1, LZ4, (1 << 24) - 1),
        one(lz4.frame.compress(b"abc"), LZ4, 2),
        one(lz4.frame.compress(b"abc"), LZ4, 4),
        one(lz4.frame.compress(b"abc", store_size=False)[:-1], LZ4, 3),
        one(lz4.frame.compress(b"abc") + b"x", LZ4, 3),
        one(lz4.frame.compress(b"abc") + lz4.frame.compress(b"def"), LZ4, 6),
        one(b"\x50\x2a\x4d\x18\x04\x00\x00\x00abcd", LZ4, 4),
    ],
)
def test_a_chunk_that_lies_is_refused(data: bytes) -> None:
    with pytest.raises(BadXet):
        read(data, name_of([b"abc"]))
    if data:
        with pytest.raises(BadXet):
            unpack(data)
        with pytest.raises(BadXet):
            list(chunks(data))


def test_bytes_after_a_chunk_are_not_passed_over_in_silence() -> None:
    with pytest.raises(BadXet):
        unpack(pack([b"one", b"two"], STORED))


def test_a_length_is_refused_before_its_bytes_come() -> None:
    for head in (header(MAX_PAYLOAD + 1, LZ4, 1), header(9, LZ4, MAX_CHUNK + 1), header(1, 9, 1)):
        with pytest.raises(BadXet):
            XorbReader().feed(head)


def test_a_xorb_has_no_more_chunks_than_allowed() -> None:
    parts = [b"x"] * MAX_CHUNKS
    table = read(pack(parts, STORED), name_of(parts))
    assert table.chunks == MAX_CHUNKS
    assert XorbTable.from_bytes(table.to_bytes()).raw_size == MAX_CHUNKS
    with pytest.raises(BadXet, match="at most 8192 chunks"):
        read(pack([*parts, b"x"], STORED), bytes(32))


def test_a_xorb_has_64_mib_of_packed_bytes_whatever_they_unpack_to() -> None:
    """JavaScript packs more than 64 MiB into a xorb if they pack well; a commit of such a file was refused."""
    zeros, name = pack([bytes(MAX_CHUNK)], LZ4), hashes.chunk(bytes(MAX_CHUNK))
    table = read(zeros * 600, hashes.xorb([(name, MAX_CHUNK)] * 600))
    assert table.raw_size == 600 * MAX_CHUNK > MAX_BODY
    assert XorbTable.from_bytes(table.to_bytes()).raw_size == table.raw_size
    with pytest.raises(BadXet, match="at most 67174400 bytes"):
        read(pack([bytes(MAX_CHUNK)], STORED) * 513, bytes(32))


def test_a_xorb_is_not_longer_packed_than_stored() -> None:
    frame = lz4.frame.compress(b"abc")
    with pytest.raises(BadXet, match="store what does not pack"):
        read(one(frame, LZ4, 3), name_of([b"abc"]))


def bombs() -> Sequence[bytes]:
    """Frames of a few hundred KB that hold 50 MiB, or say that they hold 1 TiB."""
    vast = lz4.frame.compress(bytes(50 << 20), store_size=False)
    claim = b"\x04\x22\x4d\x18\x68\x40" + (1 << 40).to_bytes(8, "little")
    # The last byte of a frame's header is its checksum: one of 256 is right.
    claims = [claim + bytes([check]) + vast[7:] for check in range(256)]
    assert sum(claims_a_tebibyte(frame) for frame in claims) == 1
    assert max(map(len, [vast, *claims])) < MAX_PAYLOAD
    return [one(frame, LZ4, MAX_CHUNK) for frame in [vast, *claims]]


def claims_a_tebibyte(frame: bytes) -> bool:
    try:
        return int(lz4.frame.get_frame_info(frame)["content_size"]) == 1 << 40
    except RuntimeError:
        return False


@pytest.mark.parametrize("scheme", [LZ4, BG4])
def test_bombs_are_refused_before_memory_grows(scheme: int) -> None:
    bodies = [body[:4] + bytes([scheme]) + body[5:] for body in bombs()]
    tracemalloc.start()
    for body in bodies:
        with pytest.raises(BadXet):
            read(body, bytes(32))
        with pytest.raises(BadXet):
            unpack(body)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_reader_keeps_one_chunk_and_the_table(scheme: int) -> None:
    chance = random.Random(4)
    parts = [chance.randbytes(MAX_CHUNK // 2) + bytes(MAX_CHUNK // 2) for _ in range(64)]
    body, expected = memoryview(pack(parts, scheme)), name_of(parts)
    reader = XorbReader()
    tracemalloc.start()
    for at in range(0, len(body), 50_000):
        reader.feed(body[at : at + 50_000])
    reader.finish(expected)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 6 * MAX_CHUNK


def test_packing_never_makes_a_chunk_longer() -> None:
    noise = random.Random(2).randbytes(5000)
    for scheme in SCHEMES:
        assert pack([noise], scheme) == header(5000, STORED, 5000) + noise
        assert len(pack([bytes(5000)], scheme)) <= 5000 + HEADER
