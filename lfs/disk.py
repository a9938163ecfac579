"""What a shelf on a disk asks of the operating system: durable names, whole writes, refusals in our words."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lfs.errors import Denied, Missing, NoSpace, StoreError, Unavailable


class Disk:
    """The file system under `root`.

    `fsync=False` gives up durability for speed: `durable` says so. Writes that would leave less than `min_free` bytes
    are refused.
    """

    def __init__(self, root: Path, *, fsync: bool, min_free: int) -> None:
        self.root = root.absolute()
        self.tmp = self.root / "tmp"
        self.durable, self._min_free = fsync, min_free
        self._turns = _Turns()
        # Folders whose own names this process has made durable; at most one entry per two-hex-digit pair and parent.
        self._settled: set[Path] = set()
        with told("open the store"):
            self.tmp.mkdir(parents=True, exist_ok=True)

    def room_for(self, size: int) -> None:
        """Refuse to go below the floor. Raises: NoSpace."""
        free = shutil.disk_usage(self.root).free
        if free - size < self._min_free:
            raise NoSpace(
                f"The store has {free} bytes free, and {size} more would leave less than the floor of "
                f"{self._min_free} (WEIGHTROOM_MIN_FREE); free space, then send again."
            )

    @contextmanager
    def naming(self, folder: Path) -> Iterator[None]:
        """Make `folder` if need be; at the end of the block its names are durable, and its own, and its parents'.

        The syncs come last and together, so that a file system with a journal commits once for all of them.
        """
        made, each = [], folder
        while each not in self._settled and each != self.root:
            made.append(each)
            each = each.parent
        for each in reversed(made):
            with contextlib.suppress(FileExistsError):
                os.mkdir(each)
        yield
        self.sync_folder(folder)
        # Also those that were here: another process may have made them a moment ago.
        for each in made:
            self.sync_folder(each.parent)
        self._settled.update(made)

    def sync_folder(self, folder: Path) -> None:
        """Make the names in a folder durable."""
        if self.durable:
            self._turns.take(folder)

    def sync(self, fd: int) -> None:
        """Make the bytes of an open file durable, and its size and mode."""
        if self.durable:
            os.fsync(fd)


class _Turns:
    """Syncs folders: of all who ask while one sync runs, the first syncs next, once, for all of them.

    Whoever comes alone waits for nobody.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # For each folder the turn that runs, and the one that gathers meanwhile.
        self._turns: dict[Path, list[_Turn]] = {}

    def take(self, folder: Path) -> None:
        """Return after a sync that began after this call did. Raises: OSError."""
        with self._lock:
            turns = self._turns.setdefault(folder, [])
            leads = len(turns) < 2
            if leads:
                turns.append(_Turn())
            before, turn = turns[0], turns[-1]
        if not leads:
            turn.join()
            return
        if before is not turn:
            before.over.wait()
        try:
            _sync(folder)
            turn.done = True
        except OSError as error:
            turn.error = error
            raise
        finally:
            self._end(folder, turn)

    def _end(self, folder: Path, turn: _Turn) -> None:
        with self._lock:
            turns = self._turns[folder]
            turns.remove(turn)
            if not turns:
                del self._turns[folder]
        turn.over.set()


class _Turn:
    """One sync and how it went."""

    def __init__(self) -> None:
        self.over, self.done, self.error = threading.Event(), False, OSError(errno.EIO, os.strerror(errno.EIO))

    def join(self) -> None:
        """Wait for its end, and fail as it did."""
        self.over.wait()
        if not self.done:
            raise OSError(self.error.errno, self.error.strerror) from self.error


def _sync(folder: Path) -> None:
    with opened(folder, os.O_RDONLY | os.O_DIRECTORY) as fd:
        os.fsync(fd)


@contextmanager
def opened(path: Path, flags: int, mode: int = 0o600) -> Iterator[int]:
    """Hold a file open."""
    fd = os.open(path, flags | os.O_CLOEXEC, mode)
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def locked(fd: int, kind: int = fcntl.LOCK_EX) -> Iterator[None]:
    """Hold a lock on an open file against other threads and processes; it ends with its holder, however that ends."""
    fcntl.flock(fd, kind)
    try:
        yield
    finally:
        fcntl.flock(fd, fcntl.LOCK_UN)


def write_all(fd: int, piece: bytes, at: int | None = None) -> None:
    """Write every byte, at the file's end or at an offset."""
    view = memoryview(piece)
    while view:
        done = os.write(fd, view) if at is None else os.pwrite(fd, view, at)
        view, at = view[done:], None if at is None else at + done


@contextmanager
def told(what: str) -> Iterator[None]:
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
