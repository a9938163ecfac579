"""The proof of a xorb that a stranger sent: taken into a file, no longer than it may be, and read by a child process.

A process that dies leaves its file in the folder, which is emptied when a process takes it over.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lfs.disk import told, write_all
from lfs.errors import BadXet, HeavyError, TooLarge
from lfs.heavy import Heavy
from lfs.store import pieces
from lfs.xet.formats import MAX_BODY, MAX_CHUNKS, XorbReader

LONGEST = MAX_BODY + 2 * 40 * MAX_CHUNKS + 1024
"""Bytes of a body with the longest footer that is passed over."""
PROOF_SECONDS = 120.0
"""A thousand times what the proof of a whole xorb takes; a body that waits longer for its turn is sent again."""

_NEW = "a xorb that is coming in"


@dataclass(frozen=True, slots=True)
class Proven:
    """What a file that is a xorb turned out to be: its table as it is stored, and its body's bytes without a footer."""

    table: bytes
    body_size: int
    raw_size: int
    chunks: int


def prove_file(path: str, hash: bytes) -> Proven:
    """Read a file as the xorb of this hash; for a child process, as its bytes are a stranger's. Raises: BadXet."""
    reader = XorbReader()
    for piece in pieces(Path(path)):
        reader.feed(piece)
    table = reader.finish(hash)
    return Proven(table.to_bytes(), table.body_size, table.raw_size, table.chunks)


class Proving:
    """Takes bodies into files of `folder`, which one process owns, and has them proven. Thread-safe."""

    def __init__(self, heavy: Heavy, folder: Path) -> None:
        self._heavy, self._folder = heavy, folder

    @contextmanager
    def proven(self, hash: bytes, source: Iterable[bytes]) -> Iterator[tuple[Path, Proven]]:
        """Hold a body that was proven, without its footer, in a file: after the block it is gone, or was adopted.

        Raises: BadXet, TooLarge, Busy (the proof had no turn), NoSpace, and what the source raises.
        """
        path = self._folder / f"xorb-{secrets.token_hex(16)}"
        try:
            _fill(path, source)
            proven = self._proof(path, hash)
            with told(_NEW):
                os.truncate(path, proven.body_size)
            yield path, proven
        finally:
            path.unlink(missing_ok=True)

    def _proof(self, path: Path, hash: bytes) -> Proven:
        try:
            return self._heavy.within(PROOF_SECONDS, prove_file, str(path), hash)
        except HeavyError as error:
            raise BadXet(f"The xorb could not be read: {error.message} Pack it again.") from error


def bounded(source: Iterable[bytes]) -> Iterator[bytes]:
    """Pass a body on, up to the first byte too many. Raises: TooLarge."""
    size = 0
    for piece in source:
        size += len(piece)
        check_length(size)
        yield piece


def check_length(size: int) -> None:
    """Refuse a body of so many bytes if no xorb has them. Raises: TooLarge."""
    if size > LONGEST:
        raise TooLarge(f"A xorb has at most {MAX_BODY} bytes, and a footer; begin another one.")


def _fill(path: Path, source: Iterable[bytes]) -> None:
    with told(_NEW):
        file = path.open("xb", buffering=0)
    with file:
        for piece in bounded(source):
            with told(_NEW):
                write_all(file.fileno(), piece)
