"""Uploads in parts: S3 calls them multipart uploads, and keeps the parts until they are joined or dropped."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from lfs.errors import BadKey, Missing, Unavailable
from lfs.s3.bucket import Bucket, said, told
from lfs.s3.gathering import Gathered, Memory
from lfs.s3.leaves import OCTETS, Leaves
from lfs.store import Part, Signed, Source, Stat, check_key


class S3Parts:
    """One upload to one key. Thread-safe; the session is the bucket's upload id."""

    def __init__(self, bucket: Bucket, leaves: Leaves, memory: Memory, key: str, session: str = "") -> None:
        self._bucket, self._leaves, self._memory = bucket, leaves, memory
        self._at, self._key, self._session = bucket.at(key), key, session
        self._beginning = threading.Lock()

    @property
    def session(self) -> str:
        """The bucket's upload id; empty until the upload is begun."""
        return self._session

    def begin(self) -> str:
        """Open the upload, if it is not open, and return its id."""
        with self._beginning:
            if not self._session:
                with told(self._key):
                    begun = self._bucket.client.create_multipart_upload(**self._at, ContentType=OCTETS)
                self._session = str(said(begun, "UploadId"))
            return self._session

    def url(self, number: int, size: int, seconds: int) -> Signed | None:
        """Sign leave to PUT part `number` of `size` bytes to the bucket itself."""
        return self._leaves.part(self._key, seconds, number, self.begin(), size)

    def put(self, number: int, source: Source, size: int) -> str:
        """Take part `number`; repeating it replaces it."""
        with Gathered(self._memory, size) as gathered:
            gathered.fill(source)
            return self.put_gathered(number, gathered)

    def put_gathered(self, number: int, gathered: Gathered) -> str:
        """Send a part that lies here whole."""
        asked = {"UploadId": self.begin(), "PartNumber": number, "ContentLength": gathered.size}
        with told(f"the upload of {self._key}"):
            sent = self._bucket.client.upload_part(**self._at, **asked, Body=gathered.body())
        return str(said(sent, "ETag"))

    def sent(self) -> Mapping[int, Part]:
        """Return the parts that the bucket holds, a thousand to a request; none of an upload that is over."""
        session = self._session or next(self._open_here(), "")
        if not session:
            return {}
        parts = {}
        try:
            with told(self._key):
                pages = self._bucket.client.get_paginator("list_parts").paginate(**self._at, UploadId=session)
                for page in pages:
                    for part in page.get("Parts", ()):
                        parts[part["PartNumber"]] = Part(part["ETag"], part["Size"])
        except Missing:
            return {}
        return parts

    def finish(self, parts: Sequence[tuple[int, str]]) -> Stat:
        """Join the parts under the key; an upload that is gone counts as finished when the key is there."""
        listed = [{"PartNumber": number, "ETag": tag} for number, tag in parts]
        session = self._session or next(self._open_here(), "")
        try:
            with told(f"a part of {self._key}"):
                if session:
                    asked = {"UploadId": session, "MultipartUpload": {"Parts": listed}}
                    self._bucket.client.complete_multipart_upload(**self._at, **asked)
        except (Missing, Unavailable) as error:
            # The answer to a success was lost, or another process was quicker: the key is this upload's own.
            try:
                return self._stat()
            except Missing:
                raise error from None
        return self._stat()

    def abort(self) -> None:
        """Drop every part; without a session, of all that were begun for this key and forgotten."""
        for session in [self._session] if self._session else list(self._open_here()):
            try:
                with told(self._key):
                    self._bucket.client.abort_multipart_upload(**self._at, UploadId=session)
            except Missing:
                pass
        self._session = ""

    def _stat(self) -> Stat:
        with told(self._key):
            found = self._bucket.client.head_object(**self._at)
        return Stat(*(said(found, name) for name in ("ContentLength", "ETag", "LastModified")))

    def _open_here(self) -> Iterator[str]:
        return (upload.session for upload in open_uploads(self._bucket, self._key) if upload.key == self._key)


@dataclass(frozen=True, slots=True)
class Open:
    """An upload that is under way."""

    key: str
    session: str
    begun: datetime


def open_uploads(bucket: Bucket, prefix: str = "") -> Iterator[Open]:
    """Yield the uploads under way whose keys start with `prefix`, as far as they are ours."""
    root, asked = bucket.prefix, {"Bucket": bucket.place.bucket, "Prefix": bucket.prefix + prefix}
    try:
        with told(prefix or "the bucket"):
            for page in bucket.client.get_paginator("list_multipart_uploads").paginate(**asked):
                for upload in page.get("Uploads", ()):
                    key = upload["Key"].removeprefix(root)
                    # Without a prefix of our own the bucket may serve others too.
                    if _ours(key):
                        yield Open(key, upload["UploadId"], upload["Initiated"])
    except Missing:
        # rclone says so when the last open upload has just gone.
        return


def _ours(key: str) -> bool:
    try:
        check_key(key)
    except BadKey:
        return False
    return True
