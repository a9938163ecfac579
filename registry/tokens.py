"""Tokens: made, checked for typing errors, and hashed for storage; pure.

    hf_ ‹34 base62: 202 random bits› ‹6 base62: CRC-32 of all before›

The prefix is fixed by clients: JavaScript ones refuse any other, llama.cpp sends none that is not
`hf_[A-Za-z0-9]{34,253}`. The checksum refuses a typing error without asking the database.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import zlib

_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_SHAPE = re.compile(r"hf_[0-9A-Za-z]{40}\Z")


def mint() -> str:
    """Make a new token from the system's randomness."""
    body = "hf_" + "".join(secrets.choice(_ALPHABET) for _ in range(34))
    return body + _checksum(body)


def plausible(token: str) -> bool:
    """True if the text has a token's shape and checksum; says nothing about its being known."""
    return bool(_SHAPE.match(token)) and secrets.compare_digest(_checksum(token[:-6]), token[-6:])


def digest(token: str) -> str:
    """Hash a token for storage and look-up: SHA-256, 64 hex."""
    return hashlib.sha256(token.encode()).hexdigest()


def _checksum(body: str) -> str:
    value = zlib.crc32(body.encode())
    digits = ""
    for _ in range(6):
        value, place = divmod(value, 62)
        digits = _ALPHABET[place] + digits
    return digits
