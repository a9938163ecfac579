"""Which objects each new commit brings: the rows of the introduced sidecar, and where files appear first.

A commit is compared with its parents folder by folder, through sets of parsed entries; only folders that differ are
entered, each at most once per commit, so a tree of 2^n paths costs n.
"""

from __future__ import annotations

from collections.abc import Iterator
from operator import itemgetter

from registry.errors import Damaged
from registry.git.connect import Known
from registry.git.contents import Contents
from registry.git.forest import Forest, is_file
from registry.git.fsck import LONGEST_PATH, TREE_MODE
from registry.git.intro import TAG, CommitRow, NewRow
from registry.git.verdict import Limits, PackTooLarge

Visit = tuple[bytes, tuple[bytes, ...], bytes]
"""A tree, the trees at its place in the parents, and the path before its names."""
Gone = dict[bytes, tuple[bytes, bytes]]


class Introduce:
    """Builds the rows of all commits and tags of a pack, parents first."""

    def __init__(self, contents: Contents, forest: Forest, known: Known, limits: Limits) -> None:
        self._contents, self._forest = contents, forest
        self._own, self._bases = known.own, known.bases
        self._left = limits.introduced + 8 * len(known.own)
        self._watched = {*contents.pointers, *contents.big}
        self._generations: dict[bytes, int] = {}
        self.rows: dict[bytes, NewRow] = {}
        self.first: dict[bytes, tuple[bytes, bytes]] = {}
        """Path and commit where a blob appears first: pointers and large files of the pack, and known pointers."""
        self.long_paths: list[bytes] = []

    def run(self) -> None:
        """Build all rows.

        Raises: PackTooLarge, Damaged.
        """
        ready = [(self.generation(sha), sha) for sha in (*self._contents.commits, *self._contents.tags)]
        for _, sha in sorted(ready):
            row = self._commit(sha) if sha in self._contents.commits else self._tag(sha)
            self.rows[sha] = row
            self._left -= len(row.entries) // 20
            if self._left < 0:
                raise PackTooLarge("the new commits replace whole trees too often; push them in parts")

    def generation(self, sha: bytes) -> int:
        """Number a commit or tag: 1 + the largest among its parents; 0 for other objects."""
        waiting = [sha]
        while waiting:
            one = waiting[-1]
            if one in self._generations:
                waiting.pop()
                continue
            parents = self._parents(one)
            missing = [parent for parent in parents if parent not in self._generations]
            waiting += missing
            if not missing:
                self._generations[one] = self._number(one, parents)
        return self._generations[sha]

    def _parents(self, sha: bytes) -> tuple[bytes, ...]:
        """Name what a walk from a new commit or tag goes on to; nothing for what the manifest numbers."""
        commit, tag = self._contents.commits.get(sha), self._contents.tags.get(sha)
        if commit:
            return commit.parents
        return (tag.target,) if tag and tag.type in (b"commit", b"tag") else ()

    def _number(self, sha: bytes, parents: tuple[bytes, ...]) -> int:
        if sha in self._contents.commits or sha in self._contents.tags:
            return 1 + max((self._generations[parent] for parent in parents), default=0)
        found = self._bases.row(sha)
        return found[0].generation if found else 0

    def _tag(self, sha: bytes) -> NewRow:
        tag = self._contents.tags[sha]
        parents = self._parents(sha)
        brought: list[bytes] = [sha]
        if tag.type == b"tree":
            brought += self._brought(sha, tag.target, ())
        elif tag.type == b"blob":
            brought.append(tag.target)
            self._appears(tag.target, b"", sha)
        return NewRow(sha, tag.target, tag.time, self._generations[sha], parents, b"".join(brought), TAG)

    def _commit(self, sha: bytes) -> NewRow:
        facts = self._contents.commits[sha]
        roots = tuple(self._root(parent) for parent in facts.parents)
        brought = [sha] if facts.tree in roots else [sha, *self._brought(sha, facts.tree, roots)]
        return NewRow(sha, facts.tree, facts.time, self._generations[sha], facts.parents, b"".join(brought))

    def _root(self, commit: bytes) -> bytes:
        facts = self._contents.commits.get(commit)
        if facts:
            return facts.tree
        return self.known_row(commit)[0].tree

    def known_row(self, sha: bytes) -> tuple[CommitRow, tuple[bytes, ...]]:
        """Read the row of a commit or tag of the manifest, and its parents.

        Raises: Damaged (no sidecar has it).
        """
        found = self._bases.row(sha)
        if found is None:
            raise Damaged(f"no introduced sidecar knows {sha.hex()}; run `weightroom fsck --repair`")
        return found

    def _brought(self, commit: bytes, root: bytes, roots: tuple[bytes, ...]) -> Iterator[bytes]:
        """Walk what differs from every parent; yield trees from the root down, then blobs."""
        blobs: dict[bytes, None] = {}
        seen: set[bytes] = set()
        waiting: list[Visit] = [(root, roots, b"")]
        while waiting:
            tree, olds, prefix = waiting.pop()
            if tree in seen:
                continue
            seen.add(tree)
            yield tree
            below: list[Visit] = []
            fresh, gone = self._changes(tree, olds)
            for mode, name, sha in fresh:
                if len(prefix) + len(name) > LONGEST_PATH and len(self.long_paths) < 10:
                    self.long_paths.append(prefix + name)
                if mode == TREE_MODE:
                    was = tuple(one[name][1] for one in gone if one.get(name, (b"",))[0] == TREE_MODE)
                    below.append((sha, was, prefix + name + b"/"))
                elif is_file(mode):
                    blobs[sha] = None
                    self._appears(sha, prefix + name, commit)
            waiting += reversed(below)
        yield from blobs

    def _changes(self, tree: bytes, olds: tuple[bytes, ...]) -> tuple[list[tuple[bytes, bytes, bytes]], list[Gone]]:
        """Give the entries that no parent has in this folder, in order of names, and per parent what they replace."""
        fresh = mine = self._forest.entries(tree)
        gone: list[Gone] = []
        for old in olds:
            theirs = self._forest.entries(old)
            fresh = fresh - theirs
            gone.append({name: (mode, sha) for mode, name, sha in theirs - mine})
        # What only changed its name or mode is in that parent, so whoever has the parent has it.
        held = {sha for one in gone for _, sha in one.values()}
        return sorted((one for one in fresh if one[2] not in held), key=itemgetter(1)), gone

    def _appears(self, blob: bytes, path: bytes, commit: bytes) -> None:
        if blob not in self.first and (blob in self._watched or self._is_known_pointer(blob)):
            self.first[blob] = path, commit

    def _is_known_pointer(self, blob: bytes) -> bool:
        return blob not in self._own and self._bases.pointer(blob) is not None
