"""An upload in parts on a disk: every part at its place in one sparse file, so that joining them is a rename.

    tmp/parts-<hash of the key>/bytes   part n begins at (n - 1) * part_size; this file becomes the object
    tmp/parts-<hash of the key>/sent    row n at (n - 1) * 32, and the lock between writers

    row = 16 B writer | u64 size, all ones while the part is on its way | u32 CRC-32 of the part | u32 CRC-32 of the row

A writer claims the row before its first byte, and looks before each piece, under the lock, whether the row is still
its own and the file still here. So of two writers of one part the later one wins and the bytes of the two never mix,
and nobody writes to a file that has become an object. A row that a crash tore fails its CRC: that part was not sent.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import struct
import uuid
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lfs.disk import Disk, locked, opened, told, write_all
from lfs.errors import Missing, SizeMismatch, Unavailable
from lfs.store import Part, Signed, Source, Stat, check_key, pieces

MOST_PARTS = 10_000
_ROW = struct.Struct(">16sQII")
_ON_ITS_WAY = (1 << 64) - 1


class LocalParts:
    """Parts of one object; a tag is the CRC-32 of a part, to tell it from one that replaced it.

    What the bytes are is proven later, by whoever reads them back: no hash is spent on that here.
    """

    session = ""

    def __init__(self, disk: Disk, key: str, part_size: int, stat: Callable[[str], Stat]) -> None:
        self._disk, self._key, self._part_size, self._stat = disk, check_key(key), part_size, stat
        self._final = disk.root / key
        self._folder = disk.tmp / f"parts-{hashlib.sha256(key.encode()).hexdigest()[:32]}"
        self._bytes, self._sent = self._folder / "bytes", self._folder / "sent"

    def begin(self) -> str:
        """Make the two files, durably; no session is needed beside the key."""
        if self._final.exists():
            return ""
        self._disk.room_for(0)
        with told(self._key), self._table(make=True) as sent:
            if not self._bytes.exists():
                os.ftruncate(sent, 0)
                with opened(self._bytes, os.O_WRONLY | os.O_CREAT):
                    pass
            # Also when both were here: another process may have made them and not yet got to this line.
            self._disk.sync_folder(self._folder)
            self._disk.sync_folder(self._disk.tmp)
        return ""

    def url(self, number: int, size: int, seconds: int) -> Signed | None:
        """Answer None: the server streams."""
        return None

    def put(self, number: int, source: Source, size: int) -> str:
        """Take part `number`; the bytes and then the row are durable at return."""
        if not 1 <= number <= MOST_PARTS:
            raise Missing(f"An upload has parts 1 to {MOST_PARTS}; there is no part {number}.")
        if size > self._part_size:
            raise SizeMismatch(f"Part {number} is of {size} bytes; a part of this upload has {self._part_size}.")
        self._disk.room_for(size)
        self.begin()
        writer = uuid.uuid4().bytes
        with told(self._key):
            file = self._claim(number, writer)
        try:
            check = self._write(file, number, source, size, writer)
            with told(self._key):
                # The same descriptor that wrote: only it is sure to hear of a page that did not reach the disk.
                self._disk.sync(file)
                self._record(number, _Row(writer, size, check))
        finally:
            os.close(file)
        return _tag(check)

    def sent(self) -> Mapping[int, Part]:
        """Read the rows of whole parts."""
        try:
            table = self._sent.read_bytes()
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise Unavailable(f"The store's disk failed ({error.strerror}); try again.") from error
        return {number: Part(_tag(row.check), row.size) for number, row in _rows(table) if row.whole}

    def finish(self, parts: Sequence[tuple[int, str]]) -> Stat:
        """Give the file its name."""
        if not self._finished():
            try:
                self._join(parts)
            except Missing:
                # Of two that finish at once the second finds the parts gone and the object there.
                if not self._finished():
                    raise
        return self._stat(self._key)

    def abort(self) -> None:
        """Drop the files; a writer that is still at it is refused at its next piece."""
        with told(self._key):
            drop(self._folder)

    def _finished(self) -> bool:
        with told(self._key):
            if not self._final.exists():
                return False
            # Whoever renamed it may not have come to this yet.
            self._disk.sync_folder(self._final.parent)
        return True

    def _join(self, parts: Sequence[tuple[int, str]]) -> None:
        with told(self._key), self._table() as sent:
            size = self._size_of(dict(_rows(_read(sent))), parts)
            # A part that was sent and is not named is no longer one, before its bytes go.
            os.ftruncate(sent, len(parts) * _ROW.size)
            with opened(self._bytes, os.O_RDWR) as file:
                os.ftruncate(file, size)
                os.fchmod(file, 0o444)
                # Every part is synced already: this waits for the mode, not for the bytes.
                self._disk.sync(file)
            with self._disk.naming(self._final.parent):
                os.rename(self._bytes, self._final)
            shutil.rmtree(self._folder, ignore_errors=True)

    def _size_of(self, rows: Mapping[int, _Row], parts: Sequence[tuple[int, str]]) -> int:
        """Check what `finish` was told against what was sent, and return the size of the whole."""
        if not parts:
            raise Missing(f"No part of {self._key} was named; an upload in parts has one at least.")
        for place, (number, tag) in enumerate(parts, 1):
            row = rows.get(number)
            if number != place or row is None or not row.whole or _tag(row.check) != tag:
                raise Missing(f"Part {number} with the tag {tag[:40]!r} was not sent as part {place}; send it again.")
            if place < len(parts) and row.size != self._part_size:
                raise Missing(f"Part {number} has {row.size} bytes and is not the last; send it again, whole.")
        return sum(rows[number].size for number, _ in parts)

    def _claim(self, number: int, writer: bytes) -> int:
        """Make the row this writer's and return a descriptor of the file that goes with it."""
        with self._table() as sent:
            replaced = _row(sent, number)
            os.pwrite(sent, _Row(writer, _ON_ITS_WAY, 0).packed(), _at(number))
            if replaced is not None and replaced.whole:
                # Otherwise a power cut could leave the old row beside some of the new bytes.
                self._disk.sync(sent)
            # A crash in `finish` may have left it read-only.
            os.chmod(self._bytes, 0o600)
            return os.open(self._bytes, os.O_WRONLY | os.O_CLOEXEC)

    def _write(self, file: int, number: int, source: Source, size: int, writer: bytes) -> int:
        """Put the bytes at their place, counted; return their CRC-32."""
        start, seen, check = (number - 1) * self._part_size, 0, 0
        for piece in pieces(source):
            if seen + len(piece) > size:
                raise SizeMismatch(f"More than the announced {size} bytes came as part {number}; send it again.")
            with told(self._key), self._table(fcntl.LOCK_SH) as sent:
                self._check_mine(sent, number, writer)
                write_all(file, piece, start + seen)
            seen, check = seen + len(piece), zlib.crc32(piece, check)
        if seen != size:
            raise SizeMismatch(f"{seen} of the announced {size} bytes came as part {number}; send it again.")
        return check

    def _record(self, number: int, row: _Row) -> None:
        with self._table() as sent:
            self._check_mine(sent, number, row.writer)
            os.pwrite(sent, row.packed(), _at(number))
            self._disk.sync(sent)

    def _check_mine(self, sent: int, number: int, writer: bytes) -> None:
        row = _row(sent, number)
        if row is None or row.writer != writer:
            raise Unavailable(f"Part {number} is being sent a second time; the later request goes on.")
        if not self._bytes.exists():
            raise self._dropped()

    def _dropped(self) -> Missing:
        return Missing(f"The upload of {self._key} was finished or dropped; begin a new one.")

    @contextmanager
    def _table(self, kind: int = fcntl.LOCK_EX, *, make: bool = False) -> Iterator[int]:
        """Hold the table of this upload under its lock, made if need be. Raises: Missing (it was dropped)."""
        for _ in range(100):
            if make:
                self._folder.mkdir(exist_ok=True)
            try:
                table = os.open(self._sent, os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if make else 0), 0o600)
            except FileNotFoundError:
                if make:
                    continue
                break
            try:
                with locked(table, kind):
                    # Dropped while we waited: what we hold has no name any more.
                    if os.fstat(table).st_nlink:
                        yield table
                        return
            finally:
                os.close(table)
            if not make:
                break
        raise self._dropped()


@dataclass(frozen=True, slots=True)
class _Row:
    writer: bytes
    size: int
    check: int

    @property
    def whole(self) -> bool:
        return self.size != _ON_ITS_WAY

    def packed(self) -> bytes:
        row = _ROW.pack(self.writer, self.size, self.check, 0)
        return row[:-4] + struct.pack(">I", zlib.crc32(row[:-4]))


def drop(folder: Path, older_than: float | None = None) -> bool:
    """Remove an upload, under its lock; with `older_than` (Unix seconds) only if nothing of it is younger."""
    try:
        with opened(folder / "sent", os.O_RDWR) as table, locked(table):
            return _drop(folder, older_than)
    except FileNotFoundError:
        return _drop(folder, older_than)


def _drop(folder: Path, older_than: float | None) -> bool:
    try:
        newest = max(path.stat().st_mtime for path in (folder, *folder.iterdir()))
    except FileNotFoundError:
        return False
    if older_than is not None and newest >= older_than:
        return False
    shutil.rmtree(folder, ignore_errors=True)
    return True


def _rows(table: bytes) -> Iterator[tuple[int, _Row]]:
    for number in range(1, len(table) // _ROW.size + 1):
        if row := _parsed(table[_at(number) : _at(number + 1)]):
            yield number, row


def _row(table: int, number: int) -> _Row | None:
    return _parsed(os.pread(table, _ROW.size, _at(number)))


def _read(table: int) -> bytes:
    return os.pread(table, MOST_PARTS * _ROW.size, 0)


def _parsed(raw: bytes) -> _Row | None:
    """Read a row; None for one that was never written, or not to its end."""
    if len(raw) < _ROW.size:
        return None
    writer, size, check, own = _ROW.unpack(raw)
    return _Row(writer, size, check) if own == zlib.crc32(raw[:-4]) else None


def _at(number: int) -> int:
    return (number - 1) * _ROW.size


def _tag(check: int) -> str:
    return f"{check:08x}"
