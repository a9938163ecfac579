"""Names come out as the Xet clients make them: published vectors, and hf_xet itself over whole files."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lfs.errors import BadXet
from lfs.xet import hashes

LARGEST = 131_072
# Clients never end a chunk within its first 8 KiB, nor within zeros, so these are chunks of the largest size.
UNEVEN = 7000

raws = st.binary(min_size=32, max_size=32)


def leaves(*chunks: bytes) -> list[tuple[bytes, int]]:
    return [(hashes.chunk(chunk), len(chunk)) for chunk in chunks]


TWENTY = leaves(*(bytes([at]) * 10 for at in range(20)))


def test_the_text_of_a_hash_is_four_numbers() -> None:
    name = "07060504030201000f0e0d0c0b0a090817161514131211101f1e1d1c1b1a1918"
    assert hashes.text(bytes(range(32))) == name
    assert hashes.parse(name) == bytes(range(32))


@given(raws)
def test_a_hash_survives_its_text(raw: bytes) -> None:
    assert hashes.parse(hashes.text(raw)) == raw


@given(st.text() | st.text("0123456789abcdefABCDEF_+ \n٣", min_size=62, max_size=66))
def test_text_of_any_other_shape_is_refused(text: str) -> None:
    if len(text) == 64 and set(text) <= set("0123456789abcdef"):
        assert hashes.text(hashes.parse(text)) == text
    else:
        with pytest.raises(BadXet):
            hashes.parse(text)


def test_a_text_with_a_line_after_it_is_refused() -> None:
    with pytest.raises(BadXet):
        hashes.parse("0" * 64 + "\n")


def test_one_chunk() -> None:
    raw = hashes.chunk(b"hello world")
    assert hashes.text(raw) == "4e39378b9d359f118190557a1f44130219a54e5fcfa07bd96cf50b466fe651b1"
    file = hashes.file([(raw, 11)])
    assert hashes.text(file) == "f15edd43b7e85cfd25e2758ffe13b99fdd09dfa817e8d9f6548722a7a126db7f"
    told = hashes.keyed(bytes(range(32)), raw)
    assert hashes.text(told) == "01d774a58eab4d28ea31a959ebdd1adbfb6940544b51a316db7acd593dfdd0b4"
    assert hashes.xorb([(raw, 11)]) == raw


def test_nothing_is_named_by_zeros() -> None:
    assert hashes.root([]) == hashes.xorb([]) == hashes.file([]) == hashes.EMPTY


@pytest.mark.parametrize(
    ("count", "name"),
    [
        (2, "cba51b7ae391dcb5c1d455863600d6c8807c7da5509af4fa4c97f729f43895f4"),
        (3, "758c52331659c79101410752494f64400fada0ff4fe5fe804591324bbc07e5fd"),
        (4, "73f5bf34dda76f006b75e1da89ac9ce8d6a927692f15627ac8ce4efcb41e0618"),
        (9, "8d85482f468ecceb749c9d3c102ccc0d7db2b37623f34e5943d0ea3da1ed868b"),
        (10, "a116fc1b3d18c28b18b56c6e0cf025d1c8ee8895c43f74939992f43a9f73b052"),
        (20, "ddae3ee3d3362222d98a1e9244462259ec355a83e8ac5f9f2c7f02e5248c47d5"),
    ],
)
def test_the_root_over_some_chunks(count: int, name: str) -> None:
    assert hashes.text(hashes.root(TWENTY[:count])) == name


def test_a_file_and_a_range_of_twenty_chunks() -> None:
    file, span = hashes.file(TWENTY), hashes.span(raw for raw, _ in TWENTY)
    assert hashes.text(file) == "9337ae5662c1a10c569f838e9f671677d9f1e07eca90daf3dcc7a3feef47d154"
    assert hashes.text(span) == "0df0114943f26d0156ccdf0d2ed911d8ea63de41d039d972f6c35cb904f5c3e2"


def test_a_file_of_zeros() -> None:
    zeros = leaves(bytes(LARGEST), bytes(LARGEST), bytes(37_856))
    assert hashes.text(hashes.root(zeros)) == "c2c391c2780688107997606ed6798520928296386f08a43bdf7e28cd1b06b37b"
    assert hashes.text(hashes.file(zeros)) == "3d7bd4178bc2851ba07d59c24c3a88ae0c7220e9920d6c5c6a06b01556d46404"


def test_a_chunk_in_1024_may_be_asked_for_anywhere() -> None:
    assert hashes.eligible(bytes(24) + (5 * 1024).to_bytes(8, "little"))
    assert hashes.eligible(bytes([255]) * 24 + bytes(8))
    assert not hashes.eligible(bytes(24) + (5 * 1024 + 1).to_bytes(8, "little"))


def by_levels(nodes: Sequence[tuple[bytes, int]]) -> bytes:
    """Follow the words of the rule, level after level, with all of each level at hand."""
    while len(nodes) > 1:
        parents, at = [], 0
        while at < len(nodes):
            rem = len(nodes) - at
            size = end = min(9, rem)
            for k in range(2, end):
                if int.from_bytes(nodes[at + k][0][24:], "little") % 4 == 0:
                    size = k + 1
                    break
            parents.append(hashes.node(nodes[at : at + size]))
            at += size
        nodes = parents
    return nodes[0][0] if nodes else hashes.EMPTY


@given(st.integers(0, 200), st.randoms(use_true_random=False))
def test_leaves_that_come_one_by_one_make_the_same_root(count: int, chance: random.Random) -> None:
    nodes = [(chance.randbytes(32), chance.randrange(1, LARGEST)) for _ in range(count)]
    assert hashes.root(iter(nodes)) == by_levels(nodes)


def test_a_file_of_many_chunks_is_named_without_keeping_them() -> None:
    def many() -> Iterator[tuple[bytes, int]]:
        chance = random.Random(7)
        return ((chance.randbytes(32), 65_536) for _ in range(20_000))

    tracemalloc.start()
    hashes.file(many())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 200_000


@pytest.mark.clients
def test_hf_xet_names_whole_files_alike(tmp_path: Path) -> None:
    """Sizes to both sides of one chunk and one group, and files whose tree has four levels."""
    chance, files = random.Random(11), []
    for count, tail in ((0, 0), (0, 1), (0, 8192), (1, 0), (1, 1), (2, 5), (3, 0), (9, 0), (10, 0), (28, 7), (250, 99)):
        chunks = [chance.randbytes(UNEVEN) + bytes(LARGEST - UNEVEN) for _ in range(count)]
        chunks += [chance.randbytes(tail)] if tail else []
        path = tmp_path / f"{count}-{tail}"
        path.write_bytes(b"".join(chunks))
        files.append((str(path), hashes.text(hashes.file(leaves(*chunks)))))
    script = "import hf_xet, json, sys; print(json.dumps([f.hash for f in hf_xet.hash_files(sys.argv[1:])]))"
    asked = [sys.executable, "-c", script, *(path for path, _ in files)]
    told = subprocess.run(asked, capture_output=True, check=True, env={"HOME": str(tmp_path)}, timeout=120)
    assert json.loads(told.stdout) == [name for _, name in files]
