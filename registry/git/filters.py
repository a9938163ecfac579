"""Partial-clone filters: `blob:none`, `blob:limit=<n>`, `tree:<depth>`, `object:type=<type>`, `combine:a+b`.

Source: git-rev-list, option `--filter`; gitprotocol-v2, `filter`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import reduce
from urllib.parse import unquote

from registry.errors import BadBody
from registry.git.packfile import BLOB, COMMIT, KINDS, TAG, TREE

_SIZE = re.compile(r"(\d{1,18})([kmgKMG]?)\Z")
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_ALL = frozenset((COMMIT, TREE, BLOB, TAG))
_MOST_PARTS = 64


@dataclass(frozen=True, slots=True)
class Filter:
    """What a client leaves out; the default leaves out nothing. Objects wanted by name are always sent."""

    blob_limit: int | None = None
    """Blobs of at least this many bytes are left out."""
    depth: int | None = None
    """Trees and blobs at this depth or below are left out; the root tree has depth 0."""
    kinds: frozenset[int] = _ALL

    def __bool__(self) -> bool:
        """True if anything may be left out."""
        return self != _NOTHING

    def also(self, other: Filter) -> Filter:
        """Leave out what either of two filters leaves out."""
        return Filter(
            _least(self.blob_limit, other.blob_limit), _least(self.depth, other.depth), self.kinds & other.kinds
        )

    @property
    def text(self) -> str:
        """A text that is equal for equal filters."""
        return f"{self.blob_limit},{self.depth},{sorted(self.kinds)}"


_NOTHING = Filter()


def parse(spec: str, *, nested: bool = False) -> Filter:
    """Parse a filter as clients send it.

    Raises: BadBody (unknown, or `sparse:oid`, which this server does not take).
    """
    name, _, value = spec.partition(":")
    if spec == "blob:none":
        return Filter(blob_limit=0)
    if spec.startswith("blob:limit="):
        return Filter(blob_limit=_size(spec.removeprefix("blob:limit="), spec))
    if name == "tree" and value.isascii() and value.isdigit() and len(value) < 10:
        return Filter(depth=int(value))
    if spec.startswith("object:type="):
        return Filter(kinds=frozenset([_kind(spec.removeprefix("object:type="), spec)]))
    if name == "combine" and not nested and value.count("+") < _MOST_PARTS:
        parts = [parse(unquote(part), nested=True) for part in value.split("+")]
        return reduce(Filter.also, parts)
    raise BadBody(f"filter '{spec[:100]}' is not supported")


def _size(text: str, spec: str) -> int:
    found = _SIZE.match(text)
    if not found or not text.isascii():
        raise BadBody(f"filter '{spec[:100]}' has no size")
    return int(found[1]) * _UNITS[found[2].lower()]


def _kind(text: str, spec: str) -> int:
    for kind, name in KINDS.items():
        if name.decode() == text:
            return kind
    raise BadBody(f"filter '{spec[:100]}' names no object type")


def _least(one: int | None, other: int | None) -> int | None:
    return other if one is None else one if other is None else min(one, other)
