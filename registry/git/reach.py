"""Everything that tips reach, looked at object by object: what is missing, what is damaged, which blobs are pointers.

Ids are raw 20 bytes. Slow and thorough, for upkeep; requests use the introduced sidecars instead.
"""

from __future__ import annotations

from binascii import a2b_hex, hexlify
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from stat import S_ISDIR

from lfs import pointer
from lfs.pointer import Pointer
from registry.errors import Damaged, RevisionAbsent
from registry.git.objects import GITLINK, Manifest
from registry.git.packfile import BLOB, COMMIT, TAG, TREE


@dataclass(frozen=True, slots=True)
class Flaw:
    """An object (40 hex) that is missing or damaged, and the one that names it, empty for a tip."""

    sha: str
    named_by: str
    text: str


@dataclass(frozen=True, slots=True)
class Pointing:
    """A reachable blob (40 hex) that is an LFS pointer."""

    blob: str
    pointer: Pointer


def walk(manifest: Manifest, tips: Iterable[str]) -> Iterator[Flaw | Pointing]:
    """Visit every object that tips (40 hex) reach, once."""
    waiting: list[tuple[bytes, int | None, bytes]] = [(a2b_hex(tip), None, b"") for tip in tips]
    seen: set[bytes] = set()
    while waiting:
        id, kind, named_by = waiting.pop()
        if id in seen:
            continue
        seen.add(id)
        try:
            found = _visit(manifest, id, kind)
        except (RevisionAbsent, Damaged) as error:
            yield Flaw(id.hex(), named_by.hex(), error.message)
            continue
        if isinstance(found, Pointing):
            yield found
        elif found:
            waiting += [(child, kind, id) for child, kind in found if child not in seen]


def _visit(manifest: Manifest, id: bytes, kind: int | None) -> list[tuple[bytes, int | None]] | Pointing | None:
    """Read an object and name what it names; a blob is read only if it may be a pointer."""
    place = manifest.place(id)
    real = place.file.kind_at(place.offset)
    if kind is not None and real != kind:
        raise Damaged(f"has type {real} where type {kind} belongs")
    if real == BLOB:
        if place.file.size_at(place.offset) > pointer.MAX_BYTES:
            return None
        found = pointer.parse(manifest.read_id(id)[1])
        return None if found is None else Pointing(id.hex(), found)
    if real == TREE:
        return [(sha, TREE if S_ISDIR(mode) else BLOB) for _, mode, sha in manifest.tree(id) if mode != GITLINK]
    return _named(manifest.read_id(id)[1], real)


def _named(text: bytes, kind: int) -> list[tuple[bytes, int | None]]:
    """Read the head of a commit or a tag."""
    named: list[tuple[bytes, int | None]] = []
    for line in text.split(b"\n\n", 1)[0].split(b"\n"):
        word, _, rest = line.partition(b" ")
        if kind == COMMIT and word in (b"tree", b"parent"):
            named.append((_id(rest), TREE if word == b"tree" else COMMIT))
        elif kind == TAG and word == b"object":
            named.append((_id(rest), None))
    if not named:
        raise Damaged("has no head that names anything")
    return named


def _id(hex: bytes) -> bytes:
    try:
        found = a2b_hex(hex)
    except ValueError as error:
        raise Damaged(f"names {hexlify(hex)[:40].decode()}, which is no id") from error
    if len(found) != 20:
        raise Damaged("names an id of the wrong length")
    return found
