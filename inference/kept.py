"""Which checkouts stay on disk: those in use, and of the others the last used ones, within a size.

A checkout in use is locked, shared, through its folder, so that no process on the same disk removes what another one
reads; the kernel lets go of the locks of a process that dies. What is removed leaves its name at once, by a rename.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
import stat
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from inference.names import is_sha

MANIFEST = ".weightroom.json"
STALE_SECONDS = 7 * 86_400
"""A build that nobody went on with for so long is given up."""


@dataclass(frozen=True, slots=True)
class _Found:
    path: Path
    bytes: int
    used_at: float


class Kept:
    """The whole checkouts of one folder; thread-safe, and safe beside other processes."""

    def __init__(self, folder: Path, building: Path, limit: int):
        """Clear what a crash left of removals, and builds that were given up long ago.

        limit: bytes that checkouts may take together; those in use stay all the same.
        """
        self._folder = folder
        self._building = building
        self._limit = limit
        self._lock = threading.Lock()
        self._held: dict[str, list[int]] = {}
        self._sweep()

    def hold(self, sha: str) -> Path | None:
        """Take a checkout into use until `release`; None if it is not there. A damaged one is removed first."""
        path = self._folder / sha
        try:
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        fcntl.flock(fd, fcntl.LOCK_SH)
        if not _is_at(fd, path) or not _is_whole(path):
            if _is_at(fd, path):
                self._remove(path)
            os.close(fd)
            return None
        with suppress(OSError):
            # The time of the last use, also for other processes; it is only a hint.
            os.utime(path / MANIFEST)
        with self._lock:
            self._held.setdefault(sha, []).append(fd)
        return path

    def release(self, sha: str) -> None:
        """Give back what one `hold` took, and remove what is too much now. Unknown ones are ignored."""
        with self._lock:
            fds = self._held.get(sha)
            if not fds:
                return
            os.close(fds.pop(0))
            if not fds:
                del self._held[sha]
        with suppress(OSError):
            self.trim()

    def close(self) -> None:
        """Give everything back; nothing is removed. Idempotent."""
        with self._lock:
            for fd in (fd for fds in self._held.values() for fd in fds):
                os.close(fd)
            self._held.clear()

    def trim(self, needed: int = 0) -> None:
        """Remove what is not in use, least recently used first: down to the limit, and until `needed` bytes are free.

        What is a link to another folder's file takes no bytes here.
        """
        found = sorted(self._list(), key=lambda one: one.used_at)
        excess = max(needed, sum(one.bytes for one in found) - self._limit)
        for one in found:
            if excess <= 0:
                return
            if one.bytes and self._drop(one.path):
                excess -= one.bytes

    def _list(self) -> list[_Found]:
        found = []
        for path in self._folder.iterdir():
            if is_sha(path.name):
                # Another process may remove it while we look.
                with suppress(OSError):
                    looks = [os.lstat(file) for file in path.rglob("*")]
                    size = sum(look.st_size for look in looks if stat.S_ISREG(look.st_mode) and look.st_nlink == 1)
                    found.append(_Found(path, size, (path / MANIFEST).stat().st_mtime))
        return found

    def _drop(self, path: Path) -> bool:
        """Remove a checkout unless somebody uses it."""
        try:
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not _is_at(fd, path):
                return False
            self._remove(path)
        except BlockingIOError:
            return False
        finally:
            os.close(fd)
        return True

    def _remove(self, path: Path) -> None:
        """Take a folder's name from it, then its files."""
        trash = self._building / f"trash-{secrets.token_hex(8)}"
        os.rename(path, trash)
        shutil.rmtree(trash, ignore_errors=True)

    def _sweep(self) -> None:
        for path in self._building.iterdir():
            if path.name.startswith("trash-"):
                shutil.rmtree(path, ignore_errors=True)
            elif is_sha(path.name) and path.is_dir() and time.time() - _last_change(path) > STALE_SECONDS:
                with suppress(OSError), (self._building / f"{path.name}.lock").open("a") as turn:
                    fcntl.flock(turn, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    self._remove(path)


def _is_at(fd: int, path: Path) -> bool:
    """Say whether the folder that was opened still has this name."""
    try:
        return os.path.samestat(os.fstat(fd), os.lstat(path))
    except FileNotFoundError:
        return False


def _is_whole(path: Path) -> bool:
    """Compare the folder with its list: every file there, of its size. Bytes were proven before it got its name."""
    try:
        files = json.loads((path / MANIFEST).read_bytes())["files"]
        looks = [(os.lstat(path / entry["path"]), entry["size"]) for entry in files]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return all(stat.S_ISREG(look.st_mode) and look.st_size == size for look, size in looks)


def _last_change(path: Path) -> float:
    return max((file.lstat().st_mtime for file in [path, *path.rglob("*")]), default=0.0)
