"""The commit graph of a manifest, read from the sidecars of its packs; tags are nodes whose parent is what they name.

Generations order every walk: a node comes after all its children, so what is known of it then is final.
Ids are raw 20 bytes.
"""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import NamedTuple

from registry.errors import Damaged
from registry.git.intro import CommitRow, Intro, ids

_MOST_KEPT = 200_000


class Node(NamedTuple):
    """A commit or annotated tag, and the sidecar that tells of it."""

    id: bytes
    generation: int
    time: int
    parents: tuple[bytes, ...]
    row: CommitRow
    intro: Intro

    @property
    def introduced(self) -> list[bytes]:
        """The ids that it brought, itself first, then trees, then blobs."""
        return ids(self.intro.entries(self.row))


class Graph:
    """Finds commits and tags in a fixed list of sidecars. Thread-safe."""

    def __init__(self, intros: Sequence[Intro]) -> None:
        self._intros = tuple(intros)
        self._kept: dict[bytes, Node] = {}

    def node(self, id: bytes) -> Node | None:
        """Find a commit or tag; None for anything else."""
        kept = self._kept.get(id)
        if kept is not None:
            return kept
        for intro in self._intros:
            row = intro.commit(id)
            if row is not None:
                node = Node(id, row.generation, row.time, intro.parents(row), row, intro)
                if len(self._kept) >= _MOST_KEPT:
                    self._kept = {}
                self._kept[id] = node
                return node
        return None

    def at(self, id: bytes) -> Node:
        """Find a commit or tag that must be here: a manifest holds all that its objects name.

        Raises: Damaged.
        """
        node = self.node(id)
        if node is None:
            raise Damaged(f"no sidecar tells of commit {id.hex()}")
        return node

    def introducers(self, id: bytes) -> Iterator[Node]:
        """Yield all commits and tags that brought an object."""
        for intro in self._intros:
            for ordinal in intro.introducers(id):
                yield self.at(intro.row(ordinal).sha)

    def new(
        self,
        wants: Iterable[bytes],
        common: Iterable[bytes],
        *,
        cut: Collection[bytes] = (),
        have_cut: Collection[bytes] = (),
        keep: Callable[[Node], bool] | None = None,
    ) -> list[Node]:
        """List what `wants` reach and `common` do not, children before parents.

        Nodes of `cut` count as parentless when reached from wants, nodes of `have_cut` when reached from `common`.
        A node that `keep` turns down is left out, and what only it reaches too.
        Cost is that of the nodes listed and of those that `common` reach above them.
        """
        want, have = set(wants), set(common)
        seen = want | have
        heap = [(-self.at(id).generation, id) for id in seen]
        heapq.heapify(heap)
        open_wants = len(want - have)
        found = []
        while open_wants:
            id = heapq.heappop(heap)[1]
            node = self.at(id)
            had = id in have
            if not had:
                open_wants -= 1
                if keep is not None and not keep(node):
                    continue
                found.append(node)
            if id in (have_cut if had else cut):
                continue
            for parent in node.parents:
                if parent not in seen:
                    seen.add(parent)
                    heapq.heappush(heap, (-self.at(parent).generation, parent))
                    open_wants += not had
                elif had and parent in want and parent not in have:
                    open_wants -= 1
                if had:
                    have.add(parent)
                else:
                    want.add(parent)
        return found

    def all_reach(self, wants: Iterable[bytes], common: Collection[bytes]) -> bool:
        """True if every want that is a commit or tag reaches a member of `common` or is one."""
        floor = min((self.at(id).generation for id in common), default=0)
        starts = [id for id in wants if self.node(id) is not None]
        order = list(self.above(starts, floor))
        reaching = set(common)
        for node in reversed(order):
            if any(parent in reaching for parent in node.parents):
                reaching.add(node.id)
        return bool(common) and all(id in reaching for id in starts)

    def above(self, starts: Iterable[bytes], floor: int) -> Iterator[Node]:
        """Yield nodes of at least a generation that `starts` reach, children before parents."""
        seen = set(starts)
        heap = [(-self.at(id).generation, id) for id in seen]
        heapq.heapify(heap)
        while heap:
            generation, id = heapq.heappop(heap)
            if -generation < floor:
                return
            node = self.at(id)
            yield node
            for parent in node.parents:
                if parent not in seen:
                    seen.add(parent)
                    heapq.heappush(heap, (-self.at(parent).generation, parent))


class Reach:
    """What a set of tips reaches, explored only as deep as it is asked. Thread-safe.

    An instance lives as long as its tips do, so all requests together pay for each commit once.
    `steps` bounds how many commits are explored, after which what was not found counts as not reached.
    """

    def __init__(self, graph: Graph, tips: Iterable[bytes], *, steps: int | None = None) -> None:
        self._graph = graph
        self._steps = steps
        self._seen = {id for id in tips if graph.node(id) is not None}
        self._heap = [(-graph.at(id).generation, id) for id in self._seen]
        heapq.heapify(self._heap)
        self._lock = threading.Lock()

    def commit(self, id: bytes) -> bool:
        """True if the tips reach this commit or tag, or it is one of them."""
        if id in self._seen:
            return True
        node = self._graph.node(id)
        if node is None:
            return False
        with self._lock:
            while self._heap and -self._heap[0][0] > node.generation:
                if self._steps is not None:
                    if not self._steps:
                        break
                    self._steps -= 1
                for parent in self._graph.at(heapq.heappop(self._heap)[1]).parents:
                    if parent not in self._seen:
                        self._seen.add(parent)
                        heapq.heappush(self._heap, (-self._graph.at(parent).generation, parent))
        return id in self._seen

    def introduced(self, id: bytes) -> bool:
        """True if a commit or tag that the tips reach brought this object: exact for all that they reach."""
        return any(self.commit(node.id) for node in self._graph.introducers(id))
