"""Whether the bytes under a key are the ones that they should be, and room for better ones where they are not.

A shelf that does not answer proves nothing: `Unavailable` and `Denied` are raised, never taken for damage.
"""

from __future__ import annotations

import hashlib

from lfs.errors import Damaged, Missing
from lfs.store import ObjectStore

ASIDE = "bad0" * 8
"""Ends the key of an LFS object's bytes that were set aside as bad: in the place of an upload that never was, so that
they are swept like those of one that failed."""


def digest(store: ObjectStore, key: str) -> str:
    """Read all bytes under a key and hash them. Raises: Missing, Damaged (cut short), Denied, Unavailable."""
    found = hashlib.sha256()
    with store.open(key) as reader:
        for piece in reader:
            found.update(piece)
    return found.hexdigest()


def flaw(store: ObjectStore, key: str, sha256: str, size: int | None = None, *, read: bool = True) -> str:
    """Say what is wrong with the bytes under a key; empty if nothing is, as far as was looked.

    `size` None takes any; with `read` every byte is read and hashed. Raises: Denied, Unavailable.
    """
    try:
        found = store.stat(key).size
        if size is not None and found != size:
            return f"has {found} bytes under {key}, its row says {size}"
        if read and digest(store, key) != sha256:
            return f"has other bytes under {key} than its hash says"
    except Missing:
        return f"is missing: nothing lies under {key}"
    except Damaged as error:
        return f"cannot be read to its end under {key}: {error.message}"
    return ""


def clear(store: ObjectStore, key: str, sha256: str) -> bool:
    """Remove what lies under a key if it hashes to something else, so that the right bytes can be put; True if it went.

    A put leaves an existing key alone. Between this and the put a reader finds nothing where it would have found
    damage. The tag is compared once more at the end: two who heal at one time must not take each other's bytes.
    Raises: Denied, Unavailable.
    """
    try:
        before = store.stat(key).etag
        if not flaw(store, key, sha256):
            return False
        if store.stat(key).etag != before:
            return False
    except Missing:
        return False
    store.delete(key)
    return True
