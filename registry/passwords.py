"""Passwords as argon2id hashes; at most two are worked on at a time, for each takes 64 MiB."""

from __future__ import annotations

import threading

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from registry.errors import BadBody

SHORTEST = 12
LONGEST = 1024

_hasher = PasswordHasher(time_cost=3, memory_cost=64 * 1024, parallelism=4)
_slots = threading.BoundedSemaphore(2)


def hash_password(password: str) -> str:
    """Hash a password with a fresh salt; takes about 0.3 s of CPU by design.

    Raises: BadBody (too short or too long).
    """
    if not SHORTEST <= len(password) <= LONGEST:
        raise BadBody(f"A password has {SHORTEST} to {LONGEST} characters; choose another.")
    with _slots:
        return _hasher.hash(password)


def fits(password: str, hashed: str) -> bool:
    """Tell whether a password is the one that was hashed."""
    with _slots:
        try:
            return _hasher.verify(hashed, password)
        except (VerificationError, InvalidHashError):
            return False
