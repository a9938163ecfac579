"""Pushes for tests of the write side: packs made by git, packs made by hand, and what is checked about them."""

from __future__ import annotations

import hashlib
import itertools
import struct
import zlib
from dataclasses import dataclass, field
from pathlib import Path

from registry.git import ingest
from registry.git.packfile import BLOB, COMMIT, KINDS, OFS_DELTA, REF_DELTA, TREE
from registry.git.packing import entry_header
from registry.git.snapshot import ZERO
from registry.git.verdict import Job, PackPaths, Update, Verdict
from tests.registry.git.packed import git

WHO = b"Ada <ada@example.org> 1700000000 +0000"
MAIN = b"refs/heads/main"
Refs = tuple[bytes, str, str]


@dataclass
class Bench:
    """A manifest that grows by accepted pushes."""

    folder: Path
    bases: tuple[PackPaths, ...] = ()
    numbers: itertools.count[int] = field(default_factory=itertools.count)

    def check(self, pack: bytes | None, *updates: Refs, light: bool = False, **more: object) -> Verdict:
        """Check one push without taking it."""
        path = self.folder / f"{next(self.numbers)}.pack"
        if pack is not None:
            path.write_bytes(pack)
        job = Job(str(path) if pack is not None else None, self.bases, tuple(Update(*one) for one in updates), **more)
        verdict = ingest.check_light(job) if light else ingest.check(job)
        assert verdict is not None
        return verdict

    def push(self, pack: bytes | None, *updates: Refs, **more: object) -> Verdict:
        """Check one push and, as it must be good, take it."""
        verdict = self.check(pack, *updates, **more)
        assert (verdict.unpack_error, verdict.refusals) == (None, {})
        if verdict.pack:
            self.bases += (PackPaths(verdict.pack.path, verdict.pack.idx.path, verdict.pack.intro.path),)
        return verdict

    def push_git(
        self, source: Path, *wants: str, haves: tuple[str, ...] = (), name: bytes = MAIN, **more: object
    ) -> Verdict:
        """Push what git would send for `wants` over `haves`, thin."""
        old = haves[0] if haves else ZERO
        return self.push(pack_of(source, wants, haves), (name, old, wants[0]))


def pack_of(source: Path, wants: tuple[str, ...], haves: tuple[str, ...] = (), *options: str) -> bytes:
    """Make the pack that git sends in a push."""
    revs = "".join(f"{one}\n" for one in [*wants, *(f"^{one}" for one in haves)]).encode()
    thin = options or ("--thin", "--delta-base-offset")
    return git(source, "pack-objects", "--revs", "--stdout", "-q", *thin, input=revs)


def rev(source: Path, name: str) -> str:
    """Resolve a revision."""
    return git(source, "rev-parse", name).strip().decode()


def commit(tree: bytes, *parents: bytes, text: bytes = b"m") -> bytes:
    """Write a commit; ids raw."""
    lines = [b"tree " + tree.hex().encode(), *(b"parent " + one.hex().encode() for one in parents)]
    return b"\n".join([*lines, b"author " + WHO, b"committer " + WHO, b"", text])


def tree(*entries: tuple[bytes, bytes, bytes]) -> bytes:
    """Write a tree of (mode, name, raw id) in the order given."""
    return b"".join(mode + b" " + name + b"\0" + sha for mode, name, sha in entries)


def sha(kind: int, content: bytes) -> bytes:
    """Hash an object to its raw id."""
    return hashlib.sha1(b"%b %d\0" % (KINDS[kind], len(content)) + content).digest()


def whole(kind: int, content: bytes, *, size: int | None = None, level: int = 6) -> bytes:
    """Write a pack entry; `size` may lie."""
    return entry_header(kind, len(content) if size is None else size) + zlib.compress(content, level)


def by_id(base: bytes, delta: bytes) -> bytes:
    """Write a delta upon an id."""
    return entry_header(REF_DELTA, len(delta)) + base + zlib.compress(delta)


def by_offset(back: int, delta: bytes) -> bytes:
    """Write a delta upon the entry `back` bytes before."""
    distance = [back & 0x7F]
    while back := back >> 7:
        back -= 1
        distance.insert(0, 0x80 | (back & 0x7F))
    return entry_header(OFS_DELTA, len(delta)) + bytes(distance) + zlib.compress(delta)


def varint(value: int) -> bytes:
    """Write a size as deltas do."""
    out = bytearray()
    while value > 0x7F:
        out.append(0x80 | (value & 0x7F))
        value >>= 7
    return bytes([*out, value])


def delta(base: int, pieces: list[bytes | tuple[int, int]], *, target: int | None = None) -> bytes:
    """Write a delta upon `base` bytes: bytes to insert and (offset, size) to copy; `target` may lie."""
    ops, made = bytearray(), 0
    for piece in pieces:
        if isinstance(piece, bytes):
            ops += bytes([len(piece)]) + piece
            made += len(piece)
        else:
            offset, size = piece
            ops += b"\xff" + struct.pack("<I", offset) + size.to_bytes(3, "little")
            made += size
    return varint(base) + varint(made if target is None else target) + bytes(ops)


def pack(*entries: bytes, count: int | None = None) -> bytes:
    """Put entries behind a header and seal them; `count` may lie."""
    number = len(entries) if count is None else count
    body = b"PACK" + struct.pack(">II", 2, number) + b"".join(entries)
    return body + hashlib.sha1(body).digest()


def one_commit(*files: tuple[bytes, bytes, bytes], also: tuple[bytes, ...] = ()) -> tuple[bytes, str]:
    """Make a pack of one commit with one tree of (mode, name, blob content); give it and the commit's id."""
    made = {content: whole(BLOB, content) for _, _, content in files}
    root = tree(*((mode, name, sha(BLOB, content)) for mode, name, content in files))
    top = commit(sha(TREE, root))
    entries = [*made.values(), whole(TREE, root), whole(COMMIT, top), *also]
    return pack(*entries), sha(COMMIT, top).hex()
