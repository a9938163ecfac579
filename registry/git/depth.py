"""Where a shallow history ends: depth arguments and the client's boundary → what it will hold afterwards.

Ids are raw 20 bytes. Source: gitprotocol-v2, `shallow-info`; gitprotocol-pack, "shallow".
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from registry.errors import BadBody
from registry.git.graph import Graph, Node

INFINITE = 0x7FFFFFFF
"""The depth that `git fetch --unshallow` asks for."""


@dataclass(frozen=True, slots=True)
class Depth:
    """The depth arguments of a fetch; none of them given means the client's boundary stays."""

    count: int = 0
    """Commits of history from each want, or, if `relative`, from the client's boundary; 0 = not asked."""
    relative: bool = False
    since: int = 0
    """Seconds since 1970; 0 = not asked."""
    excluded: tuple[bytes, ...] = ()
    """Tips whose history is left out."""

    def __bool__(self) -> bool:
        """True if any depth argument was given."""
        return bool(self.count or self.since or self.excluded)


@dataclass(frozen=True, slots=True)
class Boundary:
    """How the client's history ends after a fetch."""

    shallow: tuple[bytes, ...] = ()
    """Commits that become parentless for the client."""
    unshallow: tuple[bytes, ...] = ()
    """Commits of the client's boundary whose parents are sent now."""
    wants: tuple[bytes, ...] = ()
    """Those parents."""
    cut: frozenset[bytes] = frozenset()
    """All commits that are parentless for the client afterwards."""


def boundary(graph: Graph, depth: Depth, wants: Iterable[bytes], held: Collection[bytes]) -> Boundary:
    """Work out the boundary; `held` is the client's present one, `wants` are commits and tags.

    Raises: BadBody (arguments that exclude each other, or leave no commit).
    """
    if not depth:
        return Boundary(cut=frozenset(held))
    if depth.count and (depth.since or depth.excluded):
        raise BadBody("deepen and deepen-since (or deepen-not) cannot be used together")
    if depth.count >= INFINITE:
        return _moved(graph, held, ends=set(), inner=set(held))
    if not depth.count:
        return _moved(graph, held, *_by_walk(graph, depth, wants))
    if depth.relative:
        starts = _reached(graph, wants, held)
        return _moved(graph, held, *_by_level(graph, starts, depth.count + 1))
    return _moved(graph, held, *_by_level(graph, wants, depth.count))


def _moved(graph: Graph, held: Collection[bytes], ends: set[bytes], inner: set[bytes]) -> Boundary:
    """Compare the new ends with the client's boundary; commits of `inner` keep their parents."""
    ends = {id for id in ends if graph.at(id).parents}
    unshallow = tuple(sorted(id for id in held if id in inner))
    parents = {parent for id in unshallow for parent in graph.at(id).parents}
    cut = frozenset(ends | set(held).difference(unshallow))
    return Boundary(tuple(sorted(ends.difference(held))), unshallow, tuple(sorted(parents)), cut)


def _by_level(graph: Graph, starts: Iterable[bytes], count: int) -> tuple[set[bytes], set[bytes]]:
    """Go `count` commits deep, each commit at its smallest depth; return the last level and those above it."""
    level = {_commit(graph, id) for id in starts}
    inner: set[bytes] = set()
    for _ in range(count - 1):
        if not level:
            break
        inner |= level
        level = {parent for id in level for parent in graph.at(id).parents} - inner
    return level, inner


def _by_walk(graph: Graph, depth: Depth, wants: Iterable[bytes]) -> tuple[set[bytes], set[bytes]]:
    """Take the commits that are young enough and not excluded; return those that lack a parent, and the rest."""
    tips = [_commit(graph, id) for id in wants]
    chosen = graph.new(tips, depth.excluded, keep=lambda node: node.time >= depth.since)
    ids = {node.id for node in chosen}
    if not ids:
        raise BadBody("no commits selected for shallow requests")
    ends = {node.id for node in chosen if any(parent not in ids for parent in node.parents)}
    return ends, ids - ends


def _reached(graph: Graph, wants: Iterable[bytes], held: Collection[bytes]) -> list[bytes]:
    """Name the commits of the client's boundary that the wants reach."""
    floor = min((graph.at(id).generation for id in held), default=0)
    return [node.id for node in graph.above(wants, floor) if node.id in held]


def _commit(graph: Graph, id: bytes) -> bytes:
    """Follow tags to the commit that they name."""
    node: Node = graph.at(id)
    while node.row.is_tag and node.parents:
        node = graph.at(node.parents[0])
    return node.id
