"""A shelf in memory: the shortest inhabitant of `ObjectStore`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Literal

from lfs.errors import Damaged, Missing
from lfs.store import Judge, Part, Probe, Reader, Signed, Source, Span, Stat, Verified, check_key, check_span, pieces


class MemoryStore:
    """Objects in a dict, parts in another."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.uploads: dict[str, dict[int, bytes]] = {}

    @property
    def waits(self) -> bool:
        return False

    def stat(self, key: str) -> Stat:
        body = self._body(key)
        return Stat(len(body), hashlib.sha256(body).hexdigest(), datetime.now(UTC))

    def open(self, key: str, span: Span | None = None) -> Reader:
        body = self._body(key)
        return _Bytes(body, check_span(span, len(body)))

    def put(self, key: str, source: Source, size: int, sha256: str | None = None) -> Verified:
        check_key(key)
        judge, gathered = Judge(size, sha256), []
        for piece in pieces(source):
            judge.feed(piece)
            gathered.append(piece)
        verified = judge.verdict(key)
        if len(self.objects.setdefault(key, b"".join(gathered))) != size:
            raise Damaged(f"{key} is stored with another size.")
        return verified

    def copy(self, source: str, key: str) -> Stat:
        check_key(key)
        if check_key(source) in self.objects:
            self.put(key, self.objects[source], len(self.objects[source]))
        return self.stat(key)

    def parts(self, key: str, part_size: int, session: str = "") -> MemoryParts:
        return MemoryParts(self, check_key(key), part_size)

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
        check_key(key)
        return None

    def delete(self, key: str) -> None:
        self.objects.pop(check_key(key), None)

    def walk(self, prefix: str = "", after: str = "") -> Iterator[str]:
        yield from sorted(key for key in self.objects if key.startswith(prefix) and key > after)

    def sweep(self, seconds: float) -> int:
        left = 0 if seconds else len(self.uploads)
        if left:
            self.uploads.clear()
        return left

    def probe(self) -> Probe:
        return Probe("none", {"shelf": "memory"})

    def believe(self, probe: Probe) -> None:
        pass

    def _body(self, key: str) -> bytes:
        try:
            return self.objects[check_key(key)]
        except KeyError:
            raise Missing(f"Nothing is stored as {key}.") from None


class MemoryParts:
    """Parts of one key."""

    session = ""

    def __init__(self, store: MemoryStore, key: str, part_size: int) -> None:
        self._store, self._key, self._part_size = store, key, part_size

    def begin(self) -> str:
        self._store.uploads.setdefault(self._key, {})
        return ""

    def url(self, number: int, size: int, seconds: int) -> Signed | None:
        return None

    def put(self, number: int, source: Source, size: int) -> str:
        judge, gathered = Judge(size, None), []
        for piece in pieces(source):
            judge.feed(piece)
            gathered.append(piece)
        tag = judge.verdict(self._key).sha256
        self._store.uploads.setdefault(self._key, {})[number] = b"".join(gathered)
        return tag

    def sent(self) -> Mapping[int, Part]:
        sent = self._store.uploads.get(self._key, {})
        return {number: Part(hashlib.sha256(body).hexdigest(), len(body)) for number, body in sent.items()}

    def finish(self, parts: Sequence[tuple[int, str]]) -> Stat:
        sent = self._store.uploads.get(self._key)
        if sent is not None:
            if any(number not in sent or hashlib.sha256(sent[number]).hexdigest() != tag for number, tag in parts):
                raise Missing(f"A part of {self._key} was not sent.")
            if any(len(sent[number]) != self._part_size for number, _ in parts[:-1]):
                raise Missing(f"A part of {self._key} is not whole.")
            self._store.objects[self._key] = b"".join(sent[number] for number, _ in parts)
            self.abort()
        return self._store.stat(self._key)

    def abort(self) -> None:
        self._store.uploads.pop(self._key, None)


class _Bytes(Reader):
    def __init__(self, body: bytes, span: Span) -> None:
        super().__init__(span.size)
        self._body, self._at = body, span.start

    def _piece(self, limit: int) -> bytes:
        piece = self._body[self._at : self._at + limit]
        self._at += len(piece)
        return piece

    def close(self) -> None:
        pass
