"""A shelf on a disk.

    <root>/lfs/ab/cd/<oid> …      final files, read-only (0444), never rewritten
    <root>/tmp/<random>           a write on its way: same file system, so its commit is a rename
    <root>/tmp/parts-<hash>/…     an upload in parts, named by its key so that any process may go on with it

A write is: bytes and hash, file fsync, rename, folder fsync. A crash leaves at worst files under `tmp/`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from lfs import local_parts
from lfs.beside import Beside
from lfs.disk import Disk, opened, told, write_all
from lfs.errors import Damaged, Missing
from lfs.local_parts import LocalParts
from lfs.store import (
    Descriptor,
    Judge,
    Probe,
    Reader,
    Signed,
    Source,
    Span,
    Stat,
    Verified,
    check_key,
    check_span,
    pieces,
)

GIB = 1 << 30


class LocalStore:
    """An `ObjectStore` in the folder `root`.

    `fsync=False` gives up durability for speed; writes that would leave less than `min_free` bytes are refused.
    """

    def __init__(self, root: Path, *, fsync: bool = True, min_free: int = 2 * GIB) -> None:
        self._disk = Disk(root, fsync=fsync, min_free=min_free)

    @property
    def waits(self) -> bool:
        """Say whether puts wait for the disk."""
        return self._disk.durable

    def stat(self, key: str) -> Stat:
        """Say what lies under `key`."""
        path = self._path(key)
        with told(key):
            found = path.stat()
        return _stat(path, found)

    def open(self, key: str, span: Span | None = None) -> Reader:
        """Open the bytes under `key`; the reader holds the file, so a delete does not disturb it."""
        path = self._path(key)
        with told(key):
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            whole = check_span(span, os.fstat(fd).st_size)
        except BaseException:
            os.close(fd)
            raise
        return _FileReader(fd, key, whole)

    def put(self, key: str, source: Source, size: int, sha256: str | None = None) -> Verified:
        """Keep `size` bytes under `key`, hashing as they pass; a path on this file system is adopted by rename."""
        final, judge = self._path(key), Judge(size, sha256)
        if isinstance(source, Path) and self._adoptable(source):
            for piece in pieces(source):
                judge.feed(piece)
            verified = judge.verdict(key)
            with told(key), opened(source, os.O_RDONLY) as fd:
                self._publish(fd, source, final, size)
            return verified
        self._disk.room_for(size)
        with self._temporary() as temp:
            self._write(temp.fd, source, judge)
            verified = judge.verdict(key)
            with told(key):
                temp.named = self._publish(temp.fd, temp.path, final, size)
        return verified

    def copy(self, source: str, key: str) -> Stat:
        """Give the bytes a second name: a hard link, since neither file ever changes."""
        path, final = self._path(source), self._path(key)
        if not path.exists():
            return self.stat(key)
        size = self.stat(source).size
        with told(key), self._disk.naming(final.parent):
            try:
                os.link(path, final)
            except FileExistsError:
                _check_size(final, size)
            except OSError:
                # Some file systems have no hard links, others bound how many a file may have.
                self.put(key, pieces(path), size)
        return self.stat(key)

    def parts(self, key: str, part_size: int, session: str = "") -> LocalParts:
        """Begin, or go on with, an upload to `key` in parts."""
        return LocalParts(self._disk, key, part_size, self.stat)

    def url(
        self,
        key: str,
        method: Literal["GET", "PUT"],
        seconds: int,
        *,
        size: int | None = None,
        sha256: str | None = None,
        span: Span | None = None,
    ) -> Signed | None:
        """Answer None: a disk has no address of its own, so the server streams."""
        check_key(key)
        return None

    def delete(self, key: str) -> None:
        """Remove the bytes; absent is success."""
        path = self._path(key)
        with told(key):
            path.unlink(missing_ok=True)
            if path.parent.exists():
                self._disk.sync_folder(path.parent)

    def walk(self, prefix: str = "", after: str = "") -> Iterator[str]:
        """Yield keys in byte order."""
        yield from self._walk(self._disk.root, "", prefix, after)

    def sweep(self, seconds: float) -> int:
        """Remove what was left in `tmp/` and not touched for `seconds`; return how many entries went.

        What a writer still holds open stays, however long it has waited for its next byte.
        """
        swept, oldest = 0, time.time() - seconds
        with told("the store"), os.scandir(self._disk.tmp) as entries:
            for entry in entries:
                path = Path(entry.path)
                if entry.is_dir(follow_symlinks=False):
                    swept += local_parts.drop(path, oldest)
                else:
                    swept += _drop(path, oldest)
        return swept

    def probe(self) -> Probe:
        """Say that there is nothing to find out: a disk signs nothing."""
        return Probe("none", {"shelf": "a disk"})

    def believe(self, probe: Probe) -> None:
        """Do nothing: a disk signs nothing."""

    def _path(self, key: str) -> Path:
        return self._disk.root / check_key(key)

    def _adoptable(self, source: Path) -> bool:
        return source.stat().st_dev == self._disk.tmp.stat().st_dev and source.is_file() and not source.is_symlink()

    @contextmanager
    def _temporary(self) -> Iterator[_Temporary]:
        """Open a file without a lasting name; at the end of the block it is gone, or has one."""
        # No secret, and a name that is taken is refused: random bytes of the system would take a call more.
        path = self._disk.tmp / f"{random.getrandbits(128):032x}"
        with told("write to the store"):
            temp = _Temporary(_claimed(path), path)
        try:
            yield temp
        finally:
            os.close(temp.fd)
            if not temp.named:
                path.unlink(missing_ok=True)

    def _write(self, fd: int, source: Source, judge: Judge) -> None:
        with Beside(judge) as hashing:
            for piece in pieces(source):
                hashing.feed(piece)
                with told("write to the store"):
                    write_all(fd, piece)

    def _publish(self, fd: int, temp: Path, final: Path, size: int) -> bool:
        """Make an open file durable under its final name; False if equal bytes are there already."""
        os.fchmod(fd, 0o444)
        self._disk.sync(fd)
        with self._disk.naming(final.parent):
            # Bytes that are there are named all the same: another writer may not have come to its sync yet.
            named = not _check_size(final, size)
            if named:
                os.rename(temp, final)
        return named

    def _walk(self, folder: Path, at: str, prefix: str, after: str) -> Iterator[str]:
        with told(at or "the store"):
            entries = [(entry.name + "/" * entry.is_dir(), entry.is_dir()) for entry in os.scandir(folder)]
        for name, is_folder in sorted(entries):
            key = at + name
            if not (key.startswith(prefix) or (is_folder and prefix.startswith(key))) or key == "tmp/":
                continue
            if not is_folder:
                if key > after:
                    yield key
            elif key > after or after.startswith(key):
                yield from self._walk(folder / name, key, prefix, after)


@dataclass(slots=True)
class _Temporary:
    """An open file that is to be removed unless it got its final name."""

    fd: int
    path: Path
    named: bool = False


class _FileReader(Reader):
    def __init__(self, fd: int, key: str, span: Span) -> None:
        super().__init__(span.size)
        self._fd, self._key, self._at = fd, key, span.start

    def in_file(self) -> tuple[Descriptor, int]:
        """Say that the rest lies in this file."""
        return self, self._at

    def fileno(self) -> int:
        """Return the descriptor of the open file."""
        return self._fd

    def _piece(self, limit: int) -> bytes:
        with told(self._key):
            piece = os.pread(self._fd, limit, self._at)
        self._at += len(piece)
        return piece

    def close(self) -> None:
        """Let go of the file; may be repeated."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __del__(self) -> None:
        self.close()


def _stat(path: Path, found: os.stat_result) -> Stat:
    if not path.is_file():
        raise Missing(f"Nothing is stored as {path.name}.")
    at = datetime.fromtimestamp(found.st_mtime, UTC)
    return Stat(found.st_size, f"{found.st_mtime_ns:x}-{found.st_size:x}", at, path)


def _check_size(final: Path, size: int) -> bool:
    """Say whether an object is there already. Raises: Damaged (with another size)."""
    try:
        there = os.stat(final).st_size
    except FileNotFoundError:
        return False
    if there != size:
        raise Damaged(f"{final.name} is stored with {there} bytes, not {size}; run `weightroom fsck`.")
    return True


def _claimed(path: Path) -> int:
    """Open a new file, locked: a sweep leaves it alone, as its next byte may take any time to come."""
    while True:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_SH)
            # A sweep without patience may have come in between.
            if os.fstat(fd).st_nlink:
                return fd
        except OSError:
            os.close(fd)
            path.unlink(missing_ok=True)
            raise
        os.close(fd)


def _drop(path: Path, older_than: float) -> bool:
    """Remove a file that no writer holds and that is older than a time in Unix seconds."""
    # Another process may be sweeping too, or finishing the file at this moment.
    with contextlib.suppress(FileNotFoundError, BlockingIOError), opened(path, os.O_RDONLY | os.O_NOFOLLOW) as fd:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(fd).st_mtime < older_than:
            path.unlink()
            return True
    return False
