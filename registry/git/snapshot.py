"""What one request reads of a repo: refs, default branch and pack list of one instant.

Taken in one read transaction; nothing below it asks the database again, so no request sees a ref without its pack.
Refs are `bytes`, object ids 40 lower-case hex `str`, file digests (SHA-256) 64 lower-case hex `str`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

ZERO = "0" * 40
"""Stands for "no object" in ref updates."""


@dataclass(frozen=True, slots=True)
class PackRow:
    """An immutable pack and its two companions, each stored under `pack_key` of its own SHA-256."""

    id: str
    """SHA-256 of the pack file."""
    bytes: int
    objects: int
    commits: int
    idx_oid: str
    idx_bytes: int
    intro_oid: str
    intro_bytes: int


@dataclass(frozen=True, slots=True)
class Ref:
    """A ref row; `peeled` is the object an annotated tag finally names, else None."""

    name: bytes
    target: str
    peeled: str | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One repo at one instant. `refs` holds every ref in byte order of names; hidden ones are left to the reader."""

    repo_id: int
    head: bytes
    """Full ref name that HEAD points to, existing or not."""
    refs: Mapping[bytes, Ref]
    refs_version: int
    manifest_version: int
    gc_epoch: int
    closure_tips: str | None
    """`tips_digest` of the visible refs whose closure the packs hold exactly; None if unknown."""
    packs: tuple[PackRow, ...]


def pack_key(sha256: str) -> str:
    """Name the store key of a pack, index or introduced sidecar."""
    return f"git/{sha256[:2]}/{sha256[2:4]}/{sha256}"


def visible(name: bytes) -> bool:
    """True if a ref is shown to clients; our own bookkeeping refs are not."""
    return not name.startswith((b"refs/weightroom/", b"refs/internal/"))


def tips_digest(refs: Mapping[bytes, Ref]) -> str:
    """Digest the set of objects that visible refs point to: equal sets, equal digest."""
    tips = sorted({ref.target for name, ref in refs.items() if visible(name)})
    return hashlib.sha256("\n".join(tips).encode()).hexdigest()
