"""Pointer text ↔ `Pointer`: what git keeps in place of a large file.

    version https://git-lfs.github.com/spec/v1
    ext-0-name sha256:<64 hex>          at most ten, sorted, rare
    oid sha256:<64 hex>
    size <bytes>

Source: git-lfs docs/spec.md, "The Pointer".
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MAX_BYTES = 1024
MAX_SIZE = (1 << 63) - 1
VERSION = b"version https://git-lfs.github.com/spec/v1\n"

_TEXT = re.compile(
    re.escape(VERSION) + rb"((?:ext-[0-9]-[A-Za-z0-9_-]+ sha256:[0-9a-f]{64}\n)*)"
    rb"oid sha256:([0-9a-f]{64})\nsize (0|[1-9][0-9]{0,18})\n"
)


@dataclass(frozen=True, slots=True)
class Pointer:
    """A large file by its SHA-256 (64 hex digits) and size in bytes; `extensions` as `(ext-N-name, oid)` lines."""

    oid: str
    size: int
    extensions: tuple[tuple[str, str], ...] = ()


def parse(blob: bytes) -> Pointer | None:
    """Return what a blob points to, or None if it is a file like any other.

    Strict: a text that git-lfs would write, byte for byte. Never raises.
    """
    if len(blob) > MAX_BYTES or not blob.startswith(VERSION):
        return None
    found = _TEXT.fullmatch(blob)
    if found is None or int(found[3]) > MAX_SIZE:
        return None
    lines = [line.split(" sha256:") for line in found[1].decode().splitlines()]
    numbers = [name[:5] for name, _ in lines]
    if numbers != sorted(set(numbers)):
        return None
    return Pointer(found[2].decode(), int(found[3]), tuple((name, oid) for name, oid in lines))


def canonical(pointer: Pointer) -> bytes:
    """Write the one text of a pointer."""
    lines = "".join(f"{name} sha256:{oid}\n" for name, oid in pointer.extensions)
    return VERSION + f"{lines}oid sha256:{pointer.oid}\nsize {pointer.size}\n".encode()
