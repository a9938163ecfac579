"""A shelf on a disk.

    <root>/lfs/ab/cd/<oid> …      final files, read-only (0444), never rewritten
    <root>/tmp/<random>           a write on its way: same file system, so its commit is a rename
    <root>/tmp/parts-<hash>/00001 an upload in parts, named by its key so that any process may go on with it

A write is: bytes and hash, file fsync, rename, folder fsync. A crash leaves at worst files under `tmp/`.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from lfs.errors import Damaged, Denied, Missing, NoSpace, StoreError, Unavailable
from lfs.store import Judge, Reader, Signed, Source, Span, Stat, Verified, check_key, check_span, pieces

GIB = 1 << 30


class LocalStore:
    """An `ObjectStore` in the folder `root`.

    `fsync=False` gives up durability for speed; writes that would leave less than `min_free` bytes are refused.
    """

    def __init__(self, root: Path, *, fsync: bool = True, min_free: int = 2 * GIB) -> None:
        self._root = root.absolute()
        self._tmp = self._root / "tmp"
        self._fsync, self._min_free = fsync, min_free
        # Folders whose own names this process has made durable; at most one entry per two-hex-digit pair and parent.
        self._settled: set[Path] = set()
        with _told("open the store"):
            self._tmp.mkdir(parents=True, exist_ok=True)

    def stat(self, key: str) -> Stat:
        """Say what lies under `key`."""
        path = self._path(key)
        with _told(key):
            found = path.stat()
        return _stat(path, found)

    def open(self, key: str, span: Span | None = None) -> Reader:
        """Open the bytes under `key`; the reader holds the file, so a delete does not disturb it."""
        path = self._path(key)
        with _told(key):
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
            self._publish(source, final, size)
            return verified
        self._room_for(size)
        with self._temporary() as temp:
            self._write(temp, source, judge)
            verified = judge.verdict(key)
            self._publish(temp, final, size)
        return verified

    def copy(self, source: str, key: str) -> Stat:
        """Give the bytes a second name: a hard link, since neither file ever changes."""
        path, final = self._path(source), self._path(key)
        if not path.exists():
            return self.stat(key)
        size = self.stat(source).size
        with self._temporary() as temp:
            try:
                os.link(path, temp)
            except OSError:
                # Some file systems have no hard links, others bound how many a file may have.
                self.put(key, pieces(path), size)
            else:
                self._publish(temp, final, size)
        return self.stat(key)

    def parts(self, key: str) -> LocalParts:
        """Begin, or go on with, an upload to `key` in parts."""
        check_key(key)
        return LocalParts(self, self._tmp / f"parts-{hashlib.sha256(key.encode()).hexdigest()[:32]}", key)

    def url(
        self,
        key: str,
        method: Literal["GET", "PUT"],
        seconds: int,
        *,
        size: int | None = None,
        sha256: str | None = None,
        span: Span | None = None,
        part: int | None = None,
    ) -> Signed | None:
        """Answer None: a disk has no address of its own, so the server streams."""
        check_key(key)
        return None

    def delete(self, key: str) -> None:
        """Remove the bytes; absent is success."""
        path = self._path(key)
        with _told(key):
            path.unlink(missing_ok=True)
            if path.parent.exists():
                self._sync_folder(path.parent)

    def walk(self, prefix: str = "", after: str = "") -> Iterator[str]:
        """Yield keys in byte order."""
        yield from self._walk(self._root, "", prefix, after)

    def sweep(self, seconds: float) -> int:
        """Remove what was left in `tmp/` and not touched for `seconds`; return how many entries went."""
        swept, oldest = 0, time.time() - seconds
        with os.scandir(self._tmp) as entries:
            for entry in entries:
                # Another process may be sweeping too, or finishing the file at this moment.
                with contextlib.suppress(FileNotFoundError):
                    if entry.stat(follow_symlinks=False).st_mtime < oldest:
                        shutil.rmtree(entry.path) if entry.is_dir(follow_symlinks=False) else os.unlink(entry.path)
                        swept += 1
        return swept

    def _path(self, key: str) -> Path:
        return self._root / check_key(key)

    def _adoptable(self, source: Path) -> bool:
        return source.stat().st_dev == self._tmp.stat().st_dev and source.is_file() and not source.is_symlink()

    def _room_for(self, size: int) -> None:
        free = shutil.disk_usage(self._root).free
        if free - size < self._min_free:
            raise NoSpace(
                f"The store has {free} bytes free, and {size} more would leave less than the floor of "
                f"{self._min_free} (WEIGHTROOM_MIN_FREE); free space, then send again."
            )

    @contextmanager
    def _temporary(self) -> Iterator[Path]:
        temp = self._tmp / uuid.uuid4().hex
        try:
            yield temp
        finally:
            temp.unlink(missing_ok=True)

    def _write(self, temp: Path, source: Source, judge: Judge) -> None:
        with _told("write to the store"):
            fd = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb", buffering=0) as file:
            for piece in pieces(source):
                judge.feed(piece)
                with _told("write to the store"):
                    _write_all(file.fileno(), piece)

    def _publish(self, temp: Path, final: Path, size: int) -> None:
        """Make the file durable under its final name, unless equal bytes are there already."""
        with _told(final.name):
            self._seal(temp)
            self._settle(final.parent)
            try:
                there = final.stat().st_size
            except FileNotFoundError:
                os.rename(temp, final)
            else:
                if there != size:
                    raise Damaged(f"{final.name} is stored with {there} bytes, not {size}; run `weightroom fsck`.")
            # Also for bytes that were there: another writer may have renamed them and not yet synced the folder.
            self._sync_folder(final.parent)

    def _seal(self, temp: Path) -> None:
        fd = os.open(temp, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fchmod(fd, 0o444)
            if self._fsync:
                os.fsync(fd)
        finally:
            os.close(fd)

    def _settle(self, folder: Path) -> None:
        """Make the folder and its parents exist durably, even if another process made them a moment ago."""
        if folder in self._settled or folder == self._root:
            return
        self._settle(folder.parent)
        folder.mkdir(exist_ok=True)
        self._sync_folder(folder.parent)
        self._settled.add(folder)

    def _sync_folder(self, folder: Path) -> None:
        if not self._fsync:
            return
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def _walk(self, folder: Path, at: str, prefix: str, after: str) -> Iterator[str]:
        with _told(at or "the store"):
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


class LocalParts:
    """Numbered files beside the final one, joined at `finish`; a part's tag is the SHA-256 of its bytes."""

    def __init__(self, store: LocalStore, folder: Path, key: str) -> None:
        self._store, self._folder, self._key = store, folder, key

    def put(self, number: int, source: Source) -> str:
        """Take part `number`; repeating it replaces it."""
        self._store._room_for(0)
        with _told(self._key):
            self._folder.mkdir(exist_ok=True)
        tag = hashlib.sha256()
        with self._store._temporary() as temp:
            with temp.open("xb", buffering=0) as file:
                for piece in pieces(source):
                    tag.update(piece)
                    with _told(self._key):
                        _write_all(file.fileno(), piece)
            # The tag is part of the name: a repeated part never mixes with the one it replaces.
            name = f"{number:05}-{tag.hexdigest()}"
            with _told(self._key):
                self._store._seal(temp)
                os.rename(temp, self._folder / name)
                self._store._sync_folder(self._folder)
        return tag.hexdigest()

    def finish(self, parts: Sequence[tuple[int, str]]) -> Stat:
        """Join the parts under the key."""
        if not self._folder.exists():
            return self._store.stat(self._key)
        paths = [self._folder / f"{number:05}-{check_key(tag)}" for number, tag in parts]
        with _told(f"a part of {self._key}"):
            size = sum(path.stat().st_size for path in paths)
        self._store.put(self._key, (piece for path in paths for piece in pieces(path)), size)
        self.abort()
        return self._store.stat(self._key)

    def abort(self) -> None:
        """Drop every part."""
        shutil.rmtree(self._folder, ignore_errors=True)


class _FileReader(Reader):
    def __init__(self, fd: int, key: str, span: Span) -> None:
        super().__init__(span.size)
        self._fd, self._key, self._at = fd, key, span.start

    def _piece(self, limit: int) -> bytes:
        with _told(self._key):
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


def _write_all(fd: int, piece: bytes) -> None:
    view = memoryview(piece)
    while view:
        view = view[os.write(fd, view) :]


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Say what the operating system refused, in our words."""
    try:
        yield
    except OSError as error:
        raise _translated(error, what) from error


def _translated(error: OSError, what: str) -> StoreError:
    if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.EISDIR):
        return Missing(f"Nothing is stored as {what}.")
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return NoSpace("The store's disk is full; free space, then send again.")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return Denied(f"The store's disk refuses us ({error.strerror}: {what}); check who owns its folder.")
    return Unavailable(f"The store's disk failed ({error.strerror}: {what}); look at its health, then try again.")
