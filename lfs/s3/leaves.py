"""URLs that clients may use themselves, for minutes and for one thing each.

What a URL binds is signed as headers: the client sends exactly these, or the bucket refuses it. A digest is only
signed where the bucket was found to hold the body against it, since some ignore what they do not know.
"""

from __future__ import annotations

from base64 import b64encode

from lfs.presign import LONGEST_SECONDS, Address, Signer
from lfs.s3.bucket import Bucket
from lfs.store import Enforced, Signed, Span

# Amazon takes at most this much in one PUT.
PUT_LIMIT = 5 << 30

OCTETS = "application/octet-stream"


class Leaves:
    """Signs for the address under which clients reach the bucket; `enforces` is what they may rely on."""

    def __init__(self, bucket: Bucket) -> None:
        place = bucket.place
        self._prefix, self.enforces = bucket.prefix, _NOTHING
        self.address = Address.of(place.public or bucket.endpoint, place.bucket, virtual=place.style == "virtual")
        self.signer = Signer(bucket.credentials, place.region)

    def get(self, key: str, seconds: int, span: Span | None) -> Signed:
        """Sign a GET of an object, or of one range of it, answered as bytes to keep and never as a page."""
        headers = {"range": f"bytes={span.start}-{span.end - 1}"} if span else {}
        query = {"response-content-type": OCTETS, "response-content-disposition": "attachment"}
        return Signed(self._url("GET", key, seconds, query, headers), headers)

    def put(self, key: str, seconds: int, size: int, sha256: str | None) -> Signed | None:
        """Sign a PUT of `size` bytes that hash to `sha256`, as far as the bucket holds a client to it, or None."""
        if size > PUT_LIMIT or (sha256 is not None and self.enforces == _NOTHING):
            return None
        headers = {"content-type": OCTETS, **digest_headers(self.enforces, sha256)}
        # Every client computes the length itself; one that sent it twice would be refused.
        return Signed(self._url("PUT", key, seconds, {}, {**headers, "content-length": str(size)}), headers)

    def part(self, key: str, seconds: int, number: int, session: str, size: int) -> Signed:
        """Sign a PUT of one part; clients of this kind send no header of ours, so only the length is bound."""
        query = {"partNumber": str(number), "uploadId": session}
        return Signed(self._url("PUT", key, seconds, query, {"content-length": str(size)}), {})

    def _url(self, method: str, key: str, seconds: int, query: dict[str, str], headers: dict[str, str]) -> str:
        bounded = max(1, min(seconds, LONGEST_SECONDS))
        return self.signer.url(method, self.address, self._prefix + key, seconds=bounded, query=query, headers=headers)


_NOTHING: Enforced = "none"


def digest_headers(enforces: Enforced, sha256: str | None) -> dict[str, str]:
    """Return the header by which a client lets itself be held to a digest."""
    if sha256 is None or enforces == _NOTHING:
        return {}
    if enforces == "content_sha256":
        return {"x-amz-content-sha256": sha256}
    return {"x-amz-checksum-sha256": b64encode(bytes.fromhex(sha256)).decode()}
