"""Bytes on their way to the bucket, gathered whole because a request may have to be sent again.

They lie in memory while this process has room for them, else in an unnamed file: slow writers never wait for each
other, and memory stays bounded whatever their number.
"""

from __future__ import annotations

import mmap
import tempfile
import threading
from types import TracebackType
from typing import IO, Any, Self

from lfs.errors import NoSpace, SizeMismatch
from lfs.store import PIECE, Source, pieces


class Memory:
    """Counts the bytes of memory that gathered parts take, at most `limit` together; thread-safe."""

    def __init__(self, limit: int) -> None:
        self._left, self._lock = limit, threading.Lock()

    def take(self, size: int) -> bool:
        """Say whether there is room for `size` bytes, and keep it."""
        with self._lock:
            if size > self._left:
                return False
            self._left -= size
            return True

    def give(self, size: int) -> None:
        """Give room back."""
        with self._lock:
            self._left += size


class Gathered:
    """A body of exactly `size` bytes, added piece by piece. Close it, or the room that it takes is never free again."""

    def __init__(self, memory: Memory, size: int) -> None:
        self.size, self._at, self._memory = size, 0, memory
        self._held = size if memory.take(size) else 0
        self._body: bytearray | mmap.mmap | IO[bytes]
        if self._held < size:
            self._body = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - it lives as long as this does
        elif size <= PIECE:
            self._body = bytearray(size)
        else:
            # Pages of their own go back to the system at once; malloc keeps blocks of this size for each thread.
            self._body = mmap.mmap(-1, size)

    @property
    def room(self) -> int:
        """Bytes that are still to come."""
        return self.size - self._at

    def add(self, piece: bytes | memoryview) -> None:
        """Take the next bytes. Raises: SizeMismatch (more than announced), NoSpace (no memory, and no disk either)."""
        if len(piece) > self.room:
            raise SizeMismatch(f"More than the announced {self.size} bytes arrived; announce the true size.")
        if isinstance(self._body, bytearray | mmap.mmap):
            self._body[self._at : self._at + len(piece)] = piece
        else:
            try:
                self._body.write(piece)
            except OSError as error:
                raise NoSpace(f"No room to gather a part ({error.strerror}); free space in TMPDIR.") from error
        self._at += len(piece)

    def fill(self, source: Source) -> None:
        """Take all of `source`, which has to be the announced bytes. Raises: SizeMismatch, NoSpace."""
        for piece in pieces(source):
            self.add(piece)
        if self.room:
            raise SizeMismatch(f"{self._at} of the announced {self.size} bytes arrived; send them again.")

    def body(self) -> Any:
        """Return the bytes as boto3 takes them, at their start, to be read again for each try.

        Small ones are a buffer, which goes out in one call and without asking first. A large one would have to leave
        within the timeout of that call, which is the one to connect, so it is a file.
        """
        if not isinstance(self._body, bytearray):
            self._body.seek(0)
        return self._body

    def close(self) -> None:
        """Let go of the bytes; may be repeated."""
        if not isinstance(self._body, bytearray):
            self._body.close()
        self._memory.give(self._held)
        self._held = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
