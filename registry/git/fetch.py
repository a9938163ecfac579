"""A fetch as both protocol versions ask it: argument lines → wants, haves, depth, filter → the blocks of one pack.

Ids are raw 20 bytes once parsed.
"""

from __future__ import annotations

import re
from binascii import a2b_hex
from collections.abc import Iterator
from dataclasses import dataclass, field

from registry.errors import BadBody, RegistryError
from registry.git import filters, pkt
from registry.git.depth import Boundary, Depth, boundary
from registry.git.emit import as_stored, emit, shares
from registry.git.filters import Filter
from registry.git.pkt import Buffer
from registry.git.plan import Ask, plan, whole
from registry.git.responses import Responses
from registry.git.view import View

MOST_IDS = 100_000
"""Wants, haves or shallow lines of one request."""
_OID = re.compile(rb"[0-9a-fA-F]{40}\Z")
_GUESSES = (b"%b", b"refs/%b", b"refs/tags/%b", b"refs/heads/%b", b"refs/remotes/%b")


@dataclass(slots=True)
class Wishes:
    """The argument lines that both protocol versions share, gathered while they are read."""

    wants: dict[bytes, None] = field(default_factory=dict)
    haves: dict[bytes, None] = field(default_factory=dict)
    shallow: dict[bytes, None] = field(default_factory=dict)
    deepen: int = 0
    since: int = 0
    excluded: list[bytes] = field(default_factory=list)
    relative: bool = False
    filter: Filter = field(default_factory=Filter)
    done: bool = False

    def take(self, line: bytes) -> bool:
        """Take one argument line; False if it is none of the shared ones.

        Raises: BadBody (a value that is no id, number or known filter; too many).
        """
        name, _, value = line.partition(b" ")
        if name in (b"want", b"have", b"shallow"):
            ids = {b"want": self.wants, b"have": self.haves, b"shallow": self.shallow}[name]
            ids[parse_oid(value)] = None
            if len(ids) > MOST_IDS:
                raise BadBody(f"more than {MOST_IDS} {name.decode()} lines")
        elif name == b"deepen":
            self.deepen = _number(value, line)
        elif name == b"deepen-since":
            self.since = _number(value, line)
        elif name == b"deepen-not":
            self.excluded.append(value)
        elif name == b"filter":
            self.filter = filters.parse(value.decode("utf-8", "replace"))
        elif line == b"deepen-relative":
            self.relative = True
        elif line == b"done":
            self.done = True
        else:
            return False
        return True


class Fetch:
    """One fetch from one view, after its wishes were checked against what the client may see."""

    def __init__(self, view: View, wishes: Wishes) -> None:
        """Check wants and depth, and find what is common.

        Raises: BadBody (a want that no shown ref reaches, depth arguments that make no sense).
        """
        self.view = view
        self.wishes = wishes
        for id in wishes.wants:
            if not view.serves(id):
                raise BadBody(f"upload-pack: not our ref {id.hex()}")
        self.common = [id for id in wishes.haves if view.has_commit(id)]
        self._held = frozenset(id for id in wishes.shallow if view.has_commit(id))
        starts = [id for id in wishes.wants if view.graph.node(id) is not None]
        self.boundary: Boundary = boundary(view.graph, self.depth, starts, self._held)

    @property
    def depth(self) -> Depth:
        """The depth arguments, refs resolved.

        Raises: BadBody (an unknown ref).
        """
        wishes = self.wishes
        excluded = tuple(_resolve(self.view, name) for name in wishes.excluded)
        return Depth(wishes.deepen, wishes.relative, wishes.since, excluded)

    @property
    def ready(self) -> bool:
        """True if what is common is enough: every want reaches some of it."""
        return self.view.graph.all_reach(self.wishes.wants, self.common)

    def shallow_lines(self) -> list[bytes]:
        """Tell how the client's boundary moves."""
        lines = [b"shallow " + id.hex().encode() for id in self.boundary.shallow]
        return lines + [b"unshallow " + id.hex().encode() for id in self.boundary.unshallow]

    def blocks(self, responses: Responses, *, thin: bool, ofs: bool, tags: bool) -> Iterator[Buffer]:
        """Yield the pack in blocks; empty ones mean that we still work."""
        ask = Ask(
            tuple(self.wishes.wants), tuple(self.common), self._held, self.boundary, self.wishes.filter, thin, ofs, tags
        )
        if whole(self.view, ask) and len(self.view.manifest.packs) == 1 and ofs:
            return as_stored(self.view.manifest.packs[0].file)
        return responses.stream(ask.key(self.view), lambda: _build(self.view, ask))


def _build(view: View, ask: Ask) -> Iterator[bytes]:
    made = plan(view, ask)
    return emit(view.manifest, shares(view.manifest, made), ofs=ask.ofs, had=made.had)


def framed(blocks: Iterator[Buffer], *, payload: int = pkt.MAX_PAYLOAD - 1) -> Iterator[bytes]:
    """Put a pack on channel 1, with empty frames while we still work; a failure is told on channel 3, then raised."""
    try:
        for block in blocks:
            if block:
                yield from pkt.side_band(1, block, payload=payload)
            else:
                yield pkt.KEEP_ALIVE
    except Exception as error:
        told = error.message if isinstance(error, RegistryError) else "internal error; nothing is wrong on your side"
        yield from pkt.side_band(3, told.encode() + b"\n", payload=payload)
        raise
    yield pkt.FLUSH


def parse_oid(text: bytes) -> bytes:
    """Parse 40 hex digits.

    Raises: BadBody.
    """
    if not _OID.match(text):
        raise BadBody(f"not an object id: {text[:60]!r}")
    return a2b_hex(text)


def _number(text: bytes, line: bytes) -> int:
    if not text.isdigit() or len(text) > 12 or not int(text):
        raise BadBody(f"not a positive number: {line[:60]!r}")
    return int(text)


def _resolve(view: View, name: bytes) -> bytes:
    """Find the commit of a ref that may be named in short.

    Raises: BadBody.
    """
    if name == b"HEAD":
        name = view.snapshot.head
    for guess in _GUESSES:
        ref = view.refs.get(guess % name)
        if ref is not None:
            id = a2b_hex(ref.target)
            if view.graph.node(id) is not None:
                return id
    raise BadBody(f"git upload-pack: deepen-not is not a ref: {name.decode('utf-8', 'replace')[:200]}")
