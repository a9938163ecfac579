"""Pointer text ↔ `Pointer`: what git keeps in place of a large file.

    version https://git-lfs.github.com/spec/v1
    ext-0-name sha256:<64 hex>          at most ten, sorted, rare
    oid sha256:<64 hex>
    size <bytes>

Written in this one form, read in every form that git-lfs itself takes for a pointer: the names of two older versions,
blank lines, carriage returns, space around the whole. A gate that read less would let a file pass as plain text that
every client then replaces by an object that nobody uploaded.

Source: git-lfs docs/spec.md, "The Pointer"; the loose forms as git-lfs 3.3 was seen to read them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MAX_BYTES = 1024
MAX_SIZE = (1 << 63) - 1
VERSION = b"version https://git-lfs.github.com/spec/v1\n"

_VERSIONS = frozenset(
    {b"https://git-lfs.github.com/spec/v1", b"https://hawser.github.com/spec/v1", b"http://git-media.io/v/2"}
)
_OID = re.compile(rb"sha256:([0-9a-f]{64})")
_EXTENSION = re.compile(rb"ext-([0-9])-([A-Za-z0-9_-]+)")
_SIZE = re.compile(rb"\+?([0-9]{1,32})")
_SPACE = b" \t\n\v\f\r"


@dataclass(frozen=True, slots=True)
class Pointer:
    """A large file by its SHA-256 (64 hex digits) and size in bytes; `extensions` as `(ext-N-name, oid)` lines."""

    oid: str
    size: int
    extensions: tuple[tuple[str, str], ...] = ()


def parse(blob: bytes) -> Pointer | None:
    """Return what a blob points to, or None if it is a file like any other. Never raises."""
    if len(blob) > MAX_BYTES or b"version" not in blob:
        return None
    lines = [line.removesuffix(b"\r") for line in blob.strip(_SPACE).split(b"\n")]
    pairs = [line.partition(b" ")[::2] for line in lines if line]
    plain = [(key, value) for key, value in pairs if not _EXTENSION.fullmatch(key)]
    if [key for key, _ in plain] != [b"version", b"oid", b"size"] or plain[0][1] not in _VERSIONS:
        return None
    if pairs[-1][0] != b"size":
        return None
    oid, size = _OID.fullmatch(plain[1][1]), _SIZE.fullmatch(plain[2][1])
    extensions = _extensions(pairs)
    if oid is None or size is None or int(size[1]) > MAX_SIZE or extensions is None:
        return None
    return Pointer(oid[1].decode(), int(size[1]), extensions)


def _extensions(pairs: list[tuple[bytes, bytes]]) -> tuple[tuple[str, str], ...] | None:
    """Collect extension lines by number; None if one is malformed or a number comes twice."""
    found: dict[bytes, tuple[str, str]] = {}
    for key, value in pairs:
        named = _EXTENSION.fullmatch(key)
        if named is None:
            continue
        oid = _OID.fullmatch(value)
        if oid is None or named[1] in found:
            return None
        found[named[1]] = (key.decode(), oid[1].decode())
    return tuple(found[number] for number in sorted(found))


def canonical(pointer: Pointer) -> bytes:
    """Write the one text of a pointer."""
    lines = "".join(f"{name} sha256:{oid}\n" for name, oid in pointer.extensions)
    return VERSION + f"{lines}oid sha256:{pointer.oid}\nsize {pointer.size}\n".encode()
