"""Large objects into a bucket: by parts, a few of them on their way while the next one is gathered.

The upload is completed only when size and hash agreed, so nothing unproven ever has the final key; whatever breaks
aborts it.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, wait

from lfs.errors import Damaged, LfsError
from lfs.s3.bucket import Bucket, told
from lfs.s3.gathering import Gathered, Memory
from lfs.s3.parts import S3Parts
from lfs.store import PIECE, Judge, Verified

# Two on their way and one being gathered: 24 MiB of memory for one object, whatever its size up to 80 GiB.
PART = 8 << 20
IN_FLIGHT = 2
# A multipart upload has no more, so larger objects take larger parts.
MAX_PARTS = 10_000
# Amazon copies at most this much in one request.
COPY_LIMIT = 5 << 30

Tags = list[tuple[int, str]]


class Writer:
    """Sends one object by `parts`; `pool` is shared by all writers of a shelf."""

    def __init__(self, parts: S3Parts, memory: Memory, pool: Executor) -> None:
        self._parts, self._memory, self._pool = parts, memory, pool
        self._flights: deque[tuple[int, Future[str]]] = deque()
        self._tags: Tags = []

    def write(self, key: str, source: Iterator[bytes], size: int, judge: Judge, there: Callable[[], bool]) -> Verified:
        """Send `size` bytes and join them when they are the announced ones, unless the key is `there` by then."""
        with aborting(self._parts), self._landing():
            self._parts.begin()
            for number, gathered in enumerate(_cut(source, size, self._memory, judge), start=1):
                self._send(number, gathered)
            verified = judge.verdict(key)
            self._land(0)
            if there():
                self._parts.abort()
            elif (found := self._parts.finish(self._tags).size) != size:
                raise Damaged(f"{key} is stored with {found} bytes, not {size}; run `weightroom fsck`.")
        return verified

    def _send(self, number: int, gathered: Gathered) -> None:
        try:
            self._land(IN_FLIGHT - 1)
        except BaseException:
            gathered.close()
            raise
        flight = self._pool.submit(self._parts.put_gathered, number, gathered)
        # Also when it fails, or is called off before it left.
        flight.add_done_callback(lambda _: gathered.close())
        self._flights.append((number, flight))

    def _land(self, left: int) -> None:
        while len(self._flights) > left:
            number, flight = self._flights.popleft()
            self._tags.append((number, flight.result()))

    @contextlib.contextmanager
    def _landing(self) -> Iterator[None]:
        """Leave no part on its way: one that arrives after the abort would stay in the bucket for ever."""
        try:
            yield
        finally:
            for _, flight in self._flights:
                flight.cancel()
            wait([flight for _, flight in self._flights])


def part_size_for(size: int) -> int:
    """Return the size of parts for an object: whole mebibytes, and no more parts than a bucket takes."""
    return max(PART, -(-size // MAX_PARTS // PIECE) * PIECE)


def copy_parts(bucket: Bucket, parts: S3Parts, source: str, key: str, size: int) -> None:
    """Copy inside the bucket what is too large for one request."""
    origin, tags = bucket.at(source), []
    with aborting(parts):
        session = parts.begin()
        for number, start in enumerate(range(0, size, COPY_LIMIT), start=1):
            asked = {
                "UploadId": session,
                "PartNumber": number,
                "CopySource": origin,
                "CopySourceRange": f"bytes={start}-{min(start + COPY_LIMIT, size) - 1}",
            }
            with told(source):
                copied = bucket.client.upload_part_copy(**bucket.at(key), **asked)
            tags.append((number, str(copied["CopyPartResult"]["ETag"])))
        parts.finish(tags)


@contextlib.contextmanager
def aborting(parts: S3Parts) -> Iterator[None]:
    """Drop the upload if what follows fails, without hiding why; what stays all the same is swept later."""
    try:
        yield
    except BaseException:
        # Without a session all uploads to the key would go, and others may be sending the same object.
        if parts.session:
            with contextlib.suppress(LfsError):
                parts.abort()
        raise


def _cut(source: Iterator[bytes], size: int, memory: Memory, judge: Judge) -> Iterator[Gathered]:
    """Cut a stream of `size` bytes into parts of equal size, the last one shorter; whoever gets one closes it."""
    part_size, left = part_size_for(size), size
    part: Gathered | None = None
    try:
        for piece in source:
            judge.feed(piece)
            view = memoryview(piece)
            while view:
                # Not before there is a byte for it: while one part waits to be sent, no other takes its room.
                part = part or Gathered(memory, min(part_size, left))
                taken = min(part.room, len(view))
                part.add(view[:taken])
                view = view[taken:]
                if not part.room:
                    left -= part.size
                    full, part = part, None
                    yield full
    finally:
        if part:
            part.close()
