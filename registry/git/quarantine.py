"""A pushed pack on its way in: written to a file of its own, measured, its trailer checked, nothing believed yet.

folder/<name>.pack    and, later, .idx and .intro beside it; whatever a crash leaves here may be swept
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from registry.git.packfile import TRAILER
from registry.git.verdict import Limits, PackRefused, PackTooLarge

_HEADER = 12


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A pack as it came, durable on disk; thin ones still change."""

    path: Path
    bytes: int
    objects: int


class Quarantine:
    """One pack file being received; not for use by two threads at once.

    As a context manager it discards everything at the end, so what shall stay must be moved away before.
    """

    def __init__(self, folder: Path, name: str, limits: Limits, *, fsync: bool = True) -> None:
        self.path = folder / f"{name}.pack"
        self._limits, self._fsync = limits, fsync
        self._file = self.path.open("xb")
        self._sha1 = hashlib.sha1()
        # The trailer is not part of what it hashes, and where it begins is known only at the end.
        self._tail = self._head = b""
        self._size = self._objects = 0

    def __enter__(self) -> Quarantine:
        return self

    def __exit__(self, *_: object) -> None:
        self.discard()

    def write(self, chunk: bytes) -> None:
        """Take the next bytes, in any size.

        Raises: PackRefused (not a pack), PackTooLarge, OSError.
        """
        if self._size < _HEADER:
            self._head += chunk[: _HEADER - self._size]
            if len(self._head) == _HEADER:
                self._objects = self._begin(self._head)
        self._size += len(chunk)
        if self._size > self._limits.pack:
            raise PackTooLarge(f"pack is above {self._limits.pack} bytes (WEIGHTROOM_MAX_PACK)")
        held = self._tail + chunk if len(chunk) < TRAILER else chunk
        if held is chunk:
            self._sha1.update(self._tail)
        self._sha1.update(memoryview(held)[:-TRAILER])
        self._tail = held[-TRAILER:]
        self._file.write(chunk)

    def _begin(self, head: bytes) -> int:
        """Judge the header as soon as it is here.

        Raises: PackRefused, PackTooLarge.
        """
        if head[:4] != b"PACK" or int.from_bytes(head[4:8], "big") not in (2, 3):
            raise PackRefused("not a pack of version 2 or 3")
        objects = int.from_bytes(head[8:], "big")
        if objects > self._limits.objects:
            most = self._limits.objects
            raise PackTooLarge(f"pack of {objects} objects; at most {most} are taken (WEIGHTROOM_MAX_OBJECTS)")
        return objects

    def finish(self) -> Quarantined:
        """Check the trailer and make the file durable.

        Raises: PackRefused (cut short, or damaged on the way), OSError.
        """
        if self._size < _HEADER + TRAILER:
            raise PackRefused("pack is cut short")
        if self._sha1.digest() != self._tail:
            raise PackRefused("pack is corrupted or cut short: its trailer does not match")
        self._file.flush()
        if self._fsync:
            os.fsync(self._file.fileno())
        self._file.close()
        return Quarantined(self.path, self._size, self._objects)

    def discard(self) -> None:
        """Remove the pack and what was written beside it; may be repeated."""
        # On a full disk the last bytes cannot be written: nobody wants them, and the room they take is needed.
        with contextlib.suppress(OSError):
            self._file.close()
        for suffix in (".pack", ".idx", ".intro"):
            self.path.with_suffix(suffix).unlink(missing_ok=True)
