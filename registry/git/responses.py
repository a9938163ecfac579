"""Packs that were built, by key: kept in memory or on disk, built once however many ask at the same time.

    folder/<key>             a whole pack, named by the digest of what was asked
    folder/<key>.<n>.part    one being built; left by a crash and removed at the next start

A build runs on a thread of its own pool and everybody who asked follows it, the first one too: a slow reader slows
nobody else. A build that nobody follows any more is stopped.
"""

from __future__ import annotations

import itertools
import logging
import os
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from pathlib import Path
from typing import BinaryIO

from lfs.recent import Recent
from registry.git.pkt import BLOCK

log = logging.getLogger(__name__)

IDLE_SECONDS = 5.0
Build = Callable[[], Iterator[bytes]]
_NAME = re.compile(r"[0-9a-f]{64}\Z")
_SPILL = 1 << 20


class Responses:
    """Gives built packs by key. Thread-safe.

    `limit_bytes` bounds the files, `memory` the bytes of answers up to 1 MiB; both may be emptied while no process
    runs. One process owns the folder.
    """

    def __init__(self, folder: Path, limit_bytes: int, builders: Executor, *, memory: int = 32 << 20) -> None:
        self._folder = folder
        self._limit = limit_bytes
        self._builders = builders
        self._small: Recent[str, bytes] = Recent(memory)
        self._sizes: OrderedDict[str, int] = OrderedDict()
        self._flights: dict[str, _Flight] = {}
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self.builds = 0
        """Builds begun so far."""
        self._adopt()

    def stream(self, key: str, build: Build) -> Iterator[bytes]:
        """Yield the answer for a key in blocks; an empty block each time nothing came for 5 s.

        Raises: what `build` raises, also to those who only follow. `build` must give the same bytes each time.
        """
        small = self._small.get(key)
        if small is not None:
            yield small
            return
        with self._lock:
            flight = self._flights.get(key)
            file = None if flight else self._kept(key)
            if flight is None and file is None:
                flight = self._begin(key, build)
            if flight is not None:
                flight.readers += 1
        yield from self._follow(key, flight, build) if flight else _read(file)

    def _begin(self, key: str, build: Build) -> _Flight:
        flight = self._flights[key] = _Flight()
        self.builds += 1
        try:
            self._builders.submit(self._run, key, flight, build)
        except RuntimeError:
            # No thread can be had, as at the end of the process: nobody may wait for this flight.
            del self._flights[key]
            raise
        return flight

    def _run(self, key: str, flight: _Flight, build: Build) -> None:
        """Build, file the whole answer, then let its followers see the end; on a builder's thread."""
        error: BaseException | None = None
        try:
            for block in build():
                if flight.abandoned:
                    raise _AbandonedError
                flight.add(block, self._part(key))
            self._keep(key, flight)
        except BaseException as failure:
            error = failure
        with self._lock:
            self._forget(key, flight)
            flight.end(error)
            if not flight.readers:
                flight.close()

    def _keep(self, key: str, flight: _Flight) -> None:
        if flight.part is None:
            content = flight.whole()
            self._small.keep(key, content, len(content) + 200)
            return
        flight.part.rename(self._folder / key)
        with self._lock:
            self._sizes[key] = flight.size
            self._evict()

    def _follow(self, key: str, flight: _Flight, build: Build) -> Iterator[bytes]:
        at = 0
        try:
            while (block := flight.read(at)) is not None:
                at += len(block)
                yield block
        except OSError as error:
            # A full disk must not stop reads: a build gives the same bytes again, so go on without keeping them.
            log.warning("an answer cannot be kept and is built for one reader alone: %s", error)
            yield from _beyond(build(), at)
        finally:
            with self._lock:
                flight.readers -= 1
                if not flight.readers:
                    # Nobody may join from here on: the build is about to stop.
                    flight.abandoned = True
                    self._forget(key, flight)
                    if flight.ended:
                        flight.close()

    def _forget(self, key: str, flight: _Flight) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]

    def _part(self, key: str) -> Callable[[], Path]:
        def make() -> Path:
            self._folder.mkdir(parents=True, exist_ok=True)
            return self._folder / f"{key}.{next(self._numbers)}.part"

        return make

    def _kept(self, key: str) -> BinaryIO | None:
        """Open a kept file; once open it may be removed without harm. Called under the lock."""
        if key not in self._sizes:
            return None
        self._sizes.move_to_end(key)
        try:
            return (self._folder / key).open("rb")
        except FileNotFoundError:
            # Somebody emptied the folder: build again.
            del self._sizes[key]
            return None

    def _evict(self) -> None:
        used = sum(self._sizes.values())
        while used > self._limit and self._sizes:
            key, size = self._sizes.popitem(last=False)
            used -= size
            (self._folder / key).unlink(missing_ok=True)

    def _adopt(self) -> None:
        if not self._folder.is_dir():
            return
        for path in sorted(self._folder.iterdir(), key=lambda path: path.stat().st_mtime):
            if _NAME.match(path.name):
                self._sizes[path.name] = path.stat().st_size
            elif path.suffix == ".part":
                path.unlink()
        self._evict()


class _AbandonedError(Exception):
    """Nobody follows the build any more."""


class _Flight:
    """One build: its bytes so far, in memory up to 1 MiB and in a file beyond, for any number of readers."""

    def __init__(self) -> None:
        self.readers = 0
        self.abandoned = False
        self.part: Path | None = None
        self.size = 0
        self._blocks: list[bytes] = []
        self._file: BinaryIO | None = None
        self._error: BaseException | None = None
        self.ended = False
        self._changed = threading.Condition()

    def add(self, block: bytes, part: Callable[[], Path]) -> None:
        """Append a block; only the builder's thread does."""
        if self._file is None and self.size + len(block) > _SPILL:
            self._spill(part())
        if self._file is not None:
            self._file.write(block)
            self._file.flush()
        with self._changed:
            if self._file is None:
                self._blocks.append(block)
            self.size += len(block)
            self._changed.notify_all()

    def _spill(self, part: Path) -> None:
        file = part.open("w+b")
        for block in self._blocks:
            file.write(block)
        with self._changed:
            self.part, self._file, self._blocks = part, file, []

    def whole(self) -> bytes:
        """Give all bytes of an answer that stayed in memory."""
        return b"".join(self._blocks)

    def end(self, error: BaseException | None) -> None:
        """Say that nothing more comes; after a failure the file goes too."""
        with self._changed:
            self.ended, self._error = True, error
            self._changed.notify_all()
        if error is not None and self.part is not None:
            self.part.unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of the file; nobody reads any more."""
        if self._file is not None:
            self._file.close()

    def read(self, at: int) -> bytes | None:
        """Wait for bytes behind `at`: a block, b"" if none came in time, None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self.size > at or self.ended, IDLE_SECONDS)
            if self._error is not None:
                raise self._error
            if self.size <= at:
                return None if self.ended else b""
            file, blocks, size = self._file, list(self._blocks), self.size
        if file is None:
            return b"".join(blocks)[at:]
        return os.pread(file.fileno(), min(BLOCK, size - at), at)


def _beyond(blocks: Iterator[bytes], at: int) -> Iterator[bytes]:
    """Leave out the first `at` bytes."""
    for block in blocks:
        if at < len(block):
            yield block[at:]
        at = max(0, at - len(block))


def _read(file: BinaryIO | None) -> Iterator[bytes]:
    if file is not None:
        with file:
            while block := file.read(BLOCK):
                yield block
