"""Reads what a commit says of itself: its card and config from git, its tensors from the heads of its weights.

Facts of a commit and tensor counts of an object never change, so both are remembered. What the store does not give now
counts as not said, and is then not remembered.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

from lfs.errors import LfsError
from lfs.memory import Memory
from lfs.store import ObjectStore, Span
from lfs.tensors import Header, HeaderError, read_header
from registry import cards, weights
from registry.cards import Facts
from registry.errors import EntryAbsent
from registry.git import tree
from registry.git.tree import Entry
from registry.links import Held
from registry.names import RepoType
from registry.revisions import Resolved, Revisions

_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_MOST_SHARDS = 256
_TOGETHER = 8
_MOST_PATHS = 100_000
_MOST_INDEX = 16 << 20
_MOST_INLINE = 16 << 20


class FactReader:
    """Reads facts of commits. Thread-safe."""

    def __init__(
        self,
        *,
        revisions: Revisions,
        held: Callable[[int, str], Held | None],
        store: ObjectStore,
        memory: int = 16 << 20,
    ) -> None:
        """Find LFS objects of a repo with `held(repo_id, oid)`."""
        self._revisions = revisions
        self._held = held
        self._store = store
        self._facts: Memory[tuple[int, str], Facts] = Memory(memory, _cost)
        self._tensors: Memory[str, Mapping[str, int]] = Memory(memory // 4, lambda counts: 200 + 100 * len(counts))

    def read(self, kind: RepoType, at: Resolved) -> Facts:
        """Gather the facts of a commit."""
        found = self._facts.peek((at.repo_id, at.commit))
        if found is not None:
            return found
        try:
            tensors = self._counted(at) if kind == "model" else {}
        except LfsError:
            return self._described(kind, at, {})
        return self._facts.get((at.repo_id, at.commit), lambda: self._described(kind, at, tensors))

    def _described(self, kind: RepoType, at: Resolved, tensors: Mapping[str, int]) -> Facts:
        names = tree.names(self._revisions.manifest(at), at.commit)
        paths = {path.decode("utf-8", "replace") for path, _ in zip(names, range(_MOST_PATHS), strict=False)}
        return cards.describe(kind, paths, lambda path, limit: self._small(at, path, limit), tensors)

    def _small(self, at: Resolved, path: str, limit: int) -> bytes | None:
        try:
            entry = self._revisions.entry(at, path)
        except EntryAbsent:
            return None
        if entry.folder or entry.pointer is not None or entry.size > limit:
            return None
        return self._revisions.blob(at, entry, limit)

    def _counted(self, at: Resolved) -> Mapping[str, int]:
        """Count tensors by dtype; nothing if any file of the model cannot be read as what it claims to be."""
        counts: dict[str, int] = {}
        try:
            files = self._weights(at)
            # Heads of a bucket's objects cost a round trip each: a hundred shards are not read one after another.
            with ThreadPoolExecutor(_TOGETHER) as pool:
                found = list(pool.map(lambda entry: self._tensors_of(at, entry), files))
        except HeaderError:
            return {}
        for dtype, count in (pair for each in found for pair in each.items()):
            counts[dtype] = counts.get(dtype, 0) + count
        return dict(sorted(counts.items(), key=lambda pair: -pair[1]))

    def _weights(self, at: Resolved) -> list[Entry]:
        """Find the files that together are the model.

        Raises: HeaderError (an index that is none, or names files that are not there).
        """
        single = self._revisions.find(at, [_SINGLE])
        if single:
            return single
        index = self._small(at, _INDEX, _MOST_INDEX)
        if index is None:
            return []
        names = weights.shards(index)
        found = self._revisions.find(at, names[: _MOST_SHARDS + 1])
        if len(found) != len(names):
            raise HeaderError("the index names files that are not there, or too many")
        return found

    def _tensors_of(self, at: Resolved, entry: Entry) -> Mapping[str, int]:
        return self._tensors.get(entry.sha, lambda: weights.totals([self._header(at, entry)]))

    def _header(self, at: Resolved, entry: Entry) -> Header:
        if entry.pointer is None:
            if entry.git_size > _MOST_INLINE:
                raise HeaderError("it is too large for a file outside LFS")
            content = self._revisions.blob(at, entry, entry.git_size)
            return read_header(lambda start, end: content[start:end], len(content))
        held = self._held(at.repo_id, entry.pointer.oid)
        if held is None:
            raise HeaderError("its bytes are not here")
        key = held.key

        def read(start: int, end: int) -> bytes:
            with self._store.open(key, Span(start, end)) as reader:
                return reader.read_all()

        return read_header(read, held.size)


def _cost(facts: Facts) -> int:
    """Estimate the memory of facts by the length of their text, which Python objects take about four times."""
    return 1000 + 4 * (len(repr(facts.card)) + len(repr(facts.config))) + 100 * len(facts.tags)
