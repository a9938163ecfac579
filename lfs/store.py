"""What any shelf of immutable bytes must do.

    lfs/ab/cd/<oid>                         an LFS object that came through the server
    lfs/ab/cd/<oid>.<upload>                one that came by a way of its own: one key per upload
    git/ab/cd/<sha256>                      git packs, their indexes and sidecars; shared by forks
    xet/xorbs/ab/<hash>.<random>            a xorb's body; xet/tables/… its table, under the same name
    xet/shards/ab/<sha256>                  shards as they were filed
    xet/files/<hash>                        no bytes of its own: a file that is put together from xorbs
    derived/<sha>/<name>                    may be lost, is rebuilt
    staging/<upload>                        unproven bytes, swept after days
    tmp/…                                   a disk shelf's own; no key starts like this

Keys are made from validated hex and our own ids, never from text that a user typed. A key never changes bytes.
Errors are permanent (`Missing`, `Mismatch`, `NoSpace`, `Denied`, `Damaged`) or transient (`Unavailable`).
"""

from __future__ import annotations

import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Literal, Protocol, Self

from lfs.errors import BadKey, Damaged, DigestMismatch, RangeUnsatisfiable, SizeMismatch

# Blocks of 64 KiB cost three times the CPU of blocks of 1 MiB, from a disk as well as to a socket.
PIECE = 1 << 20

FILES = "xet/files/"

_KEY = re.compile(r"[a-z0-9][a-z0-9._-]*(?:/[a-z0-9][a-z0-9._-]*)*")
_OID = re.compile(r"[0-9a-f]{64}")


class Readable(Protocol):
    """Anything with a file's `read`."""

    def read(self, size: int = -1, /) -> bytes:
        """Return up to `size` bytes, b"" at the end."""


class Descriptor(Protocol):
    """Anything that holds a file open."""

    def fileno(self) -> int:
        """Return the number by which the operating system knows it."""


Source = bytes | Path | Readable | Iterable[bytes]


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes `start` to `end`, the last one not included."""

    start: int
    end: int

    @property
    def size(self) -> int:
        """Length in bytes."""
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Stat:
    """What lies under a key: bytes, an opaque tag, when it came (aware UTC), and where, if on a disk of ours."""

    size: int
    etag: str
    at: datetime
    path: Path | None = None


@dataclass(frozen=True, slots=True)
class Verified:
    """Bytes that passed through our hands: `sha256` is 64 hex digits, computed, not believed."""

    key: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Signed:
    """A URL that carries its own leave, and the headers that must be sent with it, verbatim."""

    href: str
    headers: dict[str, str]


class Reader(ABC):
    """The bytes of a key or of a span of it: in order, once, exactly `size` of them or an exception."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._left = size

    def read(self, size: int = PIECE, /) -> bytes:
        """Return the next 1 to min(size, 1 MiB) bytes; b"" only after the last.

        Raises: Damaged (the shelf ended early), Unavailable.
        """
        if not self._left:
            return b""
        piece = self._piece(min(size if size > 0 else PIECE, PIECE, self._left))
        if not piece:
            raise Damaged(f"The store ended {self._left} bytes early; run `weightroom fsck --read-data`.")
        self._left -= len(piece)
        return piece

    def read_all(self) -> bytes:
        """Return everything that is left; for objects known to be small."""
        return b"".join(self)

    def in_file(self) -> tuple[Descriptor, int] | None:
        """Say in which file, and from which byte on, the rest lies as it is; None where it only comes by `read`.

        The file is open as long as the reader is, and as long as it should be: shorter only if it is damaged.
        """
        return None

    @abstractmethod
    def _piece(self, limit: int) -> bytes:
        """Return 1 to `limit` bytes, b"" if the shelf has no more."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the file or connection; may be repeated."""

    def __iter__(self) -> Iterator[bytes]:
        while piece := self.read():
            yield piece

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class Part:
    """A part that the shelf holds: the tag by which `finish` names it, and its bytes."""

    tag: str
    size: int


Enforced = Literal["content_sha256", "checksum_sha256", "none"]


@dataclass(frozen=True, slots=True)
class Probe:
    """What trying it out showed of a shelf: which signed digest it enforces, and every single answer, for people."""

    enforces: Enforced
    details: Mapping[str, str]


class Parts(Protocol):
    """A large object on its way to one key, in parts numbered from 1, each but the last of exactly `part_size` bytes.

    Several threads or processes may send parts; `session` is what another process needs to go on. A last part is
    known by being shorter, or by being the last one that `finish` is told of.
    """

    @property
    def session(self) -> str:
        """The shelf's own name of this upload; empty until it is begun, and on shelves that need none."""

    def begin(self) -> str:
        """Open the upload on the shelf, if it is not open, and return its session. Raises: NoSpace, Unavailable."""

    def url(self, number: int, size: int, seconds: int) -> Signed | None:
        """Sign leave to PUT part `number` of `size` bytes to the shelf itself; None means "ask me to stream"."""

    def put(self, number: int, source: Source, size: int) -> str:
        """Take part `number` of `size` bytes and return its tag; durable at return; repeating a part replaces it.

        Raises: SizeMismatch, Missing (aborted meanwhile), NoSpace, Unavailable, Denied (rclone refuses to replace a
        part by other bytes).
        """

    def sent(self) -> Mapping[int, Part]:
        """Return the parts that the shelf holds whole, by number. Raises: Unavailable."""

    def finish(self, parts: Sequence[tuple[int, str]]) -> Stat:
        """Join `(number, tag)` in this order under the key, durably; the same list again is success.

        Does not copy the bytes and hashes nothing: the caller reads back before it believes.
        Raises: Missing (a part, or its tag), Unavailable.
        """

    def abort(self) -> None:
        """Drop every part; may be repeated, and after `finish` does nothing."""


class ObjectStore(Protocol):
    """Immutable bytes under keys. Thread-safe, synchronous; inhabitants: a disk, a bucket, memory in tests."""

    @property
    def waits(self) -> bool:
        """True if a put waits for a device or a network, so that several at a time are faster than one by one."""

    def stat(self, key: str) -> Stat:
        """Say what lies under `key`. Repeatable. Raises: Missing, Denied, Unavailable."""

    def open(self, key: str, span: Span | None = None) -> Reader:
        """Open the bytes of one version, or the `span` of them, for one reader.

        A delete does not disturb a reader that is open on a disk.
        Raises: Missing, RangeUnsatisfiable (a span that is not within the object), Denied, Unavailable.
        """

    def put(self, key: str, source: Source, size: int, sha256: str | None = None) -> Verified:
        """Keep `size` bytes under `key`, hashing as they pass.

        Whole or nothing: visible only if size and hash agree. Durable at return. Repeatable: an existing key of
        that size is left alone, with the input drained and judged all the same. A `Path` may be adopted by rename:
        afterwards the caller relies neither on its presence nor on its absence.
        Raises: SizeMismatch, DigestMismatch, NoSpace, Damaged (the key holds another size), Denied, Unavailable.
        """

    def copy(self, source: str, key: str) -> Stat:
        """Give the bytes under `source` a second name.

        Whole or nothing, durable at return; repeating it after success is success, also when `source` is gone.
        Raises: Missing (nothing at `source` nor at `key`), Damaged, NoSpace, Denied, Unavailable.
        """

    def parts(self, key: str, part_size: int, session: str = "") -> Parts:
        """Return an upload to `key` in parts, or one to go on with; the key belongs to that one upload."""

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
        """Sign leave for a client to go to the shelf itself, for `seconds`; asks the shelf nothing.

        None means "ask me to stream": the shelf cannot, or cannot bind all that was asked; never weaker than asked.
        A PUT with `sha256` is signed only on a shelf that was found to enforce it; one without binds `size` alone.
        """

    def delete(self, key: str) -> None:
        """Remove the bytes; absent is success; durable at return on a disk. Raises: Denied, Unavailable."""

    def walk(self, prefix: str = "", after: str = "") -> Iterator[str]:
        """Yield the keys that start with `prefix` and sort after `after`, in byte order; for upkeep, may be stale."""

    def sweep(self, seconds: float) -> int:
        """Drop what writers and uploads in parts left unfinished and untouched for `seconds`; return how many."""

    def probe(self) -> Probe:
        """Find out, by trying, what the shelf enforces; leaves nothing behind. Raises: Denied, Unavailable."""

    def believe(self, probe: Probe) -> None:
        """Sign uploads as this finding allows; before it none is signed that needs a digest enforced."""


def check_key(key: str) -> str:
    """Return `key` if it is one that our rooms make. Raises: BadKey."""
    if len(key) > 200 or not _KEY.fullmatch(key) or ".." in key or key.startswith("tmp/"):
        raise BadKey(f"{key[:80]!r} is no key of the store; keys are built from hashes and upload ids.")
    return key


def lfs_key(oid: str, upload: str = "") -> str:
    """Return where an LFS object lies: its shared key, or with `upload` a key of that upload's own. Raises: BadKey."""
    if not _OID.fullmatch(oid):
        raise BadKey("An oid is 64 lower-case hex digits.")
    return check_key(f"lfs/{oid[:2]}/{oid[2:4]}/{oid}" + (f".{upload}" if upload else ""))


def staging_key(upload: str) -> str:
    """Return where a client may put the unproven bytes of an upload in one piece. Raises: BadKey."""
    return check_key(f"staging/{upload}")


def xorb_keys(hash: str, suffix: str) -> tuple[str, str]:
    """Return where a xorb's body and its table lie; no two proofs share a suffix. Raises: BadKey."""
    name = f"{hash[:2]}/{hash}.{suffix}"
    return check_key(f"xet/xorbs/{name}"), check_key(f"xet/tables/{name}")


def shard_key(sha256: str) -> str:
    """Return where a shard lies, by its SHA-256. Raises: BadKey."""
    return check_key(f"xet/shards/{sha256[:2]}/{sha256}")


def file_key(hash: str) -> str:
    """Return the name under which a store with Xet files serves one, by the text form of its hash. Raises: BadKey."""
    return check_key(f"{FILES}{hash}")


def check_span(span: Span | None, size: int) -> Span:
    """Return the span to read of `size` bytes, all of them when none is asked. Raises: RangeUnsatisfiable."""
    whole = span or Span(0, size)
    if not 0 <= whole.start <= whole.end <= size:
        raise RangeUnsatisfiable(f"Bytes {whole.start} to {whole.end} are not within {size} bytes.", size=size)
    return whole


def pieces(source: Source) -> Iterator[bytes]:
    """Yield the bytes of any kind of source, in pieces of at most 1 MiB when the source lets us choose."""
    if isinstance(source, Path):
        with source.open("rb", buffering=0) as file:
            yield from pieces(file)
    elif isinstance(source, bytes):
        yield from (source[at : at + PIECE] for at in range(0, len(source), PIECE))
    elif isinstance(source, Iterable) and not hasattr(source, "read"):
        yield from source
    else:
        while piece := source.read(PIECE):
            yield piece


class Judge:
    """Hash and count bytes on their way, and say at the end whether they are the announced ones."""

    def __init__(self, size: int, sha256: str | None) -> None:
        self._size, self._sha256 = size, sha256
        self._seen, self._hash = 0, hashlib.sha256()

    def feed(self, piece: bytes) -> None:
        """Take the next piece; refuse at the first byte too many. Raises: SizeMismatch."""
        self._seen += len(piece)
        if self._seen > self._size:
            raise SizeMismatch(f"More than the announced {self._size} bytes arrived; announce the true size.")
        self._hash.update(piece)

    def verdict(self, key: str) -> Verified:
        """Say that the bytes are the announced ones. Raises: SizeMismatch, DigestMismatch."""
        if self._seen != self._size:
            raise SizeMismatch(f"{self._seen} of the announced {self._size} bytes arrived; send the object again.")
        found = self._hash.hexdigest()
        if self._sha256 is not None and found != self._sha256:
            raise DigestMismatch(f"The bytes hash to {found}, not to {self._sha256}; check the file and send it again.")
        return Verified(key, self._size, found)
