"""Two shelves that are one while bytes move from the one to the other: read where they are, written where they go.

    read     `to`, else `source`, else `to` once more: bytes may have moved between the two looks
    write    `to`; what `source` holds already stays there until it is copied
    delete   `source`, then `to`: what is gone must not be copied again

Keys never change bytes, so it does not matter which shelf answers. Who copies is no part of this, and may be killed
and begun again at any time; a key that is deleted while it is copied may stay behind in `to` without a row, which is
what the sweep of orphans is for.
"""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal, TypeVar

from lfs.errors import Damaged, Missing
from lfs.store import Judge, ObjectStore, Part, Parts, Probe, Reader, Signed, Source, Span, Stat, Verified, pieces

T = TypeVar("T")

_MOST_SEEN = 100_000


class Moving:
    """An `ObjectStore` over the shelf that bytes go `to` and the `source` that they come from."""

    def __init__(self, *, to: ObjectStore, source: ObjectStore) -> None:
        self._to, self._source = to, source
        self._seen = _Seen()

    @property
    def waits(self) -> bool:
        """Say whether puts wait, in `to`."""
        return self._to.waits

    def stat(self, key: str) -> Stat:
        """Say what lies under `key`, on either shelf."""
        return self._look(key, lambda shelf: shelf.stat(key))

    def open(self, key: str, span: Span | None = None) -> Reader:
        """Open the bytes under `key` where they are; a copy or its end does not disturb the reader."""
        return self._look(key, lambda shelf: shelf.open(key, span))

    def put(self, key: str, source: Source, size: int, sha256: str | None = None) -> Verified:
        """Keep bytes in `to`.

        A key that only `source` holds is put all the same if its hash is given: proven bytes may be held twice, and
        take the place of damaged ones. Without a hash nothing says which bytes are right: those that are there stay.
        """
        there = None if sha256 else self._only_in_source(key)
        if there is None:
            verified = self._to.put(key, source, size, sha256)
            self._seen.add(key)
            return verified
        judge = Judge(size, None)
        for piece in pieces(source):
            judge.feed(piece)
        verified = judge.verdict(key)
        if there.size != size:
            raise Damaged(f"{key} is stored with {there.size} bytes, not {size}; run `weightroom fsck`.")
        return verified

    def copy(self, source: str, key: str) -> Stat:
        """Give bytes a second name, in `to`; those that only `source` holds are carried over."""
        try:
            return self._to.copy(source, key)
        except Missing:
            pass
        try:
            return self._source.stat(key)
        except Missing:
            pass
        with self._source.open(source) as reader:
            self._to.put(key, reader, reader.size)
        return self._to.stat(key)

    def parts(self, key: str, part_size: int, session: str = "") -> MovingParts:
        """Return an upload in parts to `to`; one that was begun on `source` goes on, and ends, there."""
        here = self._to.parts(key, part_size, session)
        return MovingParts(here, self._source.parts(key, part_size, session), lambda: self._source.stat(key))

    def url(
        self,
        key: str,
        method: Literal["GET", "PUT"],
        seconds: int,
        *,
        size: int | None = None,
        sha256: str | None = None,
        span: Span | None = None,
    ) -> Signed | None:
        """Sign leave to go to `to`; a GET only of what was seen there, since nothing is asked here.

        The rest is streamed, and seen on the way: the next time it is signed.
        """
        if method == "GET" and key not in self._seen:
            return None
        return self._to.url(key, method, seconds, size=size, sha256=sha256, span=span)

    def delete(self, key: str) -> None:
        """Remove the bytes from both shelves."""
        self._seen.drop(key)
        self._source.delete(key)
        self._to.delete(key)
        # Whoever looked between the two has seen it again.
        self._seen.drop(key)

    def walk(self, prefix: str = "", after: str = "") -> Iterator[str]:
        """Yield the keys of both shelves in byte order, each once."""
        last = None
        for key in heapq.merge(self._to.walk(prefix, after), self._source.walk(prefix, after)):
            if key != last:
                yield key
            last = key

    def sweep(self, seconds: float) -> int:
        """Drop what was left unfinished on both shelves."""
        return self._to.sweep(seconds) + self._source.sweep(seconds)

    def probe(self) -> Probe:
        """Find out what `to` enforces: uploads go there."""
        return self._to.probe()

    def believe(self, probe: Probe) -> None:
        """Sign uploads to `to` as this finding allows."""
        self._to.believe(probe)

    def _look(self, key: str, ask: Callable[[ObjectStore], T]) -> T:
        try:
            found = ask(self._to)
        except Missing:
            pass
        else:
            self._seen.add(key)
            return found
        self._seen.drop(key)
        try:
            return ask(self._source)
        except Missing:
            return ask(self._to)

    def _only_in_source(self, key: str) -> Stat | None:
        try:
            self._to.stat(key)
        except Missing:
            pass
        else:
            return None
        try:
            return self._source.stat(key)
        except Missing:
            return None


class MovingParts:
    """An upload in parts: on `there` if it was begun there, else on `here`."""

    def __init__(self, here: Parts, there: Parts, stat: Callable[[], Stat]) -> None:
        self._here, self._there, self._stat = here, there, stat
        self._chosen: Parts | None = None

    @property
    def session(self) -> str:
        """The session on the shelf that the upload is on."""
        return (self._chosen or self._here).session

    def begin(self) -> str:
        """Open the upload, if it is open on neither shelf."""
        return self._where().begin()

    def url(self, number: int, size: int, seconds: int) -> Signed | None:
        """Sign leave for a part."""
        return self._where().url(number, size, seconds)

    def put(self, number: int, source: Source, size: int) -> str:
        """Take a part."""
        return self._where().put(number, source, size)

    def sent(self) -> Mapping[int, Part]:
        """Return the parts that lie whole where the upload is."""
        return self._where().sent()

    def finish(self, parts: Sequence[tuple[int, str]]) -> Stat:
        """Join the parts where they are; what was joined on the shelf that is left counts as finished."""
        try:
            return self._where().finish(parts)
        except Missing:
            if self._where() is self._here and not _sent(self._here):
                return self._stat()
            raise

    def abort(self) -> None:
        """Drop every part, on both shelves."""
        self._there.abort()
        self._here.abort()

    def _where(self) -> Parts:
        # A session says nothing of its shelf, and a disk has none: the parts themselves tell.
        if self._chosen is None:
            self._chosen = self._there if _sent(self._there) else self._here
        return self._chosen


def _sent(parts: Parts) -> Mapping[int, Part]:
    try:
        return parts.sent()
    except Missing:
        return {}


class _Seen:
    """Keys that were seen in `to` by this process; forgets all when there are too many. Thread-safe."""

    def __init__(self) -> None:
        self._keys: set[str] = set()
        self._lock = threading.Lock()

    def __contains__(self, key: str) -> bool:
        return key in self._keys

    def add(self, key: str) -> None:
        with self._lock:
            if len(self._keys) >= _MOST_SEEN:
                self._keys.clear()
            self._keys.add(key)

    def drop(self, key: str) -> None:
        with self._lock:
            self._keys.discard(key)
