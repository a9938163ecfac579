"""Bytes of packs and their indexes: entries made, thin packs completed, index version 2 written.

    entry   type and size, 7 bits a byte · zlib stream
    index   "\\377tOc" 2 · 256 × u32 counts · sorted ids · u32 CRCs · u32 offsets · u64 large offsets · 2 × SHA-1

Source: gitformat-pack.
"""

from __future__ import annotations

import hashlib
import os
import sys
import zlib
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from registry.git.packfile import TRAILER

BLOCK = 1 << 20
_FAR = 0x80000000


@dataclass(frozen=True, slots=True)
class Sealed:
    """Digests of a whole pack file: SHA-256 in hex, and its SHA-1 trailer."""

    sha256: str
    sha1: bytes
    bytes: int


def entry_header(kind: int, size: int) -> bytes:
    """Encode type and size of a pack entry: four bits of size in the first byte, seven in each further one.

    Raises: ValueError (a negative size, whose bits would never end).
    """
    if size < 0:
        raise ValueError(f"an object cannot have {size} bytes")
    out = bytearray()
    byte, size = (kind << 4) | (size & 15), size >> 4
    while size:
        out.append(byte | 0x80)
        byte, size = size & 0x7F, size >> 7
    out.append(byte)
    return bytes(out)


def digest(path: Path) -> Sealed:
    """Hash a pack file; the caller compares `sha1` with the last 20 bytes."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        return _seal(file, size - TRAILER, file_has_trailer=True)


def append(
    path: Path, objects: Iterable[tuple[bytes, int, bytes]], count: int
) -> tuple[Sealed, list[tuple[bytes, int, int]]]:
    """Complete a thin pack of `count` entries in place with whole objects (raw id, type number, content).

    Durable at return. Gives the new digests and, per object, raw id, offset and CRC-32.
    """
    added = []
    with path.open("r+b") as file:
        at = file.seek(-TRAILER, os.SEEK_END)
        for sha, kind, content in objects:
            entry = entry_header(kind, len(content)) + zlib.compress(content, 1)
            added.append((sha, at, zlib.crc32(entry)))
            at += file.write(entry)
        file.truncate()
        file.seek(8)
        file.write((count + len(added)).to_bytes(4, "big"))
        sealed = _seal(file, at, file_has_trailer=False)
        file.flush()
        os.fsync(file.fileno())
    return sealed, added


def _seal(file: BinaryIO, body: int, *, file_has_trailer: bool) -> Sealed:
    """Hash `body` bytes and the trailer, which is written first where the file has none."""
    file.flush()
    file.seek(0)
    sha1, sha256, left = hashlib.sha1(), hashlib.sha256(), body
    while left > 0 and (block := file.read(min(BLOCK, left))):
        sha1.update(block)
        sha256.update(block)
        left -= len(block)
    if file_has_trailer:
        trailer = file.read(TRAILER)
    else:
        trailer = sha1.digest()
        file.seek(body)
        file.write(trailer)
    sha256.update(trailer)
    return Sealed(sha256.hexdigest(), sha1.digest(), body + TRAILER)


def index(shas: Sequence[bytes], offsets: Sequence[int], crcs: Sequence[int], pack_sha1: bytes) -> bytes:
    """Make a version 2 index of entries given in any order."""
    order = sorted(range(len(shas)), key=shas.__getitem__)
    names = [shas[at] for at in order]
    firsts = [sha[0] for sha in names]
    fan = _big_endian("I", (bisect_right(firsts, first) for first in range(256)))
    far = [offsets[at] for at in order if offsets[at] >= _FAR]
    far_place = {offset: _FAR | place for place, offset in enumerate(far)}
    short = (far_place.get(offsets[at], offsets[at]) for at in order)
    parts = [b"\xfftOc\0\0\0\x02", fan, *names, _big_endian("I", (crcs[at] for at in order))]
    body = b"".join([*parts, _big_endian("I", short), _big_endian("Q", far), pack_sha1])
    return body + hashlib.sha1(body).digest()


def _big_endian(code: str, values: Iterable[int]) -> bytes:
    packed = array(code, values)
    if sys.byteorder == "little":
        packed.byteswap()
    return packed.tobytes()
