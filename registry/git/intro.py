"""The introduced sidecar of a pack: what each commit brought, the commit graph, tree sizes and LFS pointers.

Counts are little-endian, ids raw 20 bytes; tables are sorted so that a mapped file is searched in place.

    header 40    "WRINTRO1"  u32 version = 1  u32 commits  u32 parents  u32 trees  u64 entries  u64 pointers
    commits 72   id 20  tree 20  u64 time  u32 generation  u32 parent start  u16 parents  u16 flags
                 u64 entry start  u32 entries                                          sorted by id
    parents 20   id, may lie in other packs                                            in order of commits
    entries 20   id: per commit the commit, then new trees from the root down, then new blobs
    reverse 24   id 20  u32 commit ordinal, one per entry                              sorted
    trees 30     id 20  u64 files under it (at most 2^64 - 1)  u16 levels of trees, itself included   sorted by id
    pointers 60  blob 20  oid 32  u64 size                                             sorted by blob
    trailer 32   SHA-256 of all before

**Commits.** A commit brings an object if the object is at some path of the commit and at that path in none of the
parents; one that a parent has in the same folder under another name is left out. So all commits that a reader lacks
bring, together, all objects that the reader lacks, and one commit may bring what an older one brought too.

**Tags.** Each annotated tag object of the pack is a row with flag `TAG`: `tree` is the id it names, its one parent
is that id if it names a commit or another tag, and its entries are the tag itself, then, if it names a tree or a
blob, everything under that. A walk over parents therefore passes through tags, and the wants rule needs no case for
them. `time` is the tagger's. A ref straight to a tree or blob has no row: such a tip is walked by who reads it.

**Pure.** The rows cover every commit and tag in the pack file, also those that other packs hold too, and follow from
their content alone: the same pack gets the same sidecar in every repo that has its closure.
Generation is 1 + the largest among the parents, 1 for a root. Time is seconds since 1970.
"""

from __future__ import annotations

import hashlib
import mmap
import os
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from struct import Struct
from typing import NamedTuple, Self

from registry.errors import Damaged

MAGIC = b"WRINTRO1"
VERSION = 1
TAG = 1
"""Flag of a row that is an annotated tag."""
MOST_FILES = (1 << 64) - 1
"""Where the count of files under a tree stops."""

_HEADER = Struct("<8sIIIIQQ")
_COMMIT = Struct("<20s20sQIIHHQI")
_TREE = Struct("<20sQH")
_POINTER = Struct("<20s32sQ")
_ID, _REVERSE, _TRAILER = 20, 24, 32
_READ_WHOLE = 64 << 10


class IntroError(Damaged):
    """A sidecar is not what its format says; it can be rebuilt from its pack."""


class CommitRow(NamedTuple):
    """A row of the commit table, as stored, then its place. A named tuple: walks make one per commit."""

    sha: bytes
    tree: bytes
    time: int
    generation: int
    parent_start: int
    parent_count: int
    flags: int
    entry_start: int
    entry_count: int
    ordinal: int

    @property
    def is_tag(self) -> bool:
        """True for an annotated tag."""
        return bool(self.flags & TAG)


class TreeStats(NamedTuple):
    """Shape of a tree: files under it at any depth, and levels of trees (1 = no folder within)."""

    files: int
    depth: int


class PointerRow(NamedTuple):
    """A blob that is an LFS pointer: `oid` is the raw SHA-256 it names, `size` in bytes."""

    blob: bytes
    oid: bytes
    size: int


@dataclass(frozen=True, slots=True)
class NewRow:
    """A commit or tag on its way into a sidecar; `entries` is its ids one after another."""

    sha: bytes
    tree: bytes
    time: int
    generation: int
    parents: tuple[bytes, ...]
    entries: bytes
    flags: int = 0


def ids(entries: bytes) -> list[bytes]:
    """Split ids that stand one after another."""
    return [entries[at : at + _ID] for at in range(0, len(entries), _ID)]


def encode(rows: Iterable[NewRow], trees: Iterable[tuple[bytes, TreeStats]], pointers: Iterable[PointerRow]) -> bytes:
    """Make the bytes of a sidecar; the order of the arguments does not matter."""
    ordered = sorted(rows, key=lambda row: row.sha)
    commits, parents, entries, reverse = bytearray(), bytearray(), bytearray(), []
    for ordinal, row in enumerate(ordered):
        parent_start, entry_start = len(parents) // _ID, len(entries) // _ID
        parents += b"".join(row.parents)
        entries += row.entries
        count = len(row.entries) // _ID
        spans = (parent_start, len(row.parents), row.flags, entry_start, count)
        commits += _COMMIT.pack(row.sha, row.tree, row.time, row.generation, *spans)
        mark = ordinal.to_bytes(4, "little")
        reverse += [one + mark for one in ids(row.entries)]
    reverse.sort()
    tree_part = [_TREE.pack(sha, *stats) for sha, stats in sorted(trees)]
    pointer_part = [_POINTER.pack(*row) for row in sorted(pointers)]
    counts = (len(ordered), len(parents) // _ID, len(tree_part), len(entries) // _ID, len(pointer_part))
    header = _HEADER.pack(MAGIC, VERSION, *counts)
    body = b"".join([header, commits, parents, entries, *reverse, *tree_part, *pointer_part])
    return body + hashlib.sha256(body).digest()


class Intro:
    """A sidecar opened for reading; its methods take and give raw ids and may run on any thread."""

    def __init__(self, data: bytes | mmap.mmap, *, verify: bool = True) -> None:
        """Read a sidecar from bytes; `verify` also checks the trailer (one pass over all bytes).

        Raises: IntroError.
        """
        if len(data) < _HEADER.size + _TRAILER:
            raise IntroError("introduced sidecar is cut short")
        magic, version, commits, parents, trees, entries, pointers = _HEADER.unpack_from(data)
        if magic != MAGIC or version != VERSION:
            raise IntroError("not an introduced sidecar of this version")
        self._data = data
        self._commits: int = commits
        self._parents: int = parents
        self._trees: int = trees
        self._entries: int = entries
        self._pointers: int = pointers
        self._parent_at = _HEADER.size + commits * _COMMIT.size
        self._entry_at = self._parent_at + parents * _ID
        self._reverse_at = self._entry_at + entries * _ID
        self._tree_at = self._reverse_at + entries * _REVERSE
        self._pointer_at = self._tree_at + trees * _TREE.size
        if self._pointer_at + pointers * _POINTER.size + _TRAILER != len(data):
            raise IntroError("introduced sidecar has another length than its header says")
        if verify:
            self._verify()

    @classmethod
    def open(cls, path: Path | str, *, verify: bool = True) -> Self:
        """Map a sidecar file, or read it if it is small: a map costs a file descriptor for as long as it lives.

        `verify=False` is for files whose SHA-256 was just checked.

        Raises: IntroError, OSError.
        """
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size <= _READ_WHOLE:
                return cls(file.read(), verify=verify)
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        try:
            return cls(data, verify=verify)
        except IntroError:
            data.close()
            raise

    def _verify(self) -> None:
        with memoryview(self._data) as view:
            digest = hashlib.sha256(view[:-_TRAILER]).digest()
        if digest != self._data[-_TRAILER:]:
            raise IntroError("introduced sidecar fails its checksum")

    def close(self) -> None:
        """Give the mapping back; nothing may be read afterwards."""
        if isinstance(self._data, mmap.mmap):
            self._data.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        """Count commits and tags."""
        return self._commits

    def __iter__(self) -> Iterator[CommitRow]:
        """Yield all rows in order of ids."""
        return map(self.row, range(self._commits))

    @property
    def entry_count(self) -> int:
        """Entries of all rows together."""
        return self._entries

    def row(self, ordinal: int) -> CommitRow:
        """Read the row at a place of the commit table.

        Raises: IntroError (no such place).
        """
        if not 0 <= ordinal < self._commits:
            raise IntroError("introduced sidecar names a commit it does not hold")
        fields = _COMMIT.unpack_from(self._data, _HEADER.size + ordinal * _COMMIT.size)
        return CommitRow._make((*fields, ordinal))

    def commit(self, sha: bytes) -> CommitRow | None:
        """Find the row of a commit or tag."""
        ordinal = self._search(_HEADER.size, _COMMIT.size, self._commits, sha)
        return None if ordinal is None else self.row(ordinal)

    def parents(self, row: CommitRow) -> tuple[bytes, ...]:
        """Name the parents of a row.

        Raises: IntroError (they lie outside the table).
        """
        if row.parent_start + row.parent_count > self._parents:
            raise IntroError("introduced sidecar: parents outside their table")
        at = self._parent_at + row.parent_start * _ID
        return tuple(self._data[at + i : at + i + _ID] for i in range(0, row.parent_count * _ID, _ID))

    def entries(self, row: CommitRow) -> bytes:
        """Give the ids that a row brought, one after another; split them with `ids`.

        Raises: IntroError (they lie outside the table).
        """
        if row.entry_start + row.entry_count > self._entries:
            raise IntroError("introduced sidecar: entries outside their table")
        at = self._entry_at + row.entry_start * _ID
        return self._data[at : at + row.entry_count * _ID]

    def introducer(self, sha: bytes) -> int | None:
        """Find the place of one commit that brought an object; there may be more."""
        return next(self.introducers(sha), None)

    def introducers(self, sha: bytes) -> Iterator[int]:
        """Yield the places of all commits that brought an object."""
        at = self._search(self._reverse_at, _REVERSE, self._entries, sha)
        while at is not None and at < self._entries:
            start = self._reverse_at + at * _REVERSE
            if self._data[start : start + _ID] != sha:
                return
            yield int.from_bytes(self._data[start + _ID : start + _REVERSE], "little")
            at += 1

    def tree_stats(self, sha: bytes) -> TreeStats | None:
        """Tell the shape of a tree of this pack."""
        at = self._search(self._tree_at, _TREE.size, self._trees, sha)
        if at is None:
            return None
        return TreeStats(*_TREE.unpack_from(self._data, self._tree_at + at * _TREE.size)[1:])

    def trees(self) -> Iterator[tuple[bytes, TreeStats]]:
        """Yield all trees of the pack with their shape."""
        for at in range(self._trees):
            sha, files, depth = _TREE.unpack_from(self._data, self._tree_at + at * _TREE.size)
            yield sha, TreeStats(files, depth)

    def pointer(self, blob: bytes) -> PointerRow | None:
        """Read the pointer that a blob of this pack is."""
        at = self._search(self._pointer_at, _POINTER.size, self._pointers, blob)
        return None if at is None else self._pointer_row(at)

    def pointers(self) -> Iterator[PointerRow]:
        """Yield all pointers of the pack."""
        return map(self._pointer_row, range(self._pointers))

    def _pointer_row(self, at: int) -> PointerRow:
        return PointerRow(*_POINTER.unpack_from(self._data, self._pointer_at + at * _POINTER.size))

    def _search(self, start: int, width: int, count: int, key: bytes) -> int | None:
        """Find the first place of a sorted table whose record starts with `key`."""
        data = self._data

        def at(place: int) -> bytes:
            offset = start + place * width
            return data[offset : offset + _ID]

        place = bisect_left(range(count), key, key=at)
        return place if place < count and at(place) == key else None
