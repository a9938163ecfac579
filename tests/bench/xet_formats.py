"""What proving a xorb costs on one core, beside a plain SHA-256 pass over the same bytes.

    uv run --group test python tests/bench/xet_formats.py [--rounds 7] [--size BYTES]

The frames are those of hf_xet 1.8, one block each, which unpack faster than what python-lz4 writes. Each round proves
every kind of xorb once and hashes its unpacked bytes once, in turns, so that what else the machine does falls on both.
Prints medians of CPU seconds as MB of unpacked bytes in a second, and the ratio ours / SHA-256 taken round by round.
Then the time that naming a file of 1,062 chunks takes, and of a xorb of 8,192.
"""

from __future__ import annotations

import argparse
import array
import hashlib
import random
import statistics
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass

import lz4.block

from lfs.xet import hashes
from lfs.xet.formats import BG4, LZ4, STORED, XorbReader, chunks

CHUNK = 65_536
# Version, independent blocks, no checksums; blocks of 64 KiB; the check of these two.
FRAME = bytes.fromhex("04224d18604082")
PIECE = 1 << 20
WORDS = (
    "the",
    "weights",
    "of",
    "a",
    "model",
    "lie",
    "in",
    "one",
    "room",
    "each",
    "tensor",
    "has",
    "shape",
    "0",
    "1",
    "2",
)


@dataclass(frozen=True, slots=True)
class Kind:
    """One xorb: its bytes, its name and what it unpacks to."""

    label: str
    body: bytes
    name: bytes
    raw: bytes


def floats(chance: random.Random, size: int) -> bytes:
    """Return f32 weights, drawn as a fresh layer's are."""
    return array.array("f", [chance.gauss(0, 0.02) for _ in range(size // 4)]).tobytes()


def bf16(data: bytes) -> bytes:
    """Cut f32 down to bf16, its upper half."""
    result = bytearray(len(data) // 2)
    result[0::2], result[1::2] = data[2::4], data[3::4]
    return bytes(result)


def kinds(size: int) -> list[Kind]:
    """Make the xorbs."""
    chance = random.Random(1)
    text = " ".join(chance.choices(WORDS, k=size // 2)).encode()[:size]
    plans = [
        ("stored, noise", STORED, chance.randbytes(size)),
        ("LZ4, text", LZ4, text),
        ("BG4, f32", BG4, floats(chance, size)),
        ("BG4, bf16", BG4, bf16(floats(chance, 2 * size))),
    ]
    return [made(label, scheme, raw) for label, scheme, raw in plans]


def made(label: str, scheme: int, raw: bytes) -> Kind:
    """Pack bytes into a xorb."""
    parts = [raw[at : at + CHUNK] for at in range(0, len(raw), CHUNK)]
    return Kind(
        label,
        b"".join(packed(part, scheme) for part in parts),
        hashes.xorb((hashes.chunk(part), len(part)) for part in parts),
        raw,
    )


def packed(part: bytes, scheme: int) -> bytes:
    """Pack one chunk as hf_xet does."""
    payload = part
    if scheme != STORED:
        lanes = b"".join(part[lane::4] for lane in range(4)) if scheme == BG4 else part
        block = lz4.block.compress(lanes, store_size=False)
        payload = FRAME + struct.pack("<I", len(block)) + block + bytes(4)
    return struct.pack("<II", len(payload) << 8, scheme | len(part) << 8) + payload


def prove(kind: Kind) -> None:
    """Prove a xorb as the door does, in pieces."""
    reader, view = XorbReader(), memoryview(kind.body)
    for at in range(0, len(view), PIECE):
        reader.feed(view[at : at + PIECE])
    reader.finish(kind.name)


def rebuild(kind: Kind) -> None:
    """Unpack a xorb as a read does, with the hash of each chunk."""
    for data in chunks(kind.body):
        hashes.chunk(data)


def taken(act: Callable[[], object]) -> float:
    """Return the CPU seconds of one act."""
    start = time.process_time()
    act()
    return time.process_time() - start


def compare(kind: Kind, rounds: int) -> str:
    """Measure one kind beside SHA-256."""
    ours, reads, plain = [], [], []
    for _ in range(rounds):
        ours.append(taken(lambda: prove(kind)))
        reads.append(taken(lambda: rebuild(kind)))
        plain.append(taken(lambda: hashlib.sha256(kind.raw).digest()))
    speeds = [len(kind.raw) / statistics.median(each) / 1e6 for each in (ours, reads, plain)]
    ratio = statistics.median(own / other for own, other in zip(plain, ours, strict=True))
    packed = len(kind.body) / len(kind.raw)
    shown = f"proved {speeds[0]:6.0f} MB/s  unpacked {speeds[1]:6.0f} MB/s  SHA-256 {speeds[2]:6.0f} MB/s"
    return f"{kind.label:14} packed to {packed:4.0%}  {shown}  ratio {ratio:.2f}"


def naming(count: int, rounds: int) -> str:
    """Measure the tree over so many chunks beside SHA-256 of their bytes' lines."""
    chance = random.Random(2)
    leaves = [(chance.randbytes(32), CHUNK) for _ in range(count)]
    lines = "".join(f"{hashes.text(raw)} : {size}\n" for raw, size in leaves).encode()
    ours, plain = [], []
    for _ in range(rounds):
        ours.append(taken(lambda: hashes.file(leaves)))
        plain.append(taken(lambda: hashlib.sha256(lines).digest()))
    own, other = statistics.median(ours) * 1e3, statistics.median(plain) * 1e3
    return f"{count:5} chunks   named {own:6.2f} ms  SHA-256 of their lines {other:6.2f} ms"


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description="CPU cost of proving xorbs.")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--size", type=int, default=32 << 20, help="unpacked bytes of each xorb, at most 64 MiB")
    asked = parser.parse_args()
    for kind in kinds(asked.size):
        print(compare(kind, asked.rounds), flush=True)
    for count in (1062, 8192):
        print(naming(count, asked.rounds), flush=True)


if __name__ == "__main__":
    main()
