"""Uploads that go on where they broke off: an offset names what the shelf holds, never what we remember.

    how far?   the whole parts in a row from the first one, as the shelf lists them
    the rest   goes to the shelf part by part; what is cut off below a part is sent again
    the end    hashed in one go from byte 0 → linked at once; else joined now, and linked when read back and hashed

One writer at a time holds the upload. It may vanish between any two steps: whoever asks next how far it is finds all
parts there, or the joined object, and finishes the work.

Source: tus 1.0.0, core protocol (https://tus.io/protocols/resumable-upload); git-lfs tq/tus_upload.go.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from lfs.errors import (
    BadRequest,
    Mismatch,
    Missing,
    ObjectAbsent,
    OffsetConflict,
    SizeMismatch,
    Unavailable,
)
from lfs.grants import Grant
from lfs.host import Host, Proof, Upload
from lfs.leases import LEASE, Lease
from lfs.store import Judge, ObjectStore, Part, Parts, lfs_key
from lfs.uploads import settle


@dataclass(slots=True)
class _Reached:
    """How far an upload is: bytes, the numbers and tags of the parts that hold them, or that they are joined."""

    offset: int = 0
    parts: list[tuple[int, str]] = field(default_factory=list)
    joined: bool = False

    def add(self, tag: str, size: int) -> None:
        """Note the next part."""
        self.parts.append((len(self.parts) + 1, tag))
        self.offset += size


class Tus:
    """Takes objects in, in as many requests as it needs. Synchronous: a door calls it on a worker thread.

    `told` is called when bytes wait for their proof; `clock` gives seconds that only rise.
    """

    def __init__(
        self,
        *,
        host: Host,
        store: ObjectStore,
        told: Callable[[], None],
        lease: float = LEASE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._host, self._store, self._told = host, store, told
        self._lease, self._clock = lease, clock

    def lease(self, grant: Grant) -> Lease:
        """Become the only writer of an upload; the caller gives it back. Raises: ObjectAbsent, Busy.

        Objects of one part come whole or not at all, and need no lease: thousands of them are pushed at once.
        """
        upload = self._upload(grant)
        lease = Lease(self._host, upload.id, self._lease, self._clock)
        if not _is_one_part(upload):
            lease.take()
        return lease

    def offset(self, grant: Grant) -> int:
        """Say how many bytes are durable; at return a complete upload is linked or waits for its proof.

        Raises: ObjectAbsent (the upload is gone, or its bytes were not the announced ones), DigestMismatch (of no
        bytes), Busy (its writer is about to complete it), QuotaExceeded, NoSpace, Unavailable.
        """
        upload = self._upload(grant)
        reached = self._reached(upload, self._parts(upload)).offset
        if reached == upload.size and upload.state == "open":
            # The client asks for nothing more: neither for a last request nor for `verify`.
            lease = self.lease(grant)
            try:
                self._go_on(self._upload(grant), reached, (), lease)
            finally:
                lease.give_back()
        return reached

    def take(self, grant: Grant, offset: int, source: Iterable[bytes], lease: Lease) -> int:
        """Take what follows `offset`, under a lease that the caller prolongs; return how far the upload is now.

        Every whole part is durable when the next one begins. When all bytes came, the object is linked at return, or
        waits for its proof. A body that ends early is kept up to its last whole part.
        Raises: OffsetConflict, SizeMismatch (more than announced), DigestMismatch (nothing is kept), BadRequest
        (less than a part), Damaged, and what `offset` raises.
        """
        return self._go_on(self._upload(grant), offset, source, lease)

    def _go_on(self, upload: Upload, offset: int, source: Iterable[bytes], lease: Lease) -> int:
        parts = self._parts(upload)
        reached = self._reached(upload, parts)
        if offset != reached.offset:
            raise OffsetConflict(f"The store holds {reached.offset} bytes of this upload, not {offset}; go on there.")
        if upload.state != "open":
            return upload.size
        if not reached.joined and _is_one_part(upload):
            self._put(upload, source)
            return upload.size
        body = _Body(source, lease, None if offset or reached.joined else Judge(upload.size, upload.oid))
        if offset < upload.size:
            self._send(upload, parts, reached, body)
            if reached.offset == offset:
                raise BadRequest(f"Send at least {upload.part_size} bytes at a time, or all that is left.")
        if reached.offset == upload.size:
            self._complete(upload, parts, reached, body, lease)
        return reached.offset

    def _put(self, upload: Upload, source: Iterable[bytes]) -> None:
        key = lfs_key(upload.oid, upload.id)
        self._store.put(key, source, upload.size, upload.oid)
        self._settle(upload, key)

    def _send(self, upload: Upload, parts: Parts, reached: _Reached, body: _Body) -> None:
        """Bring the body to the shelf, part by part, until it or the object ends."""
        if not reached.parts:
            self._begin(upload, parts)
        try:
            while left := upload.size - reached.offset:
                size = min(upload.part_size, left)
                reached.add(parts.put(len(reached.parts) + 1, body.part(size, last=size == left), size), size)
        except _Ended:
            return
        except Missing as error:
            raise Unavailable("The store dropped this upload; ask how far it is, and go on there.") from error

    def _begin(self, upload: Upload, parts: Parts) -> None:
        """Start from nothing, under a session that no writer before us knows, and the bucket has not dropped."""
        if upload.session:
            parts.abort()
        if session := parts.begin():
            self._host.attach({upload.id: session})

    def _complete(self, upload: Upload, parts: Parts, reached: _Reached, body: _Body, lease: Lease) -> None:
        key = lfs_key(upload.oid, upload.id)
        try:
            hashed = body.verdict(key)
        except Mismatch:
            parts.abort()
            raise
        if not reached.joined:
            self._join(parts, reached)
        if hashed:
            self._settle(upload, key)
        else:
            self._host.arrive(upload.id, key)
            # Whoever proves it needs the lease that is held now.
            lease.afterwards.append(self._told)

    def _settle(self, upload: Upload, key: str) -> None:
        settle(self._host, self._store, upload.id, key, Proof(upload.oid, upload.size, "streamed"))

    def _join(self, parts: Parts, reached: _Reached) -> None:
        try:
            parts.finish(reached.parts)
        except Missing as error:
            raise Unavailable("A part of this upload was replaced; ask how far it is, and go on there.") from error

    def _reached(self, upload: Upload, parts: Parts) -> _Reached:
        if upload.state != "open":
            return _Reached(upload.size, joined=True)
        reached = _in_a_row(parts.sent(), upload)
        if not reached.parts and self._joined(upload):
            return _Reached(upload.size, joined=True)
        return reached

    def _joined(self, upload: Upload) -> bool:
        """Say whether a writer died after it had joined the parts."""
        try:
            return self._store.stat(lfs_key(upload.oid, upload.id)).size == upload.size
        except Missing:
            return False

    def _parts(self, upload: Upload) -> Parts:
        return self._store.parts(lfs_key(upload.oid, upload.id), upload.part_size, upload.session)

    def _upload(self, grant: Grant) -> Upload:
        upload = self._host.upload(grant.upload)
        if upload.state == "failed":
            raise ObjectAbsent(upload.reason or "The bytes that came are not this object; ask for a new batch.")
        return upload


class _Ended(Exception):
    """The body ended before the part did."""


class _Body:
    """A request's body, cut into parts; hashed on its way if it is the whole object."""

    def __init__(self, source: Iterable[bytes], lease: Lease, judge: Judge | None) -> None:
        self._source, self._lease, self._judge = iter(source), lease, judge
        self._held = b""

    def part(self, size: int, *, last: bool) -> Iterator[bytes]:
        """Yield the next `size` bytes; after the `last` part nothing may come.

        Raises: _Ended, SizeMismatch, Busy (the lease lapsed), Interrupted.
        """
        while size:
            piece = self._next()
            if not piece:
                raise _Ended
            self._lease.check()
            piece, self._held = piece[:size], piece[size:]
            if self._judge:
                self._judge.feed(piece)
            size -= len(piece)
            yield piece
        if last and self._next():
            raise SizeMismatch("More bytes came than were announced; announce the true size.")

    def verdict(self, key: str) -> bool:
        """Say whether the bytes were hashed, and that nobody else's are among them.

        Raises: DigestMismatch, Busy (the lease lapsed).
        """
        if self._judge is None:
            return False
        self._judge.verdict(key)
        self._lease.check()
        return True

    def _next(self) -> bytes:
        return self._held or next(self._source, b"")


def _is_one_part(upload: Upload) -> bool:
    return upload.size <= upload.part_size


def _in_a_row(sent: Mapping[int, Part], upload: Upload) -> _Reached:
    """Count the whole parts from the first one to the first gap."""
    reached = _Reached()
    while left := upload.size - reached.offset:
        size = min(upload.part_size, left)
        part = sent.get(len(reached.parts) + 1)
        if part is None or part.size != size:
            break
        reached.add(part.tag, size)
    return reached
