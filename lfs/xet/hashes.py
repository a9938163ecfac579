"""The names of the Xet protocol: chunks, xorbs, files and ranges, as 32 bytes and as text.

    text        four groups of 8 bytes, each a little-endian number printed as 16 hex digits: 64 lowercase digits
    chunk       blake3, keyed DATA, of its raw bytes
    node        blake3, keyed NODE, of a line for each child: its text, " : ", its size, LF; its size is their sum
    root        nodes over nodes until one is left; one leaf is its own root, none has 32 zero bytes
    xorb        root over (chunk hash, raw length)
    file        blake3, keyed with zeros, of the root over its chunks; an empty file has 32 zero bytes
    range       blake3, keyed RANGE, of the chunk hashes in a row
    check       blake3 of what we store beside a xorb; our own, no client sees it

The text is not plain hex: bytes 00 01 … 1f print as 07060504030201000f0e…1918. A SHA-256 inside a shard is stored in
this order too. A hash "mod n" means its last group, which is why one byte tells whether it divides by a power of two.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

from blake3 import blake3

from lfs.errors import BadXet

EMPTY = bytes(32)
CHECK = 32
"""Bytes of a check."""

_DATA = bytes.fromhex("6697f5775b9550de3135cbaca597181c9de421109beb2b58b4d0b04b93adf229")
_NODE = bytes.fromhex("017ec5c7a5472996fd946666b48a02e65ddd536f37c76dd2f86352e64a53713f")
_RANGE = bytes.fromhex("7f1857d6ce56ed66127ff913e7a5c3f3a4cd26d5b5db49e64124987f28fb94c3")
_FILE = bytes(32)

_GROUPS = struct.Struct("<4Q")
_TEXT = re.compile("[0-9a-f]{64}")
_LAST_GROUP = slice(24, 32)
# A group ends after a hash that divides by 4, has 3 nodes at least where there are so many, and never more than 9.
_LEAST, MOST = 3, 9


def text(raw: bytes) -> str:
    """Print a hash of 32 bytes as URLs, JSON and shards' SHA-256 want it."""
    a, b, c, d = _GROUPS.unpack(raw)
    return f"{a:016x}{b:016x}{c:016x}{d:016x}"


def parse(text: str) -> bytes:
    """Read a hash from its text. Raises: BadXet."""
    if not _TEXT.fullmatch(text):
        raise BadXet(f"{text[:80]!r} is not the text of a Xet hash; send 64 lowercase hex digits.")
    return _GROUPS.pack(*(int(text[at : at + 16], 16) for at in range(0, 64, 16)))


def keyed(key: bytes, raw: bytes | bytearray | memoryview) -> bytes:
    """Hash bytes under a key of 32 bytes; a chunk hash in a dedup answer goes under the key of its domain."""
    return blake3(raw, key=key).digest()


def chunk(data: bytes | bytearray | memoryview) -> bytes:
    """Name a chunk by its raw bytes."""
    return blake3(data, key=_DATA).digest()


def node(children: Sequence[tuple[bytes, int]]) -> tuple[bytes, int]:
    """Name nodes that lie together, given as (hash, size); return the hash and size of their parent."""
    lines = [f"{text(raw)} : {size}\n" for raw, size in children]
    return blake3("".join(lines).encode(), key=_NODE).digest(), sum([size for _, size in children])


def root(leaves: Iterable[tuple[bytes, int]]) -> bytes:
    """Name leaves, given as (hash, size), by the one node above them all.

    Takes them one by one and keeps nine of each level, so that a file of millions of chunks needs no memory.
    """
    nodes = iter(leaves)
    while True:
        first = next(nodes, None)
        if first is None:
            return EMPTY
        second = next(nodes, None)
        if second is None:
            return first[0]
        nodes = _parents(chain((first, second), nodes))


def _parents(nodes: Iterable[tuple[bytes, int]]) -> Iterator[tuple[bytes, int]]:
    """Group one level. Where a group ends depends on nine nodes at most, so it is known before the level ends."""
    window: list[tuple[bytes, int]] = []
    for each in nodes:
        window.append(each)
        if len(window) == MOST:
            yield node(cut(window))
    while window:
        yield node(cut(window))


def cut(window: list[tuple[bytes, int]]) -> list[tuple[bytes, int]]:
    """Take the first group off a window of nodes: `MOST` of them, or all that are left of their level."""
    end = len(window)
    for at in range(_LEAST - 1, end):
        if not window[at][0][24] & 3:
            end = at + 1
            break
    group = window[:end]
    del window[:end]
    return group


def xorb(leaves: Iterable[tuple[bytes, int]]) -> bytes:
    """Name a xorb by its chunks, given as (chunk hash, raw length)."""
    return root(leaves)


def file(leaves: Iterable[tuple[bytes, int]]) -> bytes:
    """Name a file by its chunks, given as (chunk hash, raw length), in order and one by one."""
    top = root(leaves)
    return top if top == EMPTY else keyed(_FILE, top)


def span(hashes: Iterable[bytes]) -> bytes:
    """Name chunks in a row by their hashes; only who knows the chunks can tell it, so it proves possession."""
    return keyed(_RANGE, b"".join(hashes))


def check(data: bytes) -> bytes:
    """Hash bytes of our own making, so that one which changed in the store is seen."""
    return blake3(data).digest()


def eligible(raw: bytes) -> bool:
    """Say whether clients ask for a chunk of this hash wherever it stands in a file."""
    return int.from_bytes(raw[_LAST_GROUP], "little") % 1024 == 0
