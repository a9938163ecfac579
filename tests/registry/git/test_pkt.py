"""pkt-lines survive any chunking, and bad bytes raise only our error."""

from __future__ import annotations

import gzip
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.errors import TooLarge
from registry.git import pkt
from registry.git.pkt import Mark, Packet, PktError, PktReader

PACKETS = st.lists(st.one_of(st.binary(max_size=300), st.sampled_from(list(Mark))), max_size=12)


def cut(data: bytes, sizes: list[int]) -> Iterator[bytes]:
    for size in sizes:
        yield data[:size]
        data = data[size:]
    yield data


def wire(packets: list[Packet]) -> bytes:
    return b"".join(packet.value if isinstance(packet, Mark) else pkt.encode(packet) for packet in packets)


@given(packets=PACKETS, sizes=st.lists(st.integers(0, 50), max_size=30), tail=st.binary(max_size=40))
def test_packets_survive_any_chunking(packets: list[Packet], sizes: list[int], tail: bytes) -> None:
    reader = PktReader(cut(wire(packets) + tail, sizes))
    assert [reader.read() for _ in packets] == packets
    assert b"".join(reader.rest()) == tail


@given(garbage=st.binary(max_size=200), sizes=st.lists(st.integers(0, 9), max_size=20))
def test_garbage_raises_only_our_error(garbage: bytes, sizes: list[int]) -> None:
    try:
        for packet in PktReader(cut(garbage, sizes)):
            assert isinstance(packet, bytes | Mark)
    except PktError:
        pass


@pytest.mark.parametrize(
    "bad", [b"0003", b"fff1" + b"x" * 65_517, b"00", b"0009abc", b"00g0", b"-001", b" 005x", b"0x05a"]
)
def test_malformed_lengths_are_refused(bad: bytes) -> None:
    with pytest.raises(PktError):
        list(PktReader([bad]))


def test_the_longest_packet_is_allowed_and_no_longer() -> None:
    longest = b"x" * pkt.MAX_PAYLOAD
    assert PktReader([pkt.encode(longest)]).read() == longest
    with pytest.raises(PktError):
        pkt.encode(longest + b"x")


@pytest.mark.parametrize(
    ("size", "payload"), [(0, 65_515), (1, 65_515), (65_515, 65_515), (3_000_001, 65_515), (5_000, 995)]
)
def test_side_band_frames_carry_all_bytes_in_blocks_of_one_mebibyte(size: int, payload: int) -> None:
    data = bytes(range(256)) * (size // 256 + 1)
    data = data[:size]
    blocks = list(pkt.side_band(1, data, payload=payload))
    frames = list(PktReader(blocks))
    assert all(isinstance(frame, bytes) and frame[:1] == b"\x01" and len(frame) <= payload + 1 for frame in frames)
    assert b"".join(frame[1:] for frame in frames if isinstance(frame, bytes)) == data
    assert all(len(block) <= 16 * (payload + 5) for block in blocks)


@given(data=st.binary(max_size=3000), sizes=st.lists(st.integers(0, 60), max_size=30))
def test_gzip_bodies_survive_any_chunking(data: bytes, sizes: list[int]) -> None:
    assert b"".join(pkt.gunzip(cut(gzip.compress(data), sizes), 3000)) == data


def test_a_large_gzip_body_comes_in_pieces_of_a_mebibyte() -> None:
    data = bytes(i * i % 251 for i in range(5000)) * 700
    pieces = list(pkt.gunzip([gzip.compress(data)], 1 << 30, ratio=10_000))
    assert b"".join(pieces) == data
    assert max(map(len, pieces)) == 1 << 20


@given(garbage=st.binary(max_size=200))
def test_damaged_gzip_raises_only_our_error(garbage: bytes) -> None:
    for body in (garbage, gzip.compress(b"good")[:12] + garbage):
        with pytest.raises(PktError):
            list(pkt.gunzip([body], 1 << 20))


def test_a_gzip_body_is_bounded_in_size_ratio_and_end() -> None:
    with pytest.raises(TooLarge, match="beyond 100 bytes"):
        list(pkt.gunzip([gzip.compress(b"x" * 101)], 100))
    with pytest.raises(TooLarge, match="more than 100 times"):
        list(pkt.gunzip([gzip.compress(bytes(8 << 20))], 1 << 30))
    with pytest.raises(PktError, match="after the end"):
        list(pkt.gunzip([gzip.compress(b"x") + b"more"], 100))
    with pytest.raises(PktError, match="after the end"):
        list(pkt.gunzip([gzip.compress(b"x"), b"more"], 100))
    with pytest.raises(PktError, match="cut short"):
        list(pkt.gunzip([gzip.compress(b"x" * 50)[:-3]], 100))
