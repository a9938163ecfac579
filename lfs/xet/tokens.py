"""Xet access tokens, and signed URLs that open one range of one stored object.

    token   xet_ base64url(claim) . base64url(HMAC)
    claim   u8 version · u8 scope · u64 repo · u64 actor · u64 token of the Hub · u64 expiry · 16 B domain
    blob    r=START-END&exp=SECONDS&sig=HEX over "blob", key, range and expiry

HMAC-SHA-256 under a key that is derived from the server secret for this use alone. A token carries no right of its
own: whoever presents it is looked up again at each request.
"""

from __future__ import annotations

import binascii
import hmac
import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Sequence

from lfs.errors import BadToken, GrantInvalid
from lfs.store import Span
from lfs.xet.index import Leave, Scope

LIFETIME = 15 * 60
"""Seconds for which a token or URL lives; clients renew a token when less than half a minute is left."""

_PREFIX, _VERSION = "xet_", 2
_CLAIM = struct.Struct(">BBQQQQ16s")
_SCOPES: tuple[Scope, ...] = ("read", "write")


class XetTokens:
    """Signs with the first secret, accepts all; `clock` tells Unix seconds."""

    def __init__(self, secrets: Sequence[bytes], clock: Callable[[], float]) -> None:
        self._keys = [hmac.digest(secret, b"weightroom xet token\x01", "sha256") for secret in secrets]
        self._clock = clock

    def until(self, seconds: int = LIFETIME) -> int:
        """Return the expiry of what lives for `seconds`."""
        return int(self._clock()) + seconds

    def issue(self, leave: Leave) -> str:
        """Return the text of a token; a domain is 32 hex digits."""
        claim = _CLAIM.pack(
            _VERSION,
            _SCOPES.index(leave.scope),
            leave.repo_id,
            leave.actor_id,
            leave.token_id,
            leave.expires,
            bytes.fromhex(leave.domain),
        )
        return f"{_PREFIX}{_text(claim)}.{_text(_mac(self._keys[0], claim))}"

    def read(self, text: str) -> Leave:
        """Return what a token of ours says, in time. Raises: BadToken."""
        claim, mac = _split(text)
        if not any(hmac.compare_digest(_mac(key, claim), mac) for key in self._keys):
            raise BadToken("This Xet token was not made by this server; ask for a new one.")
        version, scope, repo_id, actor_id, token_id, expires, domain = _CLAIM.unpack(claim)
        if version != _VERSION or scope >= len(_SCOPES) or expires < self._clock():
            raise BadToken("This Xet token has expired; ask for a new one.")
        return Leave(repo_id, actor_id, domain.hex(), _SCOPES[scope], expires, token_id)

    def sign(self, key: str, span: Span) -> str:
        """Return the query that opens these bytes of an object, for a while."""
        expires = self.until()
        return f"r={span.start}-{span.end - 1}&exp={expires}&sig={_blob_mac(self._keys[0], key, span, expires)}"

    def check(self, key: str, span: Span, expires: int, signature: str) -> None:
        """Look whether we signed leave for just these bytes, in time. Raises: GrantInvalid."""
        told = signature.encode(errors="replace")
        good = any(hmac.compare_digest(_blob_mac(each, key, span, expires).encode(), told) for each in self._keys)
        if not good or expires < self._clock():
            raise GrantInvalid("This link has expired or was made for other bytes; ask for the reconstruction again.")


def _split(text: str) -> tuple[bytes, bytes]:
    claim, _, mac = text.removeprefix(_PREFIX).partition(".")
    try:
        found = _raw(claim), _raw(mac)
    except (UnicodeEncodeError, binascii.Error) as error:
        raise BadToken("This is no Xet token; use it as it was given.") from error
    if not text.startswith(_PREFIX) or len(found[0]) != _CLAIM.size:
        raise BadToken("This is no Xet token; use it as it was given.")
    return found


def _text(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def _raw(text: str) -> bytes:
    return urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))


def _mac(key: bytes, claim: bytes) -> bytes:
    return hmac.new(key, claim, "sha256").digest()


def _blob_mac(key: bytes, name: str, span: Span, expires: int) -> str:
    return hmac.new(key, f"blob\n{name}\n{span.start}-{span.end}\n{expires}".encode(), "sha256").hexdigest()
