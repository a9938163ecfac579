"""No object of a pack may name one that is neither in the pack nor in the manifest.

Sound, object by object: the manifest is closed already, so a pack whose every reference is met leaves it closed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from registry.git.bases import Bases
from registry.git.contents import Contents
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
    yield from _unmet(contents.trees_named, TREE, known)
    yield from _unmet(contents.blobs_named, BLOB, known)
    yield from _unmet({facts.tree for facts in contents.commits.values()}, TREE, known)
    yield from _unmet({one for facts in contents.commits.values() for one in facts.parents}, COMMIT, known)
    for number in (COMMIT, TREE, BLOB, TAG):
        named = {tag.target for tag in contents.tags.values() if NUMBERS[tag.type] == number}
        yield from _unmet(named, number, known)


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
