"""Wants, haves, depth and filter → the objects to send, or the packs to send as they are.

Most answers are a union of the lists in the introduced sidecars and look at no tree: every object of a new commit is
brought by it or by a new ancestor, or lies in a parent that the client has. Trees are walked where history is cut
(a shallow commit needs all of its tree), below objects wanted by name, and for filters by depth.
Ids are raw 20 bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from registry.git.depth import Boundary
from registry.git.filters import Filter
from registry.git.graph import Graph, Node, Reach
from registry.git.objects import GITLINK, Manifest
from registry.git.packfile import BLOB, TREE
from registry.git.view import View

_TREE_MODE = 0o040000
_EDGE_TREES = 8
_BASE_STEPS = 512
_NO_LIMIT = 1 << 30


@dataclass(frozen=True, slots=True)
class Ask:
    """What a client wants and has; every id was found to be reachable before."""

    wants: tuple[bytes, ...]
    common: tuple[bytes, ...] = ()
    held: frozenset[bytes] = frozenset()
    """The client's shallow boundary."""
    boundary: Boundary = field(default_factory=Boundary)
    filter: Filter = field(default_factory=Filter)
    thin: bool = False
    """Deltas may name bases that the client has."""
    ofs: bool = True
    """The client reads OFS_DELTA."""
    tags: bool = False
    """Send annotated tags of what is sent."""

    def key(self, view: View) -> str:
        """Name the answer: equal keys, equal bytes. Packs name the objects, so forks share answers."""
        sets = (self.wants, self.common, self.held, self.boundary.cut, self.boundary.wants)
        parts = [b"1", *(b"".join(sorted(ids)) for ids in sets)]
        parts += [pack.file.name.encode() for pack in view.manifest.packs]
        parts += [self.filter.text.encode(), b"%d%d%d" % (self.thin, self.ofs, self.tags)]
        if self.tags:
            parts.append(view.tags_digest)
        return hashlib.sha256(b"".join(b"%d:%b" % (len(part), part) for part in parts)).hexdigest()


@dataclass(frozen=True, slots=True)
class Plan:
    """What to send: `ids`, or, if None, all objects of all packs; `had` tells which delta bases the client has."""

    ids: list[bytes] | None
    had: Callable[[bytes], bool]


def nothing_had(id: bytes) -> bool:
    """Say of every base that the client lacks it."""
    return False


def whole(view: View, ask: Ask) -> bool:
    """True if the answer is all that the packs hold: a plain clone of a repo whose packs hold its closure."""
    partial = ask.common or ask.held or ask.boundary.cut or ask.filter
    return not partial and view.exact and view.tips.issubset(ask.wants)


def plan(view: View, ask: Ask) -> Plan:
    """List the objects that the client lacks; each once, commits first."""
    if whole(view, ask):
        return Plan(None, nothing_had)
    graph = view.graph
    named = [id for id in ask.wants if graph.node(id) is None]
    starts = [id for id in ask.wants if graph.node(id) is not None]
    nodes = graph.new([*starts, *ask.boundary.wants], ask.common, cut=ask.boundary.cut, have_cut=ask.held)
    chosen: dict[bytes, None] = {}
    _add_nodes(view, ask, nodes, chosen)
    for id in named:
        _add_named(view.manifest, ask.filter, id, chosen)
    wanted = frozenset(starts)
    chosen.update((node.id, None) for node in nodes if node.id in wanted)
    if ask.tags:
        _add_tags(view, chosen)
    thin = ask.thin and ask.common and not (ask.filter or ask.held or ask.boundary.cut)
    return Plan(list(chosen), _had(graph, ask.common) if thin else nothing_had)


def _add_nodes(view: View, ask: Ask, nodes: list[Node], chosen: dict[bytes, None]) -> None:
    sieve = _Sieve(view.manifest, ask.filter)
    ends = [node for node in nodes if node.id in ask.boundary.cut and node.parents]
    there: dict[bytes, None] = {}
    if ends:
        edge = sorted((view.graph.at(id) for id in ask.common), key=lambda node: -node.generation)
        for node in edge[:_EDGE_TREES]:
            sieve.walk(node.row.tree, _NO_LIMIT, there, {})
    cut = {node.id for node in ends}
    for node in nodes:
        if node.id not in cut:
            chosen.update(dict.fromkeys(sieve.introduced(node)))
    for node in ends:
        if sieve.takes_commits:
            chosen[node.id] = None
        sieve.walk(node.row.tree, sieve.depth, chosen, there)


def _add_named(manifest: Manifest, asked: Filter, id: bytes, chosen: dict[bytes, None]) -> None:
    """Add an object wanted by name, whatever the filter says of it, and what it holds, if the filter lets it."""
    chosen[id] = None
    if manifest.is_tree(id):
        sieve = _Sieve(manifest, asked)
        sieve.walk(id, sieve.depth, chosen, {})


def _add_tags(view: View, chosen: dict[bytes, None]) -> None:
    for peeled in view.tags.keys() & chosen.keys():
        for tag in view.tags[peeled]:
            at: Node | None = view.graph.node(tag)
            while at is not None and at.row.is_tag:
                chosen[at.id] = None
                at = view.graph.node(at.parents[0]) if at.parents else None


def _had(graph: Graph, common: Iterable[bytes]) -> Callable[[bytes], bool]:
    """Tell whether the client has an object, looking a bounded number of commits back: a miss only costs bytes."""
    reach = Reach(graph, common, steps=_BASE_STEPS)
    return reach.introduced


class _Sieve:
    """Applies a filter to what commits brought and to trees."""

    def __init__(self, manifest: Manifest, asked: Filter) -> None:
        self._manifest = manifest
        self._filter = asked
        self.depth = _NO_LIMIT if asked.depth is None else asked.depth
        self.takes_commits = 1 in asked.kinds
        self._trees = TREE in asked.kinds
        self._all_blobs = BLOB in asked.kinds and asked.blob_limit is None
        self._no_blobs = BLOB not in asked.kinds or asked.blob_limit == 0
        self._within: dict[bytes, None] = {}
        self._walked: dict[bytes, int] = {}

    def introduced(self, node: Node) -> Iterable[bytes]:
        """Give what the filter leaves of what a commit or tag brought."""
        ids = node.introduced
        if not self._filter:
            return ids
        if node.row.is_tag:
            return self._one_by_one(ids)
        return self._of_commit(node, ids)

    def _of_commit(self, node: Node, ids: list[bytes]) -> Iterator[bytes]:
        if self.takes_commits:
            yield ids[0]
        if self.depth == 0 or len(ids) == 1:
            return
        found = ids[1:]
        if self.depth != _NO_LIMIT:
            self._walk(node.row.tree, self.depth, self._within, {})
            found = [id for id in found if id in self._within]
        split = self._first_blob(found)
        if self._trees:
            yield from found[:split]
        if not self._no_blobs:
            yield from (id for id in found[split:] if self._all_blobs or self._small(id))

    def _first_blob(self, ids: list[bytes]) -> int:
        """Find where blobs begin: a commit's list names its trees first."""
        low, high = 0, len(ids)
        while low < high:
            middle = (low + high) // 2
            if self._kind(ids[middle]) == TREE:
                low = middle + 1
            else:
                high = middle
        return low

    def _one_by_one(self, ids: list[bytes]) -> Iterator[bytes]:
        """Sieve what a tag brought: itself, and perhaps all below a tree."""
        for id in ids:
            kind = self._kind(id)
            bulk = kind in (TREE, BLOB) and self.depth != _NO_LIMIT
            if kind in self._filter.kinds and not bulk and (kind != BLOB or self._all_blobs or self._small(id)):
                yield id

    def walk(self, root: bytes, depth: int, found: dict[bytes, None], skip: dict[bytes, None]) -> None:
        """Add a tree and what lies under it, less than `depth` levels deep and not in `skip`."""
        if depth > 0 and (self._trees or not self._no_blobs):
            self._walk(root, depth, found, skip)

    def _walk(self, root: bytes, depth: int, found: dict[bytes, None], skip: dict[bytes, None]) -> None:
        walked = self._walked if found is self._within else {}
        todo = [(root, depth)]
        while todo:
            id, left = todo.pop()
            if id in skip or walked.get(id, 0) >= left:
                continue
            walked[id] = left
            if self._trees:
                found[id] = None
            if left == 1:
                continue
            for _, mode, child in self._manifest.tree(id):
                if mode == _TREE_MODE:
                    todo.append((child, left - 1))
                elif mode != GITLINK and child not in skip and self._takes(child):
                    found[child] = None

    def _takes(self, blob: bytes) -> bool:
        return not self._no_blobs and (self._all_blobs or self._small(blob))

    def _small(self, blob: bytes) -> bool:
        limit = self._filter.blob_limit
        place = self._manifest.place(blob)
        return not self._no_blobs and (limit is None or place.file.size_at(place.offset) < limit)

    def _kind(self, id: bytes) -> int:
        place = self._manifest.place(id)
        return place.file.kind_at(place.offset)
