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


def last_changes(manifest: Manifest, tip: str, paths: Collection[bytes]) -> dict[bytes, str]:
    """Tell for each of these paths of `tip` which commit brought its present content, as `git log -1 -- path` does.

    One walk for all paths: a commit hands a path on to the first parent that has the same entry there, and is its
    last change if no parent has. Every path must exist in `tip`.
    Raises: RevisionAbsent, Damaged.
    """
    graph = manifest.graph
    start = a2b_hex(tip)
    if graph.node(start) is None:
        raise RevisionAbsent(f"no commit {tip}")
    open_paths = {start: set(paths)}
    heap = [(-graph.at(start).generation, start)]
    found: dict[bytes, str] = {}
    while heap:
        id = heapq.heappop(heap)[1]
        mine = open_paths.pop(id)
        for parent in graph.at(id).parents:
            changed = _differing(manifest, id, parent)
            stay = {path for path in changed if path in mine}
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
        if len(found) == len(paths):
            break
    return found


def _differing(manifest: Manifest, child: bytes, parent: bytes) -> Iterable[bytes]:
    ours, theirs = _tree_of(manifest, child), _tree_of(manifest, parent)
    return () if ours == theirs else _changed(manifest, ours, theirs, b"")


def _changed(manifest: Manifest, ours: bytes, theirs: bytes | None, prefix: bytes) -> Iterator[bytes]:
    """Yield every path of `ours`, folders too, whose entry `theirs` lacks or has with other content."""
    before = {} if theirs is None else {name: (mode, id) for name, mode, id in manifest.tree(theirs)}
    for name, mode, id in manifest.tree(ours):
        old = before.get(name)
        if old == (mode, id):
            continue
        yield prefix + name
        if S_ISDIR(mode):
            old_tree = old[1] if old is not None and S_ISDIR(old[0]) else None
            yield from _changed(manifest, id, old_tree, prefix + name + b"/")


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


def _tree_of(manifest: Manifest, id: bytes) -> bytes:
    return manifest.graph.at(id).row.tree


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
