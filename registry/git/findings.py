"""Questions about a pack that need objects read once more: files with a meaning, links, repeated objects."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from registry.git import fsck
from registry.git.bases import Bases
from registry.git.contents import Contents
from registry.git.filenames import Special
from registry.git.gitmodules import LARGEST as LARGEST_MODULES
from registry.git.packfile import BLOB, TRAILER, PackFile
from registry.git.scan import inflate

_WHOLE = 16 << 20


def judge_special(contents: Contents, store: Bases) -> None:
    """Judge blobs that some new tree calls by a special name, and targets of links, wherever the blobs lie.

    A blob may have come earlier under a harmless name, so those of the manifest are read too.
    """
    for sha, names in contents.special.items():
        for special in names & {Special.MODULES, Special.ATTRIBUTES}:
            most = LARGEST_MODULES if special is Special.MODULES else fsck.LARGEST_ATTRIBUTES
            content = _content(store, sha, most)
            if content is not None:
                contents.judgement.hear(f"blob {sha.hex()}", fsck.check_special_blob(special, content))
    for sha in contents.links:
        content = _content(store, sha, fsck.LONGEST_LINK)
        if content is not None:
            contents.judgement.hear(f"blob {sha.hex()}", fsck.check_link(content))


def _content(store: Bases, sha: bytes, most: int) -> bytes | None:
    """Read a blob; one above the limit as zeros just above it, which its rule refuses; None if it is no blob here."""
    size = store.size(sha)
    if size is None or store.kind(sha) != BLOB:
        return None
    if size > most:
        return bytes(most + 1)
    found = store.read(sha, most)
    return found[1] if found else None


def same_bytes(one: tuple[PackFile, int], other: tuple[PackFile, int], store: Bases) -> bool:
    """Compare two objects byte for byte; large ones in pieces."""
    sizes = {file.size_at(offset) for file, offset in (one, other)}
    kinds = {file.kind_at(offset) for file, offset in (one, other)}
    if len(sizes) > 1 or len(kinds) > 1:
        return False
    entries = [file.header(offset) for file, offset in (one, other)]
    if sizes.pop() <= _WHOLE or any(entry.base is not None for entry in entries):
        return store.read_at(*one) == store.read_at(*other)
    digests = [
        _digest(inflate(file.map, entry.data, file.size - TRAILER, entry.size))
        for (file, _), entry in zip((one, other), entries, strict=True)
    ]
    return digests[0] == digests[1]


def _digest(pieces: Iterable[tuple[bytes, int]]) -> bytes:
    digest = hashlib.sha256()
    for piece, _ in pieces:
        digest.update(piece)
    return digest.digest()
