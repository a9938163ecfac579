"""Blobs of a coming commit, compressed once as they arrive; and the pack that carries it.

A commit may have to be planned again on a newer tip, so blobs lie in a file of their own and each attempt copies the
ones that its trees name into a fresh pack, in front of trees and commit. Equal operations give equal bytes.

    pack = "PACK" · version 2 · count · entries · SHA-1 of all before        entry = type and size · zlib stream
Source: gitformat-pack.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from registry.errors import NoSpace, SizeMismatch
from registry.git.packfile import BLOB, KINDS
from registry.git.packing import entry_header

_BLOCK = 1 << 20
# Larger blobs are rarely text. Media and archives do not shrink at all: storing them as they are took 1.6 ms a MiB
# where any level of zlib took 27 (2026-11, one core of a busy machine).
_LARGE = 256 << 10
_PROBE = 64 << 10


class Spool:
    """A file of blobs that are not in the repo yet, and its packs. Not thread-safe; leaving it removes every file."""

    def __init__(self, folder: Path, name: str) -> None:
        self._path = folder / f"{name}.blobs"
        self._pack = folder / f"{name}.pack"
        self._file = self._path.open("w+b")
        self._places: dict[str, tuple[int, int]] = {}
        self.inflated = 0
        """Bytes of all blobs added so far, repeats included."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Remove the files, unless somebody took them."""
        try:
            self._file.close()
        except OSError:
            # On a full disk the last bytes cannot be written; nobody wants them any more.
            pass
        for path in (self._path, self._pack):
            path.unlink(missing_ok=True)

    def add(self, size: int, pieces: Iterable[bytes]) -> str:
        """Take one blob of `size` bytes; return its id.

        Raises: SizeMismatch (the pieces hold more or fewer bytes; the spool stays as it was), NoSpace.
        """
        with _room():
            return self._add(size, pieces)

    def _add(self, size: int, pieces: Iterable[bytes]) -> str:
        start = self._file.seek(0, 2)
        digest = hashlib.sha1(b"%s %d\0" % (KINDS[BLOB], size), usedforsecurity=False)
        self._file.write(entry_header(BLOB, size))
        coming = iter(pieces)
        first = next(coming, b"")
        squeeze = zlib.compressobj(_level(size, first))
        seen = 0
        for piece in itertools.chain([first], coming):
            seen += len(piece)
            digest.update(piece)
            self._file.write(squeeze.compress(piece))
        self._file.write(squeeze.flush())
        self.inflated += seen
        id = digest.hexdigest()
        if seen != size or id in self._places:
            self._file.truncate(start)
        if seen != size:
            raise SizeMismatch(f"{seen} bytes came where {size} were announced.")
        if id not in self._places:
            self._places[id] = (start, self._file.tell() - start)
        return id

    def __contains__(self, id: str) -> bool:
        return id in self._places

    def pack(self, wanted: Iterable[str], objects: Sequence[tuple[int, bytes]]) -> Path:
        """Write a pack of the wanted blobs and of further objects (type number, content), in the order given.

        Wanted ids that this spool lacks are left out: the repo has them. Every call writes the same file anew.
        Raises: NoSpace.
        """
        with _room():
            return self._write(wanted, objects)

    def _write(self, wanted: Iterable[str], objects: Sequence[tuple[int, bytes]]) -> Path:
        blobs = [self._places[id] for id in dict.fromkeys(wanted) if id in self._places]
        digest = hashlib.sha1(usedforsecurity=False)
        with self._pack.open("wb") as out:

            def write(data: bytes) -> None:
                digest.update(data)
                out.write(data)

            write(b"PACK\0\0\0\2" + (len(blobs) + len(objects)).to_bytes(4, "big"))
            for start, length in blobs:
                self._copy(start, length, write)
            for kind, content in objects:
                write(entry_header(kind, len(content)) + zlib.compress(content))
            out.write(digest.digest())
        return self._pack

    def _copy(self, start: int, length: int, write: Callable[[bytes], None]) -> None:
        self._file.seek(start)
        while length > 0:
            block = self._file.read(min(length, _BLOCK))
            length -= len(block)
            write(block)


def _level(size: int, first: bytes) -> int:
    """Choose how hard to try, by the beginning of a blob."""
    if size < _LARGE:
        return -1
    probe = first[:_PROBE]
    return 1 if len(zlib.compress(probe, 1)) < len(probe) * 0.97 else 0


@contextlib.contextmanager
def _room() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise NoSpace("The server's disk is full; an operator must make room.") from error
