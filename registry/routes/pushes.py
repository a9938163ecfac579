"""One push over HTTP: blocks of a body → commands and a pack in quarantine → the gate → the report.

Blocks are pushed in as they arrive, so a slow client holds no thread.
"""

from __future__ import annotations

import errno
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from registry.errors import RegistryError
from registry.git import receive_pack
from registry.git.pkt import Gunzip, PktError, PktReader
from registry.git.quarantine import Quarantine
from registry.git.receive_pack import Push, Result
from registry.git.snapshot import Snapshot
from registry.git.verdict import Limits
from registry.routes.judging import Judging, Pusher

_MOST_HELD = 64 << 20
_UNPACK = "unpacker error"


class Pushes:
    """Takes pushes in. Thread-safe; each push is an `Intake` of its own."""

    def __init__(
        self,
        *,
        judging: Judging,
        quarantine: Path,
        limits: Limits,
        agent: str,
        fsync: bool = True,
        names: Callable[[], str] = lambda: secrets.token_hex(16),
    ) -> None:
        self._judging = judging
        self._folder = quarantine
        self._limits = limits
        self._agent = agent
        self._fsync = fsync
        self._names = names

    def advertisement(self, snapshot: Snapshot) -> bytes:
        """List the refs and what a push may ask for."""
        return receive_pack.advertise(snapshot, agent=self._agent)

    def intake(self, *, gzipped: bool) -> Intake:
        """Begin to take a push in."""
        return Intake(self._new_file, Gunzip(self._limits.pack) if gzipped else None)

    def _new_file(self) -> Quarantine:
        return Quarantine(self._folder, self._names(), self._limits, fsync=self._fsync)

    def finish(self, intake: Intake, pusher: Pusher) -> Iterator[bytes]:
        """Bring a push that was taken in whole through the gate; yield messages while it is judged, then the report."""
        push = intake.push
        if push is None or not push.commands:
            return
        if intake.refused is not None:
            results = [Result(command.name, _UNPACK) for command in push.commands]
            yield receive_pack.report(intake.refused, results, push)
            return
        yield from self._judging.answer(push, pusher, intake.pack, intake.close)


class Intake:
    """One push being received. Not for use by two threads at once; `close` removes what is left of it."""

    def __init__(self, open_file: Callable[[], Quarantine], inflater: Gunzip | None) -> None:
        self.push: Push | None = None
        self.refused: str | None = None
        """Why the pack cannot be taken; what else comes of it is ignored."""
        self.pack: Path | None = None
        self._open_file = open_file
        self._inflater = inflater
        self._held: list[bytes] = []
        self._file: Quarantine | None = None

    def feed(self, block: bytes) -> None:
        """Take the next block of the body.

        Raises: PktError (commands that are none), TooLarge (a gzip body beyond its bound), OSError.
        """
        if self._inflater is None:
            self._take(block)
            return
        for piece in self._inflater.feed(block):
            self._take(piece)

    def end(self) -> None:
        """Take the end of the body: the pack must be whole now.

        Raises: PktError (the body ends before its commands do), OSError.
        """
        if self._inflater is not None:
            self._inflater.end()
        if self.push is None and any(self._held):
            self._read_commands(ended=True)
        if self._file is None or self.refused is not None:
            return
        with self._refusing():
            self.pack = self._file.finish().path

    def close(self) -> None:
        """Remove the quarantined pack, unless the gate has moved it away."""
        if self._file is not None:
            self._file.discard()

    def _take(self, data: bytes) -> None:
        if self.push is not None:
            self._write(data)
            return
        self._held.append(data)
        if sum(map(len, self._held)) > _MOST_HELD:
            raise PktError(f"the commands of a push are above {_MOST_HELD} bytes")
        self._read_commands(ended=False)

    def _read_commands(self, *, ended: bool) -> None:
        """Read the commands if they are here whole; what follows them is the pack."""
        data = b"".join(self._held)
        chunks = _Chunks(data, ended)
        reader = PktReader(chunks)
        try:
            push = receive_pack.read_push(reader)
        except _DryError:
            self._held = [data]
            return
        self.push, self._held, chunks.ended = push, [], True
        if push.brings_pack:
            with self._refusing():
                self._file = self._open_file()
        for piece in reader.rest():
            self._write(piece)

    def _write(self, data: bytes) -> None:
        if self._file is None or self.refused is not None or not data:
            return
        with self._refusing():
            self._file.write(data)

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        """Keep for the report why the pack cannot be taken: git shows its user no status of HTTP, only that."""
        try:
            yield
        except RegistryError as error:
            self._refuse(error.message)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            self._refuse("the server's disk is full; ask its operator to free space, then push again")

    def _refuse(self, reason: str) -> None:
        self.refused = reason
        self.close()


class _DryError(Exception):
    """More of the body is needed to read on."""


class _Chunks:
    """One chunk, then the end, or, if more is to come, `_DryError`."""

    def __init__(self, data: bytes, ended: bool) -> None:
        self._data: bytes | None = data
        self.ended = ended

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        data, self._data = self._data, None
        if data is not None:
            return data
        if self.ended:
            raise StopIteration
        raise _DryError
