"""The commits behind a commit: one parsed, all in the order of `git log`, and which of them last touched a path.

Paths and messages are `bytes`; ids are raw 20 bytes where walks need them, 40 hex in values for other rooms.
"""

from __future__ import annotations

import heapq
import re
from binascii import a2b_hex
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from stat import S_ISDIR

from registry.errors import Damaged, RevisionAbsent
from registry.git.objects import Manifest
from registry.git.packfile import COMMIT

_PERSON = re.compile(rb"(?P<name>[^<]*?) ?<(?P<email>[^>]*)> (?P<time>-?\d+)")
_ID = 20
MOST_COMPARED = 20_000_000
"""Tree entries that one search for last changes compares; a few seconds."""


@dataclass(frozen=True, slots=True)
class Commit:
    """A commit as people read it; `date` is when it was written, `message` is all of it."""

    sha: str
    tree: str
    parents: tuple[str, ...]
    author: str
    email: str
    date: datetime
    message: str

    @property
    def title(self) -> str:
        """The first paragraph in one line."""
        return " ".join(self.message.strip().partition("\n\n")[0].split("\n"))

    @property
    def body(self) -> str:
        """What follows the title."""
        return self.message.strip().partition("\n\n")[2].strip()


def commit(manifest: Manifest, sha: str) -> Commit:
    """Read a commit.

    Raises: RevisionAbsent (no such object, or not a commit), Damaged.
    """
    kind, content = manifest.read(sha)
    if kind != COMMIT:
        raise RevisionAbsent(f"{sha} is not a commit.")
    head, _, message = content.partition(b"\n\n")
    lines = [line.partition(b" ") for line in head.split(b"\n")]
    tree = next((value for key, _, value in lines if key == b"tree"), None)
    if tree is None:
        raise Damaged(f"commit {sha} names no tree")
    author = next((value for key, _, value in lines if key == b"author"), b"")
    encoding = next((value for key, _, value in lines if key == b"encoding"), b"utf-8")
    name, email, date = _person(author)
    parents = tuple(value.decode() for key, _, value in lines if key == b"parent")
    return Commit(sha, tree.decode(), parents, name, email, date, _text(message, encoding))


def log(manifest: Manifest, tip: str) -> bytes:
    """List every commit that `tip` reaches, itself first, newest committed first as `git log` does; raw ids in a row.

    Raises: RevisionAbsent.
    """
    return b"".join(_newest_first(manifest, a2b_hex(tip)))


def part(log: bytes, start: int, count: int) -> list[str]:
    """Cut ids number `start` to `start + count` out of a log, as 40 hex."""
    end = min((start + count) * _ID, len(log))
    return [log[at : at + _ID].hex() for at in range(start * _ID, end, _ID)]


def length(log: bytes) -> int:
    """Count the commits of a log."""
    return len(log) // _ID


def last_changes(
    manifest: Manifest, tip: str, paths: Collection[bytes], *, budget: int = MOST_COMPARED
) -> dict[bytes, str]:
    """Tell for each of these paths of `tip` which commit brought its present content, as `git log -1 -- path` does.

    One walk for all paths: a commit hands a path on to the first parent that has the same entry there, and is its
    last change if no parent has. Every path must exist in `tip`. The walk ends after `budget` compared tree entries;
    paths whose last change lies further back are then left out.
    Raises: RevisionAbsent, Damaged.
    """
    graph = manifest.graph
    start = a2b_hex(tip)
    if graph.node(start) is None:
        raise RevisionAbsent(f"no commit {tip}")
    comparison = _Comparison(manifest, budget)
    open_paths = {start: set(paths)}
    heap = [(-graph.at(start).generation, start)]
    found: dict[bytes, str] = {}
    while heap and comparison.left > 0:
        id = heapq.heappop(heap)[1]
        mine = open_paths.pop(id)
        for parent in graph.at(id).parents:
            stay = {path for path in comparison.differing(id, parent) if path in mine}
            if len(stay) == len(mine):
                continue
            mine -= stay
            if parent in open_paths:
                open_paths[parent] |= mine
            else:
                open_paths[parent] = mine
                heapq.heappush(heap, (-graph.at(parent).generation, parent))
            mine = stay
        found |= dict.fromkeys(mine, id.hex())
    return found


class _Comparison:
    """Compares trees of commits and counts what that costs."""

    def __init__(self, manifest: Manifest, budget: int) -> None:
        self._manifest = manifest
        self.left = budget

    def differing(self, child: bytes, parent: bytes) -> Iterable[bytes]:
        """Yield every path of `child`, folders too, whose entry `parent` lacks or has with other content."""
        self.left -= 1
        graph = self._manifest.graph
        ours, theirs = graph.at(child).row.tree, graph.at(parent).row.tree
        return () if ours == theirs else self._changed(ours, theirs, b"")

    def _changed(self, ours: bytes, theirs: bytes | None, prefix: bytes) -> Iterator[bytes]:
        before = () if theirs is None else self._manifest.tree(theirs)
        here = self._manifest.tree(ours)
        self.left -= len(before) + len(here)
        same = set(before)
        folders = {name: id for name, mode, id in before if S_ISDIR(mode)}
        for entry in here:
            if entry not in same:
                name, mode, id = entry
                yield prefix + name
                if S_ISDIR(mode):
                    yield from self._changed(id, folders.get(name), prefix + name + b"/")


def _newest_first(manifest: Manifest, tip: bytes) -> Iterator[bytes]:
    graph = manifest.graph
    first = graph.node(tip)
    if first is None:
        raise RevisionAbsent(f"no commit {tip.hex()}")
    seen = {tip}
    # The counter keeps commits of the same second in the order in which they were met.
    heap = [(-first.time, 0, tip)]
    count = 0
    while heap:
        id = heapq.heappop(heap)[2]
        yield id
        for parent in graph.at(id).parents:
            if parent not in seen:
                seen.add(parent)
                count += 1
                heapq.heappush(heap, (-graph.at(parent).time, count, parent))


def _person(line: bytes) -> tuple[str, str, datetime]:
    match = _PERSON.match(line)
    if match is None:
        return "", "", datetime.fromtimestamp(0, UTC)
    return _text(match["name"]), _text(match["email"]), _moment(int(match["time"]))


def _moment(seconds: int) -> datetime:
    """Read a time that anybody may have written; one that no calendar holds becomes the nearest that ours does."""
    return datetime.fromtimestamp(max(0, min(seconds, 253_402_300_799)), UTC)


def _text(raw: bytes, encoding: bytes = b"utf-8") -> str:
    try:
        return raw.decode(encoding.decode("ascii", "replace") or "utf-8", "replace")
    except (LookupError, ValueError):
        # An encoding that Python does not know, or that is no text encoding at all.
        return raw.decode("utf-8", "replace")
