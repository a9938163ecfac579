"""What a push does to refs, read from commit tables: new values, ancestry, locked paths, pointers, large files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from heapq import heappop, heappush

from registry.git.connect import Known
from registry.git.contents import Contents
from registry.git.filenames import Finding, Severity, show
from registry.git.forest import Forest
from registry.git.fsck import LONGEST_PATH, TREE_MODE, Entry
from registry.git.introduce import Introduce
from registry.git.packfile import COMMIT, KINDS, TAG, TREE
from registry.git.snapshot import ZERO, visible
from registry.git.verdict import BigBlob, Job, PackFacts, PointerFound, Tip, Verdict

Node = dict[bytes | None, "Node | str"]
"""Folders of locked paths; under None the whole path, if one ends here."""
Old = tuple[bytes, bytes] | None
MIB = 1 << 20


class Tips:
    """Answers about one push after its pack is known to be whole and connected."""

    def __init__(self, job: Job, contents: Contents, forest: Forest, known: Known, introduced: Introduce) -> None:
        self._job, self._contents, self._forest = job, contents, forest
        self._known, self._introduced = known, introduced
        self._new = [sha for sha in introduced.rows if known.bases.row(sha) is None]

    def verdict(self, pack: PackFacts | None, gained: Iterable[bytes], warnings: tuple[str, ...]) -> Verdict:
        """Put everything together."""
        tips: dict[str, Tip] = {}
        refusals: dict[bytes | None, str] = {}
        for update in self._job.updates:
            if update.new == ZERO:
                continue
            tip = tips.get(update.new) or self._tip(bytes.fromhex(update.new))
            if tip is None:
                refusals[update.name] = "missing necessary objects"
                continue
            tips[update.new] = tip
            reason = self._refused(update.name, tip)
            if reason:
                refusals[update.name] = reason
        return Verdict(
            pack=pack,
            tips=tips,
            refusals=refusals,
            pointers=tuple(self._pointers()),
            big_blobs=tuple(self._big_blobs()),
            warnings=warnings,
            fast_forward={one.name: self._forwards(one.old, one.new) for one in self._job.updates},
            touched=self._touched(),
            brings_exactly=self._brings_exactly(set(gained), refusals),
        )

    # Shapes that are refused

    def long_path(self, path: bytes) -> tuple[str, list[Finding]]:
        """Word the finding of a path that is too long."""
        text = f"a path of {len(path)} bytes; at most {LONGEST_PATH} fit: {show(path)}"
        return "path", [Finding("longPath", Severity.PORTABLE, text)]

    def deep_trees(self) -> list[Finding]:
        """Find a tree with more levels than are taken."""
        most = self._job.limits.levels
        for sha, stats in self._forest.all_stats():
            if stats.depth > most:
                text = f"tree {sha.hex()} has more than {most} levels of folders"
                return [Finding("treeTooDeep", Severity.REFUSE, text)]
        return []

    def too_big(self) -> str | None:
        """Word the refusal of a file that belongs in LFS."""
        most = self._job.limits.blob
        for one in self._big_blobs():
            if one.size > most:
                name = one.path or one.blob
                return (
                    f"{name} is {one.size / MIB:.1f} MiB; files above {most / MIB:g} MiB belong in Git LFS "
                    f"(WEIGHTROOM_MAX_BLOB): git lfs migrate import --include={name!r}"
                )
        return None

    def _refused(self, name: bytes, tip: Tip) -> str | None:
        if name.startswith(b"refs/heads/") and tip.type != "commit":
            return f"a branch must point to a commit, not to a {tip.type}"
        if tip.files > self._job.limits.files:
            return f"{tip.files} files; at most {self._job.limits.files} are taken"
        return None

    # New values

    def _tip(self, sha: bytes) -> Tip | None:
        kind = self._known.kind(sha)
        if kind is None:
            return None
        peeled, peeled_kind = sha, kind
        while peeled_kind == TAG:
            peeled = self._tagged(peeled)
            peeled_kind = self._known.kind(peeled) or 0
        tree = self._root(peeled) if peeled_kind == COMMIT else peeled if peeled_kind == TREE else None
        files, depth = self._forest.stats(tree) if tree else (0, 0)
        return Tip(KINDS[kind].decode(), peeled.hex() if kind == TAG else None, files, depth)

    def _tagged(self, tag: bytes) -> bytes:
        own = self._contents.tags.get(tag)
        return own.target if own else self._root(tag)

    def _root(self, sha: bytes) -> bytes:
        """Name the tree of a commit, or what a tag of the manifest names."""
        own = self._contents.commits.get(sha)
        return own.tree if own else self._introduced.known_row(sha)[0].tree

    # Ancestry

    def _parents(self, sha: bytes) -> tuple[bytes, ...]:
        row = self._introduced.rows.get(sha)
        return row.parents if row else self._introduced.known_row(sha)[1]

    def _forwards(self, old: str, new: str) -> bool:
        """True if nothing of the old value is lost."""
        if new == ZERO:
            return False
        start, goal = bytes.fromhex(new), bytes.fromhex(old)
        if old in (ZERO, new):
            return True
        if self._known.kind(goal) != COMMIT or self._known.kind(start) != COMMIT:
            return False
        least = self._introduced.generation(goal)
        waiting, seen = [(-self._introduced.generation(start), start)], {start}
        while waiting:
            for parent in self._parents(heappop(waiting)[1]):
                if parent == goal:
                    return True
                number = self._introduced.generation(parent)
                if parent not in seen and number > least:
                    seen.add(parent)
                    heappush(waiting, (-number, parent))
        return False

    def _brings_exactly(self, gained: set[bytes], refusals: Mapping[bytes | None, str]) -> bool:
        """True if every object gained is reached from a new value that readers will see."""
        rows = self._introduced.rows
        shown = [one for one in self._job.updates if visible(one.name) and one.name not in refusals]
        waiting, seen = [bytes.fromhex(one.new) for one in shown], set[bytes]()
        while waiting and gained:
            row = rows.get(waiting.pop())
            if row is None or row.sha in seen:
                continue
            seen.add(row.sha)
            gained.difference_update(row.entries[at : at + 20] for at in range(0, len(row.entries), 20))
            waiting += row.parents
        return not gained

    # Files

    def _pointers(self) -> Iterator[PointerFound]:
        """Yield pointers that are new here, or that a new commit brings back."""
        first, bases = self._introduced.first, self._known.bases
        own = self._contents.pointers
        for blob, row in sorted(own.items()):
            if blob in first or bases.find(blob) is None:
                yield PointerFound(blob.hex(), row.oid.hex(), row.size, *self._place(blob))
        for blob in sorted(first.keys() - own.keys()):
            found = bases.pointer(blob)
            if found:
                yield PointerFound(blob.hex(), found.oid.hex(), found.size, *self._place(blob))

    def _big_blobs(self) -> Iterator[BigBlob]:
        for blob, size in sorted(self._contents.big.items()):
            if self._known.bases.find(blob) is None:
                yield BigBlob(blob.hex(), size, *self._place(blob))

    def _place(self, blob: bytes) -> tuple[str, str]:
        path, commit = self._introduced.first.get(blob, (b"", b""))
        return path.decode("utf-8", "backslashreplace"), commit.hex()

    # Locks

    def _touched(self) -> dict[str, str]:
        """Find for each locked path the first new commit that differs there from all its parents."""
        found: dict[str, str] = {}
        locked = _folders(self._job.lock_paths)
        for sha in self._new if locked else ():
            facts = self._contents.commits.get(sha)
            if facts:
                olds = [self._root(parent) for parent in facts.parents]
                for path in self._differing(facts.tree, olds, locked):
                    found.setdefault(path, sha.hex())
        return found

    def _differing(self, tree: bytes | None, olds: Sequence[bytes | None], node: Node) -> Iterator[str]:
        """Yield locked paths below a folder whose entries differ from those in every parent."""
        names = self._changed(tree, olds, node)
        if not names:
            return
        mine = self._pick(tree, names)
        theirs = [self._pick(old, names) for old in olds]
        for name in names:
            below = node[name]
            entry, was = mine.get(name), [one.get(name) for one in theirs]
            if isinstance(below, str) or entry in was:
                continue
            path = below.get(None)
            if isinstance(path, str):
                yield path
            yield from self._differing(_folder(entry), [_folder(one) for one in was], below)

    def _changed(self, tree: bytes | None, olds: Sequence[bytes | None], node: Node) -> list[bytes]:
        """Name what differs from each parent, by whole sets: most commits touch nothing that is locked."""
        if tree in olds:
            return []
        mine = self._entries(tree)
        changed = [mine ^ self._entries(old) for old in olds] or [mine]
        names = set.intersection(*({name for _, name, _ in one} for one in changed))
        return sorted(name for name in names if name in node)

    def _entries(self, tree: bytes | None) -> frozenset[Entry]:
        return frozenset() if tree is None else self._forest.entries(tree)

    def _pick(self, tree: bytes | None, names: Sequence[bytes]) -> dict[bytes, tuple[bytes, bytes]]:
        return {name: (mode, sha) for mode, name, sha in self._entries(tree) if name in names}


def _folders(paths: Iterable[str]) -> Node:
    root: Node = {}
    for path in paths:
        node = root
        for part in path.encode("utf-8", "surrogateescape").split(b"/"):
            below = node.setdefault(part, {})
            assert not isinstance(below, str)
            node = below
        node[None] = path
    return root


def _folder(entry: Old) -> bytes | None:
    return entry[1] if entry and entry[0] == TREE_MODE else None
