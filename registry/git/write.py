"""Operations on a base tree → new trees, and the text of commits and annotated tags.

Only folders along touched paths are read and rewritten; every other entry keeps its mode and id.
Paths are bytes without a leading or trailing slash, already checked by `fsck.check_path`.
Source: git-mktree, git-commit-tree, git-mktag; gitdatamodel "trees".
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from registry.errors import BadPath, Damaged
from registry.git.fsck import TREE_MODE, parse_tree
from registry.git.packfile import COMMIT, KINDS, TAG, TREE

FILE_MODE, EXECUTABLE_MODE = b"100644", b"100755"

Read = Callable[[str], tuple[int, bytes]]
"""Reads type number and content of an object by id (40 hex)."""

# Git drops these from both ends of a name, and never lets the last three stand inside one.
_CRUD = bytes(range(0x21)) + b".,:;<>\"\\'"
_INSIDE = re.compile(rb"[<>\n\0]")


class Leaf(NamedTuple):
    """An entry whose inside is not loaded: a file, a link, a submodule, or a folder left as it is."""

    mode: bytes
    id: str

    @property
    def is_folder(self) -> bool:
        """True for a tree."""
        return self.mode == TREE_MODE


class _Folder:
    """A folder whose entries are loaded. `id` is what it was written as, None once it changed."""

    __slots__ = ("entries", "id")

    def __init__(self, entries: dict[bytes, Leaf | _Folder], id: str | None) -> None:
        self.entries = entries
        self.id = id


class TreeEdit:
    """Edits one tree in memory. Not thread-safe.

    `root` is the tree to begin with (40 hex), None for nothing at all.
    """

    def __init__(self, read: Read, root: str | None) -> None:
        self._read = read
        self._root = self._load(root) if root is not None else _Folder({}, None)
        self.made: dict[str, bytes] = {}
        """Trees that `write` serialised, by id; some of them may exist in the repo already."""

    def put(self, path: bytes, blob: str) -> None:
        """Make `path` a file with this blob; an executable file stays executable.

        Raises: BadPath (a folder stands there, or a file stands where a folder is needed).
        """
        *above, name = path.split(b"/")
        trail = [self._root]
        for part in above:
            trail.append(self._below(trail[-1], part, path))
        entry = trail[-1].entries.get(name)
        if _holds_files(entry):
            raise BadPath(f"{_show(path)!r} is a folder; delete it first, or choose another name.")
        mode = EXECUTABLE_MODE if isinstance(entry, Leaf) and entry.mode == EXECUTABLE_MODE else FILE_MODE
        if entry != Leaf(mode, blob):
            trail[-1].entries[name] = Leaf(mode, blob)
            _touch(trail)

    def delete(self, path: bytes) -> bool:
        """Remove a file, or a folder with all it holds; False if there is neither."""
        *above, name = path.split(b"/")
        trail = [self._root]
        for part in above:
            below = self._folder(trail[-1], part)
            if below is None:
                return False
            trail.append(below)
        entry = trail[-1].entries.get(name)
        if not isinstance(entry, Leaf) and not _holds_files(entry):
            return False
        del trail[-1].entries[name]
        _touch(trail)
        return True

    def find(self, path: bytes) -> Leaf | None:
        """Look up a file or link as the edits so far leave it; None if nothing, or a folder, is there."""
        *above, name = path.split(b"/")
        folder: _Folder | None = self._root
        for part in above:
            folder = self._folder(folder, part) if folder is not None else None
        entry = folder.entries.get(name) if folder is not None else None
        return entry if isinstance(entry, Leaf) and not entry.is_folder else None

    def names(self, path: bytes) -> dict[bytes, Leaf]:
        """List the entries of a folder that are no folders themselves; empty if there is no such folder."""
        folder: _Folder | None = self._root
        for part in path.split(b"/") if path else ():
            folder = self._folder(folder, part) if folder is not None else None
        entries = folder.entries if folder is not None else {}
        return {name: one for name, one in entries.items() if isinstance(one, Leaf) and not one.is_folder}

    def write(self) -> str:
        """Serialise what changed into `made`; return the id of the root. Folders left without files disappear."""
        return self._write(self._root) or self._keep(b"")

    def _write(self, folder: _Folder) -> str | None:
        if folder.id is not None:
            return folder.id
        entries: list[tuple[bytes, bytes, str]] = []
        for name, entry in folder.entries.items():
            mode, id = entry if isinstance(entry, Leaf) else (TREE_MODE, self._write(entry))
            if id is not None:
                entries.append((name, mode, id))
        if not entries:
            return None
        return self._keep(serialise(entries))

    def _keep(self, content: bytes) -> str:
        id = object_id(TREE, content)
        self.made[id] = content
        return id

    def _below(self, folder: _Folder, name: bytes, path: bytes) -> _Folder:
        """Enter a folder, making it if nothing has its name."""
        found = self._folder(folder, name)
        if found is None:
            if name in folder.entries:
                raise BadPath(f"{_show(path)!r} needs {_show(name)!r} as a folder, and it is a file; delete it first.")
            found = folder.entries[name] = _Folder({}, None)
        return found

    def _folder(self, folder: _Folder, name: bytes) -> _Folder | None:
        entry = folder.entries.get(name)
        if isinstance(entry, Leaf):
            if not entry.is_folder:
                return None
            entry = folder.entries[name] = self._load(entry.id)
        return entry

    def _load(self, id: str) -> _Folder:
        kind, content = self._read(id)
        parsed = parse_tree(content) if kind == TREE else None
        if parsed is None:
            raise Damaged(f"object {id} is no tree")
        return _Folder({name: Leaf(mode, raw.hex()) for mode, name, raw in parsed}, id)


def serialise(entries: Sequence[tuple[bytes, bytes, str]]) -> bytes:
    """Write a tree of (name, mode, id) in git's order, in which a folder's name ends with a slash."""
    ordered = sorted(entries, key=lambda entry: entry[0] + b"/" if entry[1] == TREE_MODE else entry[0])
    return b"".join(b"%s %s\0%s" % (mode, name, bytes.fromhex(id)) for name, mode, id in ordered)


def object_id(kind: int, content: bytes) -> str:
    """Name an object: 40 hex."""
    return hashlib.sha1(b"%s %d\0%s" % (KINDS[kind], len(content), content), usedforsecurity=False).hexdigest()


# Commits and tags


@dataclass(frozen=True, slots=True)
class Person:
    """Who wrote a commit or tag."""

    name: str
    email: str

    def line(self, at: datetime) -> bytes:
        """Write `name <email> seconds zone`, without what git does not allow in a name or address."""
        name = _clean(self.name) or b"unknown"
        return b"%s <%s> %d +0000" % (name, _clean(self.email), int(at.timestamp()))


def commit_text(tree: str, parents: Sequence[str], author: Person, at: datetime, message: str) -> bytes:
    """Write a commit whose author is also its committer."""
    who = author.line(at)
    lines = [b"tree " + tree.encode(), *(b"parent " + parent.encode() for parent in parents)]
    return b"\n".join([*lines, b"author " + who, b"committer " + who, b"", _message(message)])


def tag_text(name: str, target: str, author: Person, at: datetime, message: str) -> bytes:
    """Write an annotated tag of a commit."""
    lines = [b"object " + target.encode(), b"type " + KINDS[COMMIT], b"tag " + name.encode()]
    return b"\n".join([*lines, b"tagger " + author.line(at), b"", _message(message)])


def read_parents(commit: bytes) -> tuple[str, list[str]]:
    """Read tree and parents of a stored commit.

    Raises: Damaged.
    """
    lines = commit.partition(b"\n\n")[0].split(b"\n")
    if not lines[0].startswith(b"tree "):
        raise Damaged("a stored commit has no tree")
    parents = [line[7:].decode() for line in lines[1:] if line.startswith(b"parent ")]
    return lines[0][5:].decode(), parents


def peel(read: Read, id: str) -> str:
    """Follow annotated tags to what they finally name."""
    kind, content = read(id)
    while kind == TAG:
        id = content[7:47].decode()
        kind, content = read(id)
    return id


def _message(text: str) -> bytes:
    """End with one line feed; a NUL would cut the message off for most readers."""
    return text.replace("\r\n", "\n").replace("\0", "").rstrip("\n").encode("utf-8", "replace") + b"\n"


def _clean(text: str) -> bytes:
    return _INSIDE.sub(b"", text.encode("utf-8", "replace")).strip(_CRUD)


def _touch(trail: Sequence[_Folder]) -> None:
    for folder in trail:
        folder.id = None


def _holds_files(entry: Leaf | _Folder | None) -> bool:
    """True for a folder with something in it; one that edits have emptied counts as gone."""
    if isinstance(entry, _Folder):
        return any(isinstance(below, Leaf) or _holds_files(below) for below in entry.entries.values())
    return entry is not None and entry.is_folder


def _show(path: bytes) -> str:
    return path.decode(errors="replace")
