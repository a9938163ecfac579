"""A shelf in a bucket: Amazon S3 or a server that speaks like it.

A write streams through a multipart upload and is completed only when size and hash agreed, so nothing unproven ever
has the final key. Reads go on after a broken connection, on the same version of the object. No step needs conditional
requests or a listing that is up to date. Every call may be repeated: a lost answer to a success is the normal case.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

from lfs.errors import Damaged, Denied, LfsError, Missing, NoSpace, RangeUnsatisfiable, Unavailable
from lfs.store import PIECE, Judge, Reader, Signed, Source, Span, Stat, Verified, check_key, check_span, pieces

# Parts of a write through the server; 10,000 of them bound an object to 160 GiB, so larger ones take larger parts.
PART = 16 << 20
MAX_PARTS = 10_000
# Amazon copies at most this much in one request.
COPY_LIMIT = 5 << 30
TRIES = 3

_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


def connect(
    endpoint: str | None, region: str | None, style: str, access_key: str | None, secret_key: str | None
) -> Any:
    """Return a boto3 client whose calls end within bounds; keys of None leave it to boto3's own chain."""
    import boto3
    from botocore.config import Config

    config = Config(
        signature_version="s3v4",
        s3={"addressing_style": style},
        connect_timeout=5,
        read_timeout=30,
        retries={"mode": "standard", "total_max_attempts": TRIES},
        max_pool_connections=64,
        tcp_keepalive=True,
        # Since 1.36 the defaults add CRC32 trailers that other servers than Amazon's refuse or mis-answer.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    return boto3.session.Session().client(
        "s3",
        endpoint_url=endpoint or None,
        region_name=region or "us-east-1",
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
        config=config,
    )


class S3Store:
    """An `ObjectStore` in `bucket`, under `prefix`. `style` is `path` or `virtual`; one client, shared by threads."""

    def __init__(
        self,
        *,
        bucket: str,
        prefix: str = "",
        endpoint: str | None = None,
        region: str | None = None,
        style: str = "path",
        access_key: str | None = None,
        secret_key: str | None = None,
    ) -> None:
        self._bucket, self._prefix = bucket, prefix.strip("/") + "/" if prefix.strip("/") else ""
        self._s3 = connect(endpoint, region, style, access_key, secret_key)

    def stat(self, key: str) -> Stat:
        """Say what lies under `key`."""
        with _told(key):
            found = self._s3.head_object(**self._at(key))
        return Stat(found["ContentLength"], found["ETag"], found["LastModified"])

    def open(self, key: str, span: Span | None = None) -> Reader:
        """Open the bytes under `key`; the first request is made here, so a missing key is told at once."""
        if span is not None and span.start >= span.end:
            check_span(span, self.stat(key).size)
            return _BucketReader(self._get, key, span)
        return _BucketReader(self._get, key, span)

    def put(self, key: str, source: Source, size: int, sha256: str | None = None) -> Verified:
        """Keep `size` bytes under `key`, hashing as they pass."""
        judge = Judge(size, sha256)
        if size <= PART:
            body = _gathered(pieces(source), judge)
            verified = judge.verdict(key)
            if not self._there(key, size):
                with _told(key):
                    self._s3.put_object(**self._at(key), Body=body, ContentType="application/octet-stream")
            return verified
        return self._put_parts(key, pieces(source), size, judge)

    def copy(self, source: str, key: str) -> Stat:
        """Give the bytes a second name inside the bucket, by parts above 5 GiB."""
        origin = {"Bucket": self._bucket, "Key": self._at(source)["Key"]}
        try:
            size = self.stat(source).size
        except Missing:
            return self.stat(key)
        if not self._there(key, size):
            with _told(key):
                if size <= COPY_LIMIT:
                    self._s3.copy_object(**self._at(key), CopySource=origin)
                else:
                    self._copy_parts(origin, key, size)
        return self.stat(key)

    def parts(self, key: str) -> S3Parts:
        """Begin, or go on with, an upload to `key` in parts."""
        return S3Parts(self._s3, self._at(key), lambda: self.stat(key))

    def url(
        self,
        key: str,
        method: Literal["GET", "PUT"],
        seconds: int,
        *,
        size: int | None = None,
        sha256: str | None = None,
        span: Span | None = None,
        part: int | None = None,
    ) -> Signed | None:
        """Sign a GET of the whole object; None for anything that would need more bound than that."""
        if method != "GET" or span is not None or part is not None:
            check_key(key)
            return None
        asked = {
            **self._at(key),
            "ResponseContentType": "application/octet-stream",
            "ResponseContentDisposition": "attachment",
        }
        href = self._s3.generate_presigned_url("get_object", Params=asked, ExpiresIn=min(seconds, 7 * 86400))
        return Signed(href, {})

    def delete(self, key: str) -> None:
        """Remove the bytes; absent is success."""
        try:
            with _told(key):
                self._s3.delete_object(**self._at(key))
        except Missing:
            return

    def walk(self, prefix: str = "", after: str = "") -> Iterator[str]:
        """Yield keys in byte order, a thousand to a request."""
        asked = {"Bucket": self._bucket, "Prefix": self._prefix + prefix}
        if after:
            asked["StartAfter"] = self._prefix + after
        with _told(prefix or "the bucket"):
            for page in self._s3.get_paginator("list_objects_v2").paginate(**asked):
                for entry in page.get("Contents", ()):
                    key = entry["Key"].removeprefix(self._prefix)
                    # Some servers start at `after` itself.
                    if key > after:
                        yield key

    def _at(self, key: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": self._prefix + check_key(key)}

    def _get(self, key: str, span: Span | None, etag: str) -> Any:
        asked = self._at(key)
        if span is not None:
            asked["Range"] = f"bytes={span.start}-{span.end - 1}"
        if etag:
            asked["IfMatch"] = etag
        with _told(key):
            return self._s3.get_object(**asked)

    def _there(self, key: str, size: int) -> bool:
        """Say whether the key holds an object of this size already. Raises: Damaged (of another size)."""
        try:
            there = self.stat(key).size
        except Missing:
            return False
        if there != size:
            raise Damaged(f"{key} is stored with {there} bytes, not {size}; run `weightroom fsck`.")
        return True

    def _put_parts(self, key: str, source: Iterator[bytes], size: int, judge: Judge) -> Verified:
        part_size = max(PART, -(-size // MAX_PARTS // PIECE) * PIECE)
        with _told(key):
            upload = self._s3.create_multipart_upload(**self._at(key), ContentType="application/octet-stream")
        parts = S3Parts(self._s3, self._at(key), lambda: self.stat(key), upload["UploadId"])
        try:
            sent = list(enumerate((parts.put(*part) for part in _numbered(source, part_size, judge)), start=1))
            verified = judge.verdict(key)
            if self._there(key, size):
                parts.abort()
            else:
                parts.finish(sent)
        except BaseException:
            _quietly(parts.abort)
            raise
        return verified

    def _copy_parts(self, origin: dict[str, str], key: str, size: int) -> None:
        upload = self._s3.create_multipart_upload(**self._at(key))["UploadId"]
        parts = S3Parts(self._s3, self._at(key), lambda: self.stat(key), upload)
        try:
            sent = []
            for number, start in enumerate(range(0, size, COPY_LIMIT), start=1):
                span = f"bytes={start}-{min(start + COPY_LIMIT, size) - 1}"
                asked = {"UploadId": upload, "PartNumber": number, "CopySource": origin, "CopySourceRange": span}
                copied = self._s3.upload_part_copy(**self._at(key), **asked)
                sent.append((number, copied["CopyPartResult"]["ETag"]))
            parts.finish(sent)
        except BaseException:
            _quietly(parts.abort)
            raise


class S3Parts:
    """A multipart upload of one key; without an upload id it finds the one that is open, or begins one."""

    def __init__(self, s3: Any, at: dict[str, str], stat: Callable[[], Stat], upload: str = "") -> None:
        self._s3, self._at, self._stat, self._upload = s3, at, stat, upload

    def put(self, number: int, source: Source) -> str:
        """Take part `number`; repeating it replaces it."""
        body = io.BytesIO(b"".join(pieces(source)))
        with _told(self._at["Key"]):
            upload = self._found() or self._begun()
            sent = self._s3.upload_part(**self._at, UploadId=upload, PartNumber=number, Body=body)
        return str(sent["ETag"])

    def finish(self, parts: Sequence[tuple[int, str]]) -> Stat:
        """Join the parts under the key; an upload that is gone counts as finished when the key is there."""
        listed = [{"PartNumber": number, "ETag": tag} for number, tag in parts]
        try:
            with _told(self._at["Key"]):
                upload = self._found()
                if upload:
                    asked = {"UploadId": upload, "MultipartUpload": {"Parts": listed}}
                    self._s3.complete_multipart_upload(**self._at, **asked)
        except Missing:
            self._upload = ""
        return self._stat()

    def abort(self) -> None:
        """Drop every part."""
        try:
            with _told(self._at["Key"]):
                if upload := self._found():
                    self._s3.abort_multipart_upload(**self._at, UploadId=upload)
        except Missing:
            pass
        self._upload = ""

    def _begun(self) -> str:
        begun = self._s3.create_multipart_upload(**self._at, ContentType="application/octet-stream")
        self._upload = str(begun["UploadId"])
        return self._upload

    def _found(self) -> str:
        if not self._upload:
            open_here = [each["UploadId"] for each in self._listed() if each["Key"] == self._at["Key"]]
            self._upload = min(open_here, default="")
        return self._upload

    def _listed(self) -> Sequence[dict[str, Any]]:
        try:
            with _told(self._at["Key"]):
                found = self._s3.list_multipart_uploads(Bucket=self._at["Bucket"], Prefix=self._at["Key"])
        except Missing:
            # rclone says so when the last open upload has just gone.
            return ()
        return list(found.get("Uploads", ()))


class _BucketReader(Reader):
    """Reads one version; a broken or short body is asked for again from where it stopped."""

    def __init__(self, get: Callable[[str, Span | None, str], Any], key: str, span: Span | None) -> None:
        self._get, self._key, self._etag, self._body = get, key, "", None
        if span is not None and span.size == 0:
            super().__init__(0)
            return
        answer = self._get(key, span, "")
        self._span = _span_of(answer, span)
        super().__init__(self._span.size)
        self._etag, self._body, self._failures = answer["ETag"], answer["Body"], 0

    def _piece(self, limit: int) -> bytes:
        while True:
            try:
                with _told(self._key):
                    piece: bytes = self._body.read(limit) if self._body else b""
                if piece:
                    self._failures = 0
                    return piece
                raise Unavailable(f"The bucket ended {self._left} bytes early: {self._key}; try again.")
            except Unavailable:
                self._failures += 1
                if self._failures >= TRIES:
                    raise
                self._reopen()

    def _reopen(self) -> None:
        self.close()
        rest = Span(self._span.end - self._left, self._span.end)
        answer = self._get(self._key, rest, self._etag)
        _span_of(answer, rest)
        # Not every server honours If-Match, so the tag is compared here too.
        if answer["ETag"] != self._etag:
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
    told = _CONTENT_RANGE.fullmatch(answer.get("ContentRange", ""))
    if told is None:
        if asked == Span(0, answer["ContentLength"]):
            return asked
        raise Unavailable("The bucket ignores ranges, which this server needs; use another storage server.")
    start, last, total = map(int, told.groups())
    if total < asked.end:
        raise RangeUnsatisfiable(f"Bytes {asked.start} to {asked.end} are not within {total} bytes.", size=total)
    if Span(start, last + 1) != asked:
        raise Unavailable(f"The bucket answered bytes {start}-{last} for {asked.start}-{asked.end - 1}.")
    return asked


def _gathered(source: Iterator[bytes], judge: Judge) -> bytes:
    gathered = []
    for piece in source:
        judge.feed(piece)
        gathered.append(piece)
    return b"".join(gathered)


def _numbered(source: Iterator[bytes], part_size: int, judge: Judge) -> Iterator[tuple[int, list[bytes]]]:
    """Cut a stream into numbered parts of exactly `part_size` bytes, the last one shorter."""
    number, part, room = 1, [], part_size
    for piece in source:
        judge.feed(piece)
        while piece:
            part.append(piece[:room])
            room, piece = room - len(part[-1]), piece[room:]
            if not room:
                yield number, part
                number, part, room = number + 1, [], part_size
    if part:
        yield number, part


def _quietly(act: Callable[[], None]) -> None:
    """Clean up after a failure without hiding it: what stays is aborted by the bucket's rule or by gc."""
    try:
        act()
    except LfsError:
        pass


@contextmanager
def _told(key: str) -> Iterator[None]:
    """Say what the bucket refused, in our words."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        raise _translated(error.response, key) from error
    except BotoCoreError as error:
        raise Unavailable(f"The bucket does not answer ({type(error).__name__}); try again.") from error


def _translated(response: Any, key: str) -> LfsError:
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    code = response.get("Error", {}).get("Code", "")
    if code == "NoSuchBucket":
        return Denied("The bucket does not exist; make it, or correct WEIGHTROOM_STORAGE.")
    if status == 404 or code in ("NoSuchKey", "NoSuchUpload", "InvalidPart", "404"):
        return Missing(f"Nothing is stored as {key}.")
    if status == 416 or code == "InvalidRange":
        return RangeUnsatisfiable(f"{key} does not have that range.", size=0)
    if code in ("QuotaExceeded", "XMinioStorageFull", "EntityTooLarge") or status == 507:
        return NoSpace(f"The bucket takes no more ({code}); free space, then send again.")
    if status == 412:
        return Damaged(f"{key} changed while it was read; run `weightroom fsck --read-data`.")
    if status == 501:
        return Denied(f"The bucket's server cannot do this ({code}); use another storage server.")
    if status in (401, 403):
        return Denied(f"The bucket refuses our keys ({code}); check S3_ACCESS_KEY, S3_SECRET_KEY and their rights.")
    return Unavailable(f"The bucket failed ({status} {code}); try again.")
