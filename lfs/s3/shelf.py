"""The `ObjectStore` in a bucket.

Nothing unproven ever has its final key. No step needs conditional requests or a listing that is up to date.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Literal

from lfs.errors import Damaged, Missing
from lfs.s3.bucket import Bucket, Patience, Place, said, told
from lfs.s3.gathering import Gathered, Memory
from lfs.s3.leaves import OCTETS, Leaves
from lfs.s3.parts import S3Parts, open_uploads
from lfs.s3.probing import Prober
from lfs.s3.reading import BucketReader
from lfs.s3.writing import COPY_LIMIT, PART, Writer, copy_parts
from lfs.store import Judge, Probe, Reader, Signed, Source, Span, Stat, Verified, check_key, check_span, pieces

# Of all writers together: one upload has its parts in memory, those of others go by way of files. Eight at once on
# Ceph took as long that way, and 25 MiB less than with twice the room.
MEMORY = 24 << 20
# Parts on their way at one moment.
SENDERS = 8


class S3Store:
    """An `ObjectStore` in the bucket at `place`; one client, shared by threads, made after any fork.

    `memory` is in bytes: what all writers together gather before they go by way of files.
    """

    def __init__(self, place: Place, patience: Patience | None = None, *, memory: int = MEMORY) -> None:
        self._bucket = Bucket(place, patience or Patience())
        self._leaves = Leaves(self._bucket)
        self._memory = Memory(memory)
        self._pool = ThreadPoolExecutor(SENDERS, "bucket")

    @property
    def waits(self) -> bool:
        """Say that puts wait, for the network."""
        return True

    def stat(self, key: str) -> Stat:
        """Say what lies under `key`."""
        asked = self._bucket.at(key)
        with told(key):
            found = self._bucket.client.head_object(**asked)
        return Stat(*(said(found, name) for name in ("ContentLength", "ETag", "LastModified")))

    def open(self, key: str, span: Span | None = None) -> Reader:
        """Open the bytes under `key`; the first request is made here, so a missing key is told at once."""
        if span is not None and span.start >= span.end:
            check_span(span, self.stat(key).size)
        return BucketReader(self._bucket, key, span)

    def put(self, key: str, source: Source, size: int, sha256: str | None = None) -> Verified:
        """Keep `size` bytes under `key`, hashing as they pass."""
        judge = Judge(size, sha256)
        if size > PART:
            parts = self.parts(key, PART)
            return Writer(parts, self._memory, self._pool).write(
                key, pieces(source), size, judge, lambda: self._there(key, size)
            )
        asked = self._bucket.at(key)
        with Gathered(self._memory, size) as gathered:
            for piece in pieces(source):
                judge.feed(piece)
                gathered.add(piece)
            verified = judge.verdict(key)
            if not self._there(key, size):
                with told(key):
                    sent = self._bucket.client.put_object(**asked, Body=gathered.body(), ContentType=OCTETS)
                said(sent, "ETag")
        return verified

    def copy(self, source: str, key: str) -> Stat:
        """Give the bytes a second name inside the bucket, by parts above 5 GiB."""
        asked = self._bucket.at(key)
        try:
            size = self.stat(source).size
        except Missing:
            return self.stat(key)
        if not self._there(key, size):
            if size > COPY_LIMIT:
                copy_parts(self._bucket, self.parts(key, COPY_LIMIT), source, key, size)
            else:
                with told(source):
                    self._bucket.client.copy_object(**asked, CopySource=self._bucket.at(source))
        return self.stat(key)

    def parts(self, key: str, part_size: int, session: str = "") -> S3Parts:
        """Return an upload to `key` in parts, or one to go on with."""
        return S3Parts(self._bucket, self._leaves, self._memory, key, session)

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
        """Sign a GET of an object or of a span of it, or a PUT that binds `size`, and `sha256` where that holds."""
        check_key(key)
        if method == "GET":
            return self._leaves.get(key, seconds, span)
        return None if size is None or span is not None else self._leaves.put(key, seconds, size, sha256)

    def delete(self, key: str) -> None:
        """Remove the bytes; absent is success."""
        asked = self._bucket.at(key)
        try:
            with told(key):
                self._bucket.client.delete_object(**asked)
        except Missing:
            return

    def walk(self, prefix: str = "", after: str = "") -> Iterator[str]:
        """Yield keys in byte order, a thousand to a request."""
        root = self._bucket.prefix
        asked = {"Bucket": self._bucket.place.bucket, "Prefix": root + prefix}
        if after:
            asked["StartAfter"] = root + after
        with told(prefix or "the bucket"):
            for page in self._bucket.client.get_paginator("list_objects_v2").paginate(**asked):
                for entry in page.get("Contents", ()):
                    key = entry["Key"].removeprefix(root)
                    # Some servers start at `after` itself.
                    if key > after:
                        yield key

    def sweep(self, seconds: float) -> int:
        """Drop uploads in parts that were begun more than `seconds` ago and never joined."""
        oldest = datetime.now(UTC) - timedelta(seconds=seconds)
        # Listed first: pages that shrink while they are read would lose some.
        old = [upload for upload in open_uploads(self._bucket) if upload.begun < oldest]
        for upload in old:
            self.parts(upload.key, PART, upload.session).abort()
        return len(old)

    def probe(self) -> Probe:
        """Find out, by trying, what the bucket enforces; leaves nothing behind."""
        return Prober(self, self._bucket, self._leaves).probe()

    def believe(self, probe: Probe) -> None:
        """Sign uploads as this finding allows."""
        self._leaves.enforces = probe.enforces

    def _there(self, key: str, size: int) -> bool:
        """Say whether the key holds an object of this size already. Raises: Damaged (of another size)."""
        try:
            there = self.stat(key).size
        except Missing:
            return False
        if there != size:
            raise Damaged(f"{key} is stored with {there} bytes, not {size}; run `weightroom fsck`.")
        return True
