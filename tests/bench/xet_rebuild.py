"""Reading a Xet file, beside reading a plain file and its sha256, in one process and one run.

    uv run --group test python tests/bench/xet_rebuild.py [--rounds 7] [--size BYTES] [--folder DIR]

Each round reads each file once through `WithFiles`, in turns with a plain file of the same bytes, and hashes what it
reads with sha256, as a proof does; once more without, as a download does. Prints medians of GB/s, by the clock and by
CPU seconds, and the ratio of CPU seconds, ours / plain, taken round by round. The kernel has all files in memory.
`torn` is the stored file in terms of one chunk each, in no order; `zeros` is one chunk of zeros named again and again.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from lfs.local import LocalStore
from lfs.store import PIECE, file_key, lfs_key
from lfs.xet import hashes, plan
from lfs.xet.formats import BG4, LZ4, STORED
from lfs.xet.index import File, Part, packed
from lfs.xet.shelf import WithFiles
from lfs.xet.tables import Tables
from tests.lfs.xet.memory_index import ANN, MemoryIndex
from tests.lfs.xet.xorbs import Made, made

CHUNK, CHUNKS = 64 << 10, 1000


@dataclass(frozen=True, slots=True)
class Shelf:
    """What is read, and what says how to."""

    store: LocalStore
    index: MemoryIndex
    files: WithFiles
    tables: Tables


def xorbs(kind: str, size: int) -> Iterator[Made]:
    """Make xorbs of `size` bytes in all."""
    dice = random.Random(1)
    scheme = {"stored": STORED, "lz4": LZ4, "bg4": BG4}[kind]
    for at in range(0, size, CHUNK * CHUNKS):
        count = min(CHUNKS, -(-(size - at) // CHUNK))
        yield made(*(_chunk(kind, dice) for _ in range(count)), scheme=scheme)


def _chunk(kind: str, dice: random.Random) -> bytes:
    if kind == "stored":
        return dice.randbytes(CHUNK)
    if kind == "lz4":
        words = [b"%d " % dice.randrange(10_000) for _ in range(4000)]
        return b"".join(dice.choices(words, k=CHUNK // 4))[:CHUNK].ljust(CHUNK)
    lanes = bytearray(dice.randbytes(CHUNK))
    lanes[3::4] = dice.choices(b"\x3b\x3c\xbb\xbc", k=CHUNK // 4)
    return bytes(lanes)


def fill(shelf: Shelf, kind: str, size: int) -> File:
    """File one file of xorbs that are all its own."""
    parts, at = [], 0
    for xorb in xorbs(kind, size):
        shelf.index.keep(ANN, xorb.put(shelf.store))
        parts.append(Part(xorb.hash, 0, len(xorb.parts), at))
        at += sum(map(len, xorb.parts))
    return file(shelf, kind, parts, at)


def file(shelf: Shelf, name: str, parts: list[Part], size: int) -> File:
    """File a file under a hash of no meaning."""
    filed = File(hashlib.sha256(name.encode()).digest(), size, packed(parts))
    shelf.index.files[filed.hash] = filed
    return filed


def torn(shelf: Shelf, whole: File) -> File:
    """File the chunks of a file in no order, each a term."""
    single = [(part.xorb, at) for part in whole.parts() for at in range(part.start, part.end)]
    random.Random(2).shuffle(single)
    return file(shelf, "torn", [Part(xorb, at, at + 1, n * CHUNK) for n, (xorb, at) in enumerate(single)], whole.size)


def zeros(shelf: Shelf, size: int) -> File:
    """File zeros."""
    xorb = made(bytes(131_072))
    shelf.index.keep(ANN, xorb.put(shelf.store))
    return file(shelf, "zeros", [Part(xorb.hash, 0, 1, at) for at in range(0, size, 131_072)], size)


Taken = tuple[float, float]


def read(shelf: Shelf, key: str, take: Callable[[bytes], object]) -> Taken:
    """Read what lies under a key; return the seconds that it took, by the clock and of CPU."""
    begin, used = time.perf_counter(), time.process_time()
    with shelf.files.open(key) as reader:
        while piece := reader.read(PIECE):
            take(piece)
    return time.perf_counter() - begin, time.process_time() - used


def compare(shelf: Shelf, rounds: int, size: int) -> None:
    """Read all files, in turns with the plain one."""
    filed = {kind: fill(shelf, kind, size) for kind in ("stored", "lz4", "bg4")}
    filed |= {"torn": torn(shelf, filed["stored"]), "zeros": zeros(shelf, size)}
    plain = lfs_key("ab" * 32)
    body = shelf.files.open(file_key(hashes.text(filed["stored"].hash)))
    shelf.store.put(plain, body, size)
    for name, one in filed.items():
        key = file_key(hashes.text(one.hash))
        for title, take in (("sha256", lambda: hashlib.sha256().update), ("read", lambda: _forget)):
            times = [(read(shelf, key, take()), read(shelf, plain, take())) for _ in range(rounds)]
            _report(f"{name} {title}", size, times)
    _plans(shelf, filed["torn"])


def _forget(piece: bytes) -> None:
    pass


def _plans(shelf: Shelf, one: File) -> None:
    begin = time.perf_counter()
    planned = plan.plan(one, None, shelf.index.located, shelf.tables.load)
    answer = plan.answer_v2(planned, lambda key, span: f"{key}?{span.start}")
    took = time.perf_counter() - begin
    print(f"plan of {len(planned.terms)} terms in no order: {took * 1000:.1f} ms, {len(str(answer))} characters")


def _report(title: str, size: int, times: list[tuple[Taken, Taken]]) -> None:
    middle = statistics.median
    ours, plain = (
        [size / middle(column) / 1e9 for column in zip(*side, strict=True)] for side in zip(*times, strict=True)
    )
    ratio = middle(mine[1] / other[1] for mine, other in times)
    print(
        f"{title:14} ours {ours[0]:.2f} GB/s, {ours[1]:.2f} GB per CPU s; "
        f"plain {plain[0]:.2f} GB/s, {plain[1]:.2f} GB per CPU s; CPU ratio {ratio:.2f}",
        flush=True,
    )


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--size", type=int, default=200 << 20)
    parser.add_argument("--folder", type=Path)
    asked = parser.parse_args()
    size = asked.size // 131_072 * 131_072
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        store, index = LocalStore(Path(folder), fsync=False, min_free=0), MemoryIndex()
        tables = Tables(store)
        print(f"{size} bytes, {os.cpu_count()} cores, {asked.rounds} rounds", flush=True)
        compare(Shelf(store, index, WithFiles(store, index, tables), tables), asked.rounds, size)


if __name__ == "__main__":
    main()
