"""How each file of a coming commit should travel: inside git or through LFS; and what stands at its path now.

First rule that fits: empty → git · `.gitattributes` says · larger than 10 MiB → LFS · binary of 256 KiB or more → LFS ·
git. A client skips files whose id it finds unchanged.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from dataclasses import dataclass

from registry.access import Visit
from registry.attributes import Attributes, Ignores
from registry.errors import BadPath, RevisionAbsent, TooLarge
from registry.git.fsck import DEEPEST_PATH, LONGEST_PATH
from registry.git.targets import writable_ref
from registry.globs import TooCostly
from registry.revisions import Resolved, Revisions

ATTRIBUTES, IGNORE = ".gitattributes", ".gitignore"
LARGE = 10 << 20
LARGE_BINARY = 256 << 10
_MOST_RULES = 2 << 20


@dataclass(frozen=True, slots=True)
class Announced:
    """A file that a client is about to commit; `sample` is its first bytes, `size` all of it."""

    path: str
    size: int
    sample: bytes


@dataclass(frozen=True, slots=True)
class Sorted:
    """What to do with one file. `oid` is what the path holds now: a blob's id, or an LFS object's."""

    path: str
    lfs: bool
    ignored: bool
    oid: str | None


class Preupload:
    """Sorts files by the rules of a revision. Thread-safe."""

    def __init__(self, *, revisions: Revisions) -> None:
        self._revisions = revisions

    def sort(
        self, visit: Visit, revision: str, files: Sequence[Announced], ignore: str | None = None
    ) -> tuple[str, list[Sorted]]:
        """Sort files; give the commit that was looked at, too ("" for a repo without commits).

        `ignore` is the text of a `.gitignore` that comes with the commit and counts instead of those in the repo.
        Raises: RevisionAbsent, BadPath (longer than any that could be committed), TooLarge (the rules of the revision).
        """
        for file in files:
            _check_length(file.path)
        at = self._resolve(visit, revision)
        folders = self._folders(at, [file.path for file in files])
        attributes = Attributes(self._rules(at, folders, ATTRIBUTES))
        ignores = Ignores(
            {"": ignore.encode("utf-8", "surrogatepass")} if ignore is not None else self._rules(at, folders, IGNORE)
        )
        here = self._here(at, [file.path for file in files])
        try:
            found = [
                Sorted(file.path, goes_to_lfs(file, attributes), ignores.ignored(file.path), here.get(file.path))
                for file in files
            ]
        except TooCostly as error:
            raise TooLarge(f"{ATTRIBUTES} or {IGNORE} has {error}; ask for fewer files at once.") from error
        return (at.commit if at is not None else ""), found

    def _resolve(self, visit: Visit, revision: str) -> Resolved | None:
        try:
            return self._revisions.resolve(visit, revision)
        except RevisionAbsent:
            # Nothing has been committed yet, and this would be the first time; else this raises the same.
            writable_ref(self._revisions.snapshot(visit), revision)
            return None

    def _folders(self, at: Resolved | None, paths: Sequence[str]) -> set[str]:
        """List the folders above these paths that the revision has; looks no deeper than they go."""
        found, depth = {""}, 1
        waiting = {tuple(path.split("/")[:-1]) for path in paths}
        while at is not None and waiting:
            asked = {"/".join(parts[:depth]) for parts in waiting if len(parts) >= depth}
            entries = self._revisions.find(at, asked)
            here = {entry.path.decode("utf-8", "surrogatepass") for entry in entries if entry.folder}
            waiting = {parts for parts in waiting if "/".join(parts[:depth]) in here and len(parts) > depth}
            found |= here
            depth += 1
        return found

    def _rules(self, at: Resolved | None, folders: set[str], name: str) -> dict[str, bytes]:
        """Read the rule files of folders.

        Raises: TooLarge (all of them together).
        """
        if at is None:
            return {}
        paths = {f"{folder}/{name}" if folder else name: folder for folder in folders}
        entries = [entry for entry in self._revisions.find(at, list(paths)) if not entry.folder]
        if sum(entry.git_size for entry in entries) > _MOST_RULES:
            raise TooLarge(f"The {name} files of this revision hold more than {_MOST_RULES} bytes: shorten them.")
        return {
            paths[entry.path.decode("utf-8", "surrogatepass")]: self._revisions.blob(at, entry, _MOST_RULES)
            for entry in entries
        }

    def _here(self, at: Resolved | None, paths: list[str]) -> dict[str, str]:
        if at is None:
            return {}
        return {
            entry.path.decode("utf-8", "surrogatepass"): entry.pointer.oid if entry.pointer is not None else entry.sha
            for entry in self._revisions.find(at, paths)
            if not entry.folder
        }


def goes_to_lfs(file: Announced, attributes: Attributes) -> bool:
    """Decide by the first rule that fits."""
    if file.size == 0:
        return False
    told = attributes.is_lfs(file.path)
    if told is not None:
        return told
    return file.size > LARGE or (file.size >= LARGE_BINARY and is_binary(file.sample))


def _check_length(path: str) -> None:
    if len(path) > LONGEST_PATH or path.count("/") >= DEEPEST_PATH:
        raise BadPath(f"A path has at most {LONGEST_PATH} bytes and {DEEPEST_PATH} levels.")


def is_binary(sample: bytes) -> bool:
    """Tell whether the first bytes of a file are no UTF-8 text; a last character may be cut."""
    if b"\0" in sample:
        return True
    try:
        codecs.getincrementaldecoder("utf-8")().decode(sample, final=False)
    except UnicodeDecodeError:
        return True
    return False
