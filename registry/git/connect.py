"""No object of a pack may name one that is neither in the pack nor in the manifest.

Sound, object by object: the manifest is closed already, so a pack whose every reference is met leaves it closed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from registry.git.bases import Bases
from registry.git.contents import Contents
from registry.git.forest import is_file
from registry.git.fsck import TREE_MODE, CommitFacts
from registry.git.packfile import BLOB, COMMIT, KINDS, TAG, TREE

NUMBERS = {name: number for number, name in KINDS.items()}


class Known:
    """Type numbers of all objects of a pack, then of the manifest; raw ids."""

    def __init__(self, own: dict[bytes, int], bases: Bases) -> None:
        self.own, self.bases = own, bases

    def kind(self, sha: bytes) -> int | None:
        """Tell the type number of an object; None if it is nowhere."""
        return self.own.get(sha) or self.bases.kind(sha)


def broken_links(contents: Contents, known: Known) -> Iterator[str]:
    """Yield, in words, each reference that is not met."""
    trees, blobs = _inherited(contents, known)
    yield from _unmet(contents.trees_named - trees, TREE, known)
    yield from _unmet(contents.blobs_named - blobs, BLOB, known)
    yield from _unmet({facts.tree for facts in contents.commits.values()}, TREE, known)
    yield from _unmet({one for facts in contents.commits.values() for one in facts.parents}, COMMIT, known)
    for number in (COMMIT, TREE, BLOB, TAG):
        named = {tag.target for tag in contents.tags.values() if NUMBERS[tag.type] == number}
        yield from _unmet(named, number, known)


def _inherited(contents: Contents, known: Known) -> tuple[set[bytes], set[bytes]]:
    """Gather trees and blobs of new folders that a parent in the manifest has there too.

    They are present because the manifest is closed; a change of one file in a folder of ten thousand asks for one.
    """
    trees, blobs, forest = set[bytes](), set[bytes](), contents.forest
    waiting = [(facts.tree, old) for facts in contents.commits.values() for old in _roots_below(facts, known)]
    seen = set(waiting)
    while waiting:
        new, old = waiting.pop()
        if new not in forest:
            continue
        mine, theirs = forest.entries(new), forest.entries(old)
        both = mine & theirs
        trees.update([sha for mode, _, sha in both if mode == TREE_MODE])
        blobs.update([sha for mode, _, sha in both if is_file(mode)])
        was = {name: sha for mode, name, sha in theirs - both if mode == TREE_MODE}
        pairs = [(sha, was[name]) for mode, name, sha in mine - both if mode == TREE_MODE and name in was]
        waiting += [pair for pair in pairs if pair not in seen]
        seen.update(pairs)
    return trees, blobs


def _roots_below(facts: CommitFacts, known: Known) -> Iterator[bytes]:
    for parent in facts.parents:
        found = None if parent in known.own else known.bases.row(parent)
        if found and not found[0].is_tag:
            yield found[0].tree


def _unmet(named: Iterable[bytes], wanted: int, known: Known) -> Iterator[str]:
    own = known.own
    for sha in named:
        if own.get(sha) == wanted:
            continue
        kind = known.kind(sha)
        if kind is None:
            yield f"{KINDS[wanted].decode()} {sha.hex()} is missing"
        elif kind != wanted:
            yield f"{sha.hex()} is named as a {KINDS[wanted].decode()} and is a {KINDS[kind].decode()}"
