"""How each file of a coming commit should travel: inside git or through LFS; and what stands at its path now.

First rule that fits: empty → git · `.gitattributes` says · larger than 10 MiB → LFS · binary of 256 KiB or more → LFS ·
git. A client skips files whose id it finds unchanged.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from dataclasses import dataclass

from registry.access import Visit
from registry.attributes import Attributes, Ignores, folders_above
from registry.errors import RevisionAbsent
from registry.git.targets import writable_ref
from registry.revisions import Resolved, Revisions

ATTRIBUTES, IGNORE = ".gitattributes", ".gitignore"
LARGE = 10 << 20
LARGE_BINARY = 256 << 10
_MOST_RULES = 1 << 20


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
        Raises: RevisionAbsent.
        """
        at = self._resolve(visit, revision)
        folders = {folder for file in files for folder in folders_above(file.path)}
        attributes = Attributes(self._rules(at, folders, ATTRIBUTES))
        ignores = Ignores(
            {"": ignore.encode("utf-8", "surrogatepass")} if ignore is not None else self._rules(at, folders, IGNORE)
        )
        here = self._here(at, [file.path for file in files])
        found = [
            Sorted(file.path, goes_to_lfs(file, attributes), ignores.ignored(file.path), here.get(file.path))
            for file in files
        ]
        return (at.commit if at is not None else ""), found

    def _resolve(self, visit: Visit, revision: str) -> Resolved | None:
        try:
            return self._revisions.resolve(visit, revision)
        except RevisionAbsent:
            # Nothing has been committed yet, and this would be the first time; else this raises the same.
            writable_ref(self._revisions.snapshot(visit), revision)
            return None

    def _rules(self, at: Resolved | None, folders: set[str], name: str) -> dict[str, bytes]:
        """Read the rule files of folders; one that is oddly large says nothing."""
        if at is None:
            return {}
        paths = {f"{folder}/{name}" if folder else name: folder for folder in folders}
        entries = self._revisions.find(at, list(paths))
        return {
            paths[entry.path.decode("utf-8", "surrogatepass")]: self._revisions.blob(at, entry, _MOST_RULES)
            for entry in entries
            if not entry.folder and entry.git_size <= _MOST_RULES
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


def is_binary(sample: bytes) -> bool:
    """Tell whether the first bytes of a file are no UTF-8 text; a last character may be cut."""
    if b"\0" in sample:
        return True
    try:
        codecs.getincrementaldecoder("utf-8")().decode(sample, final=False)
    except UnicodeDecodeError:
        return True
    return False
