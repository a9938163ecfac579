"""Signed leave to move one object, for minutes.

    u8 version · u8 key id · u8 op · u64 repo · 32 B oid · u64 size · u64 expiry · u64 actor · 16 B upload · 32 B HMAC

base64url without padding, big-endian; HMAC-SHA-256 under a key that HKDF derives from the server secret. The key id is
a byte derived with it, so several processes and a rotation need no numbering. A grant is leave to *start*: its expiry
is compared when a request arrives, never in the middle of a transfer.
"""

from __future__ import annotations

import binascii
import hmac
import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from lfs.errors import GrantInvalid

Op = Literal["get", "put", "verify", "part", "complete", "tus"]

_VERSION = 1
_OPS: tuple[Op, ...] = ("get", "put", "verify", "part", "complete", "tus")
_CLAIM = struct.Struct(">BBBQ32sQQQ16s")
_MAC = 32
_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Grant:
    """Leave for one act on one object of one repo.

    `expires` is in Unix seconds; `actor_id` 0 is nobody; `upload` is 32 hex digits, empty for none.
    """

    op: Op
    repo_id: int
    oid: str
    size: int
    expires: int
    actor_id: int = 0
    upload: str = ""


class Grants:
    """Signs with the first secret, accepts all; at most two live at once, so that one can be rotated."""

    def __init__(self, secrets: Sequence[bytes], clock: Callable[[], float]) -> None:
        self._keys = [_derived(secret) for secret in secrets]
        self._clock = clock

    def issue(self, grant: Grant) -> str:
        """Return the text of a grant, for a URL."""
        kid, key = self._keys[0]
        claim = _CLAIM.pack(
            _VERSION,
            kid,
            _OPS.index(grant.op),
            grant.repo_id,
            bytes.fromhex(grant.oid),
            grant.size,
            grant.expires,
            grant.actor_id,
            bytes.fromhex(grant.upload or "0" * 32),
        )
        return urlsafe_b64encode(claim + _mac(key, claim)).rstrip(b"=").decode()

    def read(self, text: str, op: Op, oid: str) -> Grant:
        """Return a grant that we signed for this act on this object, in time. Raises: GrantInvalid."""
        grant = self._signed(text)
        if (grant.op, grant.oid) != (op, oid):
            raise GrantInvalid("This link was made for another act or object; use it as it was given.")
        return grant

    def read_for(self, text: str, op: Op, upload: str) -> Grant:
        """Return a grant that we signed for this act on this upload, in time. Raises: GrantInvalid."""
        grant = self._signed(text)
        if (grant.op, grant.upload or None) != (op, upload):
            raise GrantInvalid("This link was made for another act or upload; use it as it was given.")
        return grant

    def until(self, seconds: int) -> int:
        """Return the expiry of a grant that lives for `seconds`."""
        return int(self._clock()) + seconds

    def _signed(self, text: str) -> Grant:
        claim, mac = _split(text)
        if not any(claim[1] == kid and hmac.compare_digest(_mac(key, claim), mac) for kid, key in self._keys):
            raise GrantInvalid("This link was not made by this server, or its key was rotated; ask for a new one.")
        grant = _unpacked(claim)
        if grant.expires < self._clock():
            raise GrantInvalid("This link has expired; ask for a new one.")
        return grant


def brief(size: int) -> int:
    """Return how long leave to get or put lives, in seconds: clients ask again when it runs out."""
    return 6 * _HOUR if size > _GIB else 15 * _MINUTE


def lasting(size: int) -> int:
    """Return how long leave that is used at the *end* of a transfer lives, in seconds: no client renews it."""
    return min(max(_DAY, size >> 20), 7 * _DAY)


def _split(text: str) -> tuple[bytes, bytes]:
    try:
        raw = urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
    except (UnicodeEncodeError, binascii.Error) as error:
        raise GrantInvalid("This link is broken; use it as it was given.") from error
    if len(raw) != _CLAIM.size + _MAC or raw[0] != _VERSION:
        raise GrantInvalid("This link is broken; use it as it was given.")
    return raw[: _CLAIM.size], raw[_CLAIM.size :]


def _mac(key: bytes, claim: bytes) -> bytes:
    # `hmac.digest` lets other threads run meanwhile, and among busy ones it is then the event loop that waits.
    return hmac.new(key, claim, "sha256").digest()


def _unpacked(claim: bytes) -> Grant:
    _, _, op, repo_id, oid, size, expires, actor_id, upload = _CLAIM.unpack(claim)
    return Grant(_OPS[op], repo_id, oid.hex(), size, expires, actor_id, upload.hex() if any(upload) else "")


def _derived(secret: bytes) -> tuple[int, bytes]:
    """HKDF-SHA-256 (RFC 5869) with an empty salt: one block for the key, the next one's first byte as its id."""
    seed = hmac.digest(bytes(32), secret, "sha256")
    key = hmac.digest(seed, b"weightroom lfs grant\x01", "sha256")
    return hmac.digest(seed, key + b"weightroom lfs grant\x02", "sha256")[0], key
