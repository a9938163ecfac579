"""Deltas of a pack in quarantine become objects, with bounded memory whatever shape their chains have.

Depth first from each whole object. Of the deltas upon one object, the one with the largest family comes last, and
the object is let go before that family is entered: at most log2(objects) are held at once, also for combs and other
shapes made to be expensive. Chains by id, whose families cannot be counted ahead, are held to the memory limit.
Bases that the pack lacks come from the manifest, as thin packs ask.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import cast

from dulwich.errors import ApplyDeltaError
from dulwich.pack import apply_delta as _apply_delta

from registry.git.packfile import BLOB
from registry.git.scan import Entries, Scanner, Sink, object_id
from registry.git.verdict import Limits, PackRefused, PackTooLarge

_apply = cast(Callable[[bytes, bytes], list[bytes]], _apply_delta)
FindBase = Callable[[bytes, int], "tuple[int, bytes] | None"]
"""Raw id and the most bytes that may be read to type number and content; None if the manifest lacks it."""


class Chains:
    """Applies the deltas that a scanner has measured."""

    def __init__(self, scanner: Scanner, limits: Limits, sink: Sink, find_base: FindBase) -> None:
        self._scanner, self._entries = scanner, scanner.entries
        self._limits, self._sink, self._find_base = limits, sink, find_base
        self._families = _families(self._entries)
        self._left = sum(map(len, self._entries.by_offset.values())) + sum(map(len, self._entries.by_id.values()))
        self.borrowed: dict[bytes, tuple[int, bytes]] = {}
        """Bases that only the manifest has: type number and content by raw id."""

    def resolve(self) -> None:
        """Make every delta an object and hand it to the sink.

        Raises: PackRefused.
        """
        entries = self._entries
        if not self._left:
            return
        for ordinal, sha in enumerate(entries.shas):
            if sha and (entries.offsets[ordinal] in entries.by_offset or sha in entries.by_id):
                self._grow(entries.kinds[ordinal], self._scanner.inflate(ordinal), self._children(ordinal, sha))
        # A borrowed base may make an object that other deltas wait for, so each is looked for only when still awaited.
        for sha in sorted(entries.by_id):
            if sha in entries.by_id:
                self._borrow(sha)
        if self._left:
            raise PackRefused(self._unresolved())

    def _borrow(self, sha: bytes) -> None:
        found = self._find_base(sha, self._limits.delta_target)
        if found is not None:
            self.borrowed[sha] = found
            if sum(len(content) for _, content in self.borrowed.values()) > self._limits.delta_memory:
                raise PackTooLarge("the bases of a thin pack pass the memory limit; push with --no-thin")
            self._grow(*found, self._family(self._entries.by_id.pop(sha)))

    def _unresolved(self) -> str:
        missing = min(self._entries.by_id, default=b"")
        if missing:
            return f"unresolved deltas: {self._left}; base {missing.hex()} is not in this repository"
        return f"unresolved deltas: {self._left}"

    def _children(self, ordinal: int, sha: bytes) -> list[int]:
        by_offset = self._entries.by_offset.pop(self._entries.offsets[ordinal], [])
        by_id = self._entries.by_id.pop(sha, [])
        return self._family(by_offset + by_id if by_id else by_offset)

    def _family(self, deltas: list[int]) -> list[int]:
        """Order deltas upon one object; they are taken from the end, so the largest family comes last."""
        if len(deltas) > 1:
            deltas.sort(key=lambda one: self._families.get(one, 0), reverse=True)
        return deltas

    def _grow(self, kind: int, root: bytes, children: list[int]) -> None:
        """Make all objects that build upon a root."""
        stack = [(root, children, 1)]
        live = len(root)
        while stack:
            content, children, depth = stack[-1]
            ordinal = children.pop()
            made = self._make(content, ordinal, kind)
            if not children:
                stack.pop()
                live -= len(content)
            below = self._children(ordinal, self._entries.shas[ordinal])
            if not below:
                continue
            if depth >= self._limits.chain:
                raise PackTooLarge(f"a delta chain is longer than {self._limits.chain}")
            stack.append((made, below, depth + 1))
            live += len(made)
            if live > self._limits.delta_memory:
                raise PackTooLarge(f"delta chains need more than {self._limits.delta_memory} bytes of memory")

    def _make(self, base: bytes, ordinal: int, kind: int) -> bytes:
        """Apply one delta and hand the object on."""
        entries = self._entries
        delta = entries.held.pop(ordinal, None)
        if delta is None:
            delta = self._scanner.inflate(ordinal)
        try:
            content = b"".join(_apply(base, delta))
        except (ApplyDeltaError, ValueError, IndexError) as error:
            raise PackRefused("a delta does not fit its base") from error
        if len(content) != entries.sizes[ordinal]:
            raise PackRefused("a delta makes an object of another size than it declares")
        if not content and kind != BLOB:
            raise PackRefused("a delta makes an empty object")
        self._scanner.check_size(kind, len(content))
        sha = object_id(kind, content)
        entries.kinds[ordinal], entries.shas[ordinal] = kind, sha
        self._left -= 1
        self._sink.take(kind, sha, content)
        return content


def _families(entries: Entries) -> dict[int, int]:
    """Count, for deltas by offset, how many deltas build upon each; bases lie before their deltas."""
    counts: dict[int, int] = {}
    place = {offset: at for at, offset in enumerate(entries.offsets)} if entries.by_offset else {}
    for offset in _descending(entries.by_offset):
        total = sum(1 + counts.get(child, 0) for child in entries.by_offset[offset])
        if offset in place:
            counts[place[offset]] = total
    return counts


def _descending(offsets: Iterable[int]) -> list[int]:
    return sorted(offsets, reverse=True)
