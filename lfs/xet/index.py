"""What the Xet rooms ask about xorbs, files and who may read them: `XetIndex`, and the values that it deals in.

A hash is 32 raw bytes here and everywhere below the routes; only the wire has the text form. A domain is the circle
within which content is deduplicated, an opaque id: what lies in another one is never seen from here.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

Scope = Literal["read", "write"]

_TERM = struct.Struct("<32sIIQ")


@dataclass(frozen=True, slots=True)
class Leave:
    """What a token says: who may do what in which repo, until when (Unix seconds). `actor_id` 0 is nobody.

    It ends with the token of the Hub for which it was given; `token_id` 0 says that there was none.
    """

    repo_id: int
    actor_id: int
    domain: str
    scope: Scope
    expires: int
    token_id: int = 0


@dataclass(frozen=True, slots=True)
class Xorb:
    """A xorb whose bytes were proven: where its body and its table lie, the body's bytes, its chunks and raw bytes."""

    hash: bytes
    key: str
    table: str
    size: int
    raw_size: int
    chunks: int


@dataclass(frozen=True, slots=True)
class Part:
    """A term of a file as it is kept: chunks `start` to `end` of a xorb, and where in the file their bytes begin."""

    xorb: bytes
    start: int
    end: int
    at: int


@dataclass(frozen=True, slots=True)
class File:
    """A file by its chunks; `terms` are 48 bytes each: xorb[32], u32 start, u32 end, u64 offset, little-endian."""

    hash: bytes
    size: int
    terms: bytes

    def parts(self) -> Iterator[Part]:
        """Read the terms, in the order of the file."""
        return (Part(*fields) for fields in _TERM.iter_unpack(self.terms))


@dataclass(frozen=True, slots=True)
class Filing:
    """One file of a shard that was checked: `sha256` is what the client says (64 hex digits), empty if it says none.

    `marks` are the chunks by which others may find the file, each with the xorb that has it.
    """

    file: File
    sha256: str
    marks: tuple[tuple[bytes, bytes], ...] = ()


@dataclass(frozen=True, slots=True)
class Marked:
    """What a mark leads to: a file, and the xorb that had the chunk when it was filed.

    That xorb may be gone, and the file may be kept by the terms of another shard, without it.
    """

    file: File
    xorb: bytes


@dataclass(frozen=True, slots=True)
class Granted:
    """Leave to put the bytes of one xorb straight into the store, under a key that no other PUT ever names."""

    id: str
    domain: str
    hash: bytes
    key: str
    length: int
    expires: int


def packed(parts: Sequence[Part]) -> bytes:
    """Lay terms out as `File` keeps them."""
    return b"".join(_TERM.pack(part.xorb, part.start, part.end, part.at) for part in parts)


class XetIndex(Protocol):
    """The rows of a registry, or a memory index in tests. Synchronous, thread-safe, called on worker threads.

    Every method may also raise Busy (the rows do not answer).
    """

    def enter(self, leave: Leave, generation: int) -> None:
        """Look whether leave still holds: repo alive, actor not revoked, the generation one that there is.

        Raises: BadToken (the actor or their token is gone), RepoAbsent (the repo is gone), ObjectAbsent (no such
        generation yet).
        """

    def renew(self, domain: str) -> None:
        """Begin a new generation of a domain, at most every ten minutes: its clients forget which xorbs they know.

        For shards that name one that is gone.
        """

    def live(self, domain: str, hashes: Collection[bytes]) -> Mapping[bytes, Xorb]:
        """Return those of these xorbs that a shard of this domain may name."""

    def check(self, leave: Leave, hash: bytes, size: int) -> None:
        """Look whether a xorb of `size` bytes has room beside what the namespace of `leave` has and expects.

        For who is about to read them; nothing is noted. Raises: QuotaExceeded.
        """

    def keep(self, leave: Leave, xorb: Xorb) -> Xorb:
        """Make a proven xorb live in the domain of `leave`, promised; durable at return. Repeatable, also at once.

        It counts against the quota of the namespace for as long as it is promised, or until files are filed there that
        say a SHA-256 and have every chunk of it.
        Returns the xorb that is served: `xorb`, unless the store had it already, sound and under other keys: then the
        caller may delete its own. One that is condemned, quarantined or on its way out lives again, under these keys.
        Raises: QuotaExceeded, RepoAbsent; then nothing is changed.
        """

    def promise(self, domain: str, hashes: Collection[bytes]) -> None:
        """Keep xorbs for as long as clients may remember that we have them; written at most daily per xorb."""

    def grant(self, leave: Leave, granted: Granted) -> None:
        """Note a grant, whose length counts against the quota of the namespace until it expires. Durable at return.

        Raises: QuotaExceeded, RepoAbsent; then nothing is noted.
        """

    def granted(self, id: str) -> Granted:
        """Return a grant. Raises: ObjectAbsent (no such one, or it has expired)."""

    def drop_grant(self, id: str) -> None:
        """Forget a grant; absent is success."""

    def file(self, leave: Leave, filings: Sequence[Filing], shard: str, length: int = 0) -> bool:
        """File what a shard names, for the repo of `leave`; False if all of it was there before. Durable at return.

        Files, their xorbs, links of the repo, marks and promises; a link stays declared until its sha256 is proven.
        Condemned xorbs live again. `shard` is its SHA-256 in hex: files that are made or mended by it name it. What
        its `length` is beyond the bytes of its files counts as a xorb does; so does a file without a SHA-256, by its
        size, while its link lives.
        A shard of thousands of files is filed in groups, each of them whole or not at all; the xorbs and the quota are
        judged for all of it before the first. Who is cut off, or refused in between, leaves files that the next try
        finds there. Raises: ObjectAbsent (a xorb is not live in this domain any more), QuotaExceeded, RepoAbsent.
        """

    def find(self, repo_id: int, hash: bytes) -> File | None:
        """Return a file that this repo links, refuted links left out; None also if only others have it."""

    def whole(self, hash: bytes) -> File | None:
        """Return a file whoever links it: for readers who were let in by another door."""

    def located(self, hashes: Collection[bytes]) -> Mapping[bytes, Xorb]:
        """Return xorbs by hash in whatever domain, those that are quarantined or being deleted left out."""

    def around(self, domain: str, chunk: bytes) -> Marked | None:
        """Return the newest file of this domain that has this chunk as a mark, and where the chunk is."""

    def answer_key(self, domain: str, week: int) -> tuple[bytes, int]:
        """Return the key under which dedup answers of a week hide chunk hashes, 32 bytes and never zero, and when it
        ends, in Unix seconds; the same for all who ask."""

    def quarantine(self, hash: bytes, key: str, why: str = "has other bytes") -> None:
        """Note that the bytes under a key are not this xorb: nobody is told any more that it is here.

        Nothing happens if it lies under another key by now. `why` says in words for operators what "it" does.
        """
