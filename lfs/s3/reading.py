"""Bytes out of a bucket: one version, whole, going on after a broken connection."""

from __future__ import annotations

import re
from typing import Any

from lfs.errors import Damaged, RangeUnsatisfiable, Unavailable
from lfs.s3.bucket import TRIES, Bucket, said, told
from lfs.store import Reader, Span

# Bytes that a line must bring before its earlier failures are forgotten.
ENOUGH = 256 << 10

_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


class BucketReader(Reader):
    """Reads one version; a broken or short body is asked for again from where it stopped."""

    def __init__(self, bucket: Bucket, key: str, span: Span | None) -> None:
        self._bucket, self._key, self._etag, self._body = bucket, key, "", None
        if span is not None and span.size == 0:
            super().__init__(0)
            return
        answer = self._get(span)
        self._span = _span_of(answer, span)
        super().__init__(self._span.size)
        self._etag, self._body, self._failures = said(answer, "ETag"), answer["Body"], 0
        # Bytes since the last failure.
        self._came = 0

    def _get(self, span: Span | None) -> Any:
        asked = self._bucket.at(self._key)
        if span is not None:
            asked["Range"] = f"bytes={span.start}-{span.end - 1}"
        if self._etag:
            asked["IfMatch"] = self._etag
        with told(self._key):
            return self._bucket.client.get_object(**asked)

    def _piece(self, limit: int) -> bytes:
        while True:
            try:
                with told(self._key):
                    piece: bytes = self._body.read(limit) if self._body else b""
                if piece:
                    self._came += len(piece)
                    # A line that never brings more than a few bytes is no line.
                    if self._came >= ENOUGH:
                        self._failures = 0
                    return piece
                raise Unavailable(f"The bucket ended {self._left} bytes early: {self._key}; try again.")
            except Unavailable:
                self._failures, self._came = self._failures + 1, 0
                if self._failures >= TRIES:
                    raise
                self._reopen()

    def _reopen(self) -> None:
        self.close()
        rest = Span(self._span.end - self._left, self._span.end)
        answer = self._get(rest)
        _span_of(answer, rest)
        # Not every server honours If-Match, so the tag is compared here too.
        if said(answer, "ETag") != self._etag:
            raise Damaged(f"{self._key} changed while it was read; run `weightroom fsck --read-data`.")
        self._body = answer["Body"]

    def close(self) -> None:
        """Let go of the connection; may be repeated."""
        if self._body is not None:
            self._body.close()
            self._body = None


def _span_of(answer: Any, asked: Span | None) -> Span:
    """Return which bytes an answer carries, and insist that they are the ones asked for."""
    if asked is None:
        return Span(0, answer["ContentLength"])
    # The status does not tell: rclone answers a range with 200 and a Content-Range.
    found = _CONTENT_RANGE.fullmatch(answer.get("ContentRange", ""))
    if found is None:
        if asked == Span(0, answer["ContentLength"]):
            return asked
        raise Unavailable("The bucket ignores ranges, which this server needs; use another storage server.")
    start, last, total = map(int, found.groups())
    if total < asked.end:
        raise RangeUnsatisfiable(f"Bytes {asked.start} to {asked.end} are not within {total} bytes.", size=total)
    if Span(start, last + 1) != asked:
        raise Unavailable(f"The bucket answered bytes {start}-{last} for {asked.start}-{asked.end - 1}.")
    return asked
