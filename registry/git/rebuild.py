"""The index and the sidecar of a stored pack, made again from its bytes: both depend on nothing else.

An index follows from one pack alone. A sidecar needs its pack's closure: what the pack's commits build upon and other
packs hold is read from the sidecars of those. So packs whose sidecars are lost together are read together, as if they
were one, and each gets the rows of what it holds.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from registry.errors import Damaged
from registry.git import intro, packing
from registry.git.bases import BasePack, Bases
from registry.git.chains import Chains
from registry.git.connect import Known, broken_links
from registry.git.contents import Contents, Judgement
from registry.git.forest import Forest
from registry.git.introduce import Introduce
from registry.git.packfile import TRAILER, TREE, PackFile
from registry.git.scan import Buffer, Entries, Scanner, Sink
from registry.git.verdict import Limits, PackRefused

_NONE = 1 << 62
# What is stored passed the limits of its day, or was rolled up from packs that did.
_BOUNDLESS = Limits(
    pack=_NONE,
    inflated=_NONE,
    objects=_NONE,
    ratio=_NONE,
    expanded=_NONE,
    chain=_NONE,
    delta_target=_NONE,
    delta_memory=_NONE,
    blob=_NONE,
    blob_hard=_NONE,
    header=_NONE,
    tree=_NONE,
    introduced=_NONE,
)


@dataclass(frozen=True, slots=True)
class Facts:
    """What a pack says of itself: its trailer in hex, its objects, and its index."""

    sha1: str
    objects: int
    index: bytes


def facts(pack: Path) -> Facts:
    """Read a whole pack and make its index. Raises: Damaged (it cannot be taken apart), OSError."""
    if not pack.stat().st_size:
        raise Damaged("the pack is empty")
    with pack.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        entries = _scan(data, _Nothing(), Bases([]))
        trailer = data[-TRAILER:]
    return Facts(trailer.hex(), len(entries.shas), packing.index(entries.shas, entries.offsets, entries.crcs, trailer))


def sidecars(packs: Sequence[PackFile], bases: Bases) -> list[bytes]:
    """Make the sidecars of packs upon `bases`, the sound packs of the same repo.

    Raises: Damaged (one cannot be taken apart, or names what neither it, nor the others, nor `bases` hold).
    """
    every = Bases([*(BasePack(file, None) for file in packs), *bases.packs])
    forest = Forest(lambda sha: _tree(every, sha), bases.tree_stats)
    contents = Contents(forest, Judgement("off", frozenset()), _NONE)
    held = [_scan(file.map, contents, bases) for file in packs]
    own = {sha: kind for entries in held for sha, kind in zip(entries.shas, entries.kinds, strict=True)}
    known = Known(own, bases)
    broken = next(broken_links(contents, known), None)
    if broken:
        raise Damaged(f"its sidecar cannot be made: {broken}")
    introduced = Introduce(contents, forest, known, _BOUNDLESS)
    introduced.run()
    return [_encoded(set(entries.shas), contents, forest, introduced) for entries in held]


def _encoded(own: set[bytes], contents: Contents, forest: Forest, introduced: Introduce) -> bytes:
    return intro.encode(
        (row for sha, row in introduced.rows.items() if sha in own),
        (pair for pair in forest.all_stats() if pair[0] in own),
        (row for blob, row in contents.pointers.items() if blob in own),
    )


class _Nothing:
    """A sink for who wants the entries alone."""

    def take(self, kind: int, sha: bytes, content: bytes) -> None:
        """Let an object go."""

    def passed(self, sha: bytes, size: int) -> None:
        """Let a blob go."""


def _scan(data: Buffer, sink: Sink, bases: Bases) -> Entries:
    try:
        scanner = Scanner(data, _BOUNDLESS, sink)
        entries = scanner.run()
        chains = Chains(scanner, _BOUNDLESS, sink, bases.read)
        chains.resolve()
    except PackRefused as error:
        raise Damaged(f"the pack cannot be taken apart: {error.message}") from error
    if chains.borrowed:
        raise Damaged("the pack lacks the base of a delta")
    return entries


def _tree(bases: Bases, sha: bytes) -> bytes | None:
    found = bases.read(sha, _NONE)
    return found[1] if found and found[0] == TREE else None
