"""Paths of a commit: find one, list a folder or all below it in pages, tell files from LFS pointers.

Listings come in the order of git's trees, a folder before what it holds. Paths are `bytes` without a slash at either
end; the root is `b""`. Submodules are left out: their commits live elsewhere, and nobody could download them.
"""

from __future__ import annotations

from binascii import a2b_hex
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from stat import S_ISDIR

from lfs import pointer as pointers
from lfs.pointer import Pointer
from registry.errors import BadBody, EntryAbsent
from registry.git import history
from registry.git.objects import GITLINK, Manifest, TreeEntry

_REGULAR = (0o100644, 0o100755)


@dataclass(frozen=True, slots=True)
class Entry:
    """What lies at a path; sizes are bytes."""

    path: bytes
    mode: int
    sha: str
    """Git id of the blob or tree; of the pointer for an LFS file."""
    git_size: int
    """Size of the blob that git holds; 0 for a folder."""
    pointer: Pointer | None = None

    @property
    def folder(self) -> bool:
        """True for a tree."""
        return S_ISDIR(self.mode)

    @property
    def size(self) -> int:
        """Size of the file itself: for LFS, of what the pointer names."""
        return self.git_size if self.pointer is None else self.pointer.size


@dataclass(frozen=True, slots=True)
class Page:
    """Some entries of a listing; `more` is true if others follow the last."""

    entries: tuple[Entry, ...]
    more: bool


def entry(manifest: Manifest, commit: str, path: bytes) -> Entry:
    """Find what lies at a path of a commit.

    Raises: EntryAbsent, RevisionAbsent (no such commit).
    """
    found = find(manifest, commit, path)
    if found is None:
        raise absent(commit, path)
    return found


def find(manifest: Manifest, commit: str, path: bytes) -> Entry | None:
    """Find what lies at a path of a commit; None if nothing does.

    Raises: RevisionAbsent (no such commit).
    """
    found = _find(manifest.tree, root(manifest, commit), path)
    return None if found is None else _stat(manifest, path, *found)


def find_all(manifest: Manifest, commit: str, paths: Iterable[bytes]) -> list[Entry]:
    """Find what lies at each of these paths, leaving out those where nothing does; each tree is parsed once.

    Raises: RevisionAbsent (no such commit).
    """
    parsed: dict[bytes, tuple[TreeEntry, ...]] = {}

    def read(id: bytes) -> tuple[TreeEntry, ...]:
        if id not in parsed:
            parsed[id] = manifest.tree(id)
        return parsed[id]

    top = root(manifest, commit)
    found = ((path, _find(read, top, path)) for path in paths)
    return [_stat(manifest, path, *place) for path, place in found if place is not None]


def listing(
    manifest: Manifest, commit: str, folder: bytes, *, recursive: bool, limit: int, after: bytes | None = None
) -> Page:
    """List at most `limit` entries below a folder, those that follow the path `after` in the listing.

    Raises: EntryAbsent (no such folder, or a file), BadBody (`after` is not in the folder), RevisionAbsent.
    """
    found = _find(manifest.tree, root(manifest, commit), folder)
    if found is None or not S_ISDIR(found[0]):
        raise absent(commit, folder)
    prefix = folder + b"/" if folder else b""
    entries: list[Entry] = []
    for path, mode, id in _walk(manifest, found[1], prefix, recursive, after):
        if len(entries) == limit:
            return Page(tuple(entries), more=True)
        entries.append(_stat(manifest, path, mode, id))
    return Page(tuple(entries), more=False)


def names(manifest: Manifest, commit: str, *, folders: bool = False) -> Iterator[bytes]:
    """Yield every file path of a commit, with `folders` those of folders too; reads trees only.

    Raises: RevisionAbsent.
    """
    for path, mode, _ in _walk(manifest, root(manifest, commit), b"", True, None):
        if folders or not S_ISDIR(mode):
            yield path


def blob(manifest: Manifest, entry: Entry) -> bytes:
    """Read what git holds of a file: its content, or the text of its pointer."""
    return manifest.read(entry.sha)[1]


def root(manifest: Manifest, commit: str) -> bytes:
    """Name the root tree of a commit by raw id.

    Raises: RevisionAbsent.
    """
    node = manifest.graph.node(a2b_hex(commit))
    if node is not None and not node.row.is_tag:
        return node.row.tree
    return a2b_hex(history.commit(manifest, commit).tree)


def absent(commit: str, path: bytes) -> EntryAbsent:
    """Say that a commit has nothing at a path."""
    return EntryAbsent(f"Entry {path.decode('utf-8', 'replace')!r} does not exist on {commit}.", commit=commit)


def _find(read: Callable[[bytes], Sequence[TreeEntry]], top: bytes, path: bytes) -> tuple[int, bytes] | None:
    mode, id = 0o040000, top
    for name in path.split(b"/") if path else ():
        found = _named(read(id), name) if S_ISDIR(mode) else None
        if found is None or found[1] == GITLINK:
            return None
        _, mode, id = found
    return mode, id


def _named(entries: Sequence[TreeEntry], name: bytes) -> TreeEntry | None:
    """Search a tree, in which folders are sorted as if their names ended with a slash."""
    for key in (name, name + b"/"):
        place = bisect_left(entries, key, key=_order)
        if place < len(entries) and entries[place][0] == name:
            return entries[place]
    return None


def _order(entry: TreeEntry) -> bytes:
    return entry[0] + b"/" if S_ISDIR(entry[1]) else entry[0]


def _walk(
    manifest: Manifest, tree: bytes, prefix: bytes, recursive: bool, after: bytes | None
) -> Iterator[tuple[bytes, int, bytes]]:
    """Yield path, mode and raw id, each folder before its content, beginning behind `after`."""
    pending = [(prefix, iter(manifest.tree(tree)))]
    if after is not None:
        pending = _resume(manifest, tree, prefix, recursive, after)
    while pending:
        here, rest = pending[-1]
        found = next(rest, None)
        if found is None:
            pending.pop()
            continue
        name, mode, id = found
        if mode != GITLINK:
            yield here + name, mode, id
        if recursive and S_ISDIR(mode):
            pending.append((here + name + b"/", iter(manifest.tree(id))))


def _resume(
    manifest: Manifest, tree: bytes, prefix: bytes, recursive: bool, after: bytes
) -> list[tuple[bytes, Iterator[TreeEntry]]]:
    """Rebuild the open folders of a walk that had just yielded `after`."""
    if not after.startswith(prefix):
        raise BadBody("The cursor is not one of this listing; begin again without it.")
    pending: list[tuple[bytes, Iterator[TreeEntry]]] = []
    here: bytes | None = tree
    for name in after[len(prefix) :].split(b"/"):
        rest = iter(manifest.tree(here)) if here is not None else iter(())
        found = next((item for item in rest if item[0] == name), None)
        if found is None:
            raise BadBody("The cursor is not one of this listing; begin again without it.")
        pending.append((prefix, rest))
        prefix, here = prefix + name + b"/", found[2] if recursive and S_ISDIR(found[1]) else None
    if here is not None:
        pending.append((prefix, iter(manifest.tree(here))))
    return pending


def _stat(manifest: Manifest, path: bytes, mode: int, id: bytes) -> Entry:
    if S_ISDIR(mode):
        return Entry(path, mode, id.hex(), 0)
    place = manifest.place(id)
    size = place.file.size_at(place.offset)
    pointer = None
    if size <= pointers.MAX_BYTES and mode in _REGULAR:
        pointer = pointers.parse(manifest.read_at(place.file, place.offset)[1])
    return Entry(path, mode, id.hex(), size, pointer)
