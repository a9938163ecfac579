"""What a Xet shard says: files as runs of chunks, and the chunks of xorbs; pure.

    header   tag[32] · u64 version 2 · u64 bytes of the footer, 0 in an upload
    files    hash[32] · u32 flags (bit 31: proofs follow, bit 30: a SHA-256 follows) · u32 n · 8 unused
               n × xorb[32] · u32 0 · u32 unpacked bytes · u32 first chunk · u32 chunk after the last
               n × proof[32] · 16 unused
               1 × SHA-256[32] in the order of the text form · 16 unused
    bookend  FF × 32 · 00 × 16
    xorbs    hash[32] · u32 0 · u32 n · u32 unpacked bytes · u32 packed bytes
               n × hash[32] · u32 unpacked start · u32 unpacked bytes · u32 flags (bit 31: ask for it) · u32 0
    bookend
    footer   of answers: u64 1 · offsets of files and xorbs · 3 × (offset, count) of look-up tables · key[32]
             · u64 created · u64 expires · 48 zeros · u64 packed · u64 in files · u64 unpacked · u64 where it begins

Uploads need none. hf_xet before 1.3 announces one and leaves it out; before 1.1.10 it sends look-up tables as well.

Little-endian, in records of 48 bytes. Terms and chunks stay bytes until they are asked for: there may be a million.
Source: the CAS specification 1.1.0, and what hf_xet 1.1 to 1.8 sends.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar, overload

from lfs.errors import BadXet
from lfs.xet import hashes
from lfs.xet.formats import MAX_CHUNK, MAX_CHUNKS, MAX_RAW

_TAG = bytes.fromhex("48465265706f4d6574614461746100556967456a7b815783a5bdd95ccdd14aa9")
_VERSION, _FOOTER_VERSION, _RECORD = 2, 1, 48
_BOOKEND = b"\xff" * 32 + bytes(16)
_PROVEN, _NAMED, _ELIGIBLE = 1 << 31, 1 << 30, 1 << 31
_HEADER = struct.Struct("<32sQQ")
_FILE = struct.Struct("<32sII8x")
_TERM = _XORB = struct.Struct("<32s4xIII")
_HASH = struct.Struct("<32s16x")
_CHUNK = struct.Struct("<32sIII4x")
_FOOTER = struct.Struct("<QQQ6Q32sQQ48x4Q")
_TABLE_ROW = struct.Struct("<32sII")

Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class Term:
    """A run of chunks of one xorb, `end` exclusive, of `unpacked` bytes; `proof` is empty if the shard has none."""

    xorb: bytes
    unpacked: int
    start: int
    end: int
    proof: bytes


class Chunk(NamedTuple):
    """One chunk of a xorb, its place counted in unpacked bytes; `eligible` ones may be asked for."""

    hash: bytes
    start: int
    length: int
    eligible: bool


@dataclass(frozen=True, slots=True)
class FiledFile:
    """A file by its Xet hash; `sha256` is 64 hex digits, and empty if the shard names none."""

    hash: bytes
    terms: Sequence[Term]
    sha256: str

    @property
    def size(self) -> int:
        """Bytes of the file, as its terms claim."""
        return sum(term.unpacked for term in self.terms)


@dataclass(frozen=True, slots=True)
class FiledXorb:
    """A xorb by its hash, of `raw_size` unpacked bytes."""

    hash: bytes
    chunks: Sequence[Chunk]
    raw_size: int

    def agrees(self, table: bytes) -> bool:
        """True if the stored table of a xorb (see `dedup_answer`) has these chunks and no others."""
        stored = [(name, end) for name, _, end in _TABLE_ROW.iter_unpack(table)]
        return stored == [(name, at + length) for name, at, length, _ in _CHUNK.iter_unpack(_laid_out(self.chunks))]

    def eligible(self) -> list[int]:
        """Return which of the chunks may be asked for, by number."""
        return [at for at, flags in enumerate(_laid_out(self.chunks)[43::_RECORD]) if flags & _ELIGIBLE >> 24]


@dataclass(frozen=True, slots=True)
class Shard:
    """What one shard files."""

    files: tuple[FiledFile, ...]
    xorbs: tuple[FiledXorb, ...]


def parse(data: bytes) -> Shard:
    """Read an upload; counts and sums hold, the rest is the caller's to prove. Raises: BadXet, with words for users."""
    if len(data) < _HEADER.size or not data.startswith(_TAG):
        raise _broken("it does not begin as a shard does")
    _, version, footer = _HEADER.unpack_from(data)
    if version != _VERSION:
        raise _broken(f"it has version {version}, and {_VERSION} is spoken here")
    records = _Records(data)
    shard = Shard(tuple(_files(records)), tuple(_xorbs(records)))
    if records.left() and not 0 < footer <= records.left():
        raise _broken(f"{records.left()} bytes follow its end, and its header says {footer}")
    return shard


def build(shard: Shard) -> bytes:
    """Write an upload. Raises: BadXet if only some terms of a file have a proof."""
    parts = [_HEADER.pack(_TAG, _VERSION, 0)]
    for file in shard.files:
        proofs = [_HASH.pack(term.proof) for term in file.terms if term.proof]
        if proofs and len(proofs) != len(file.terms):
            raise BadXet("Either all terms of a file have a proof or none.")
        flags = _PROVEN * (len(proofs) == len(file.terms)) | _NAMED * bool(file.sha256)
        parts.append(_FILE.pack(file.hash, flags, len(file.terms)))
        parts += [_TERM.pack(term.xorb, term.unpacked, term.start, term.end) for term in file.terms]
        parts += proofs + ([_HASH.pack(hashes.parse(file.sha256))] if file.sha256 else [])
    parts.append(_BOOKEND)
    for xorb in shard.xorbs:
        parts += _written(xorb, 0)
    return b"".join([*parts, _BOOKEND])


def dedup_answer(blocks: Sequence[tuple[bytes, bytes]], *, key: bytes, created: int, expires: int) -> bytes:
    """Write an answer to "who has this chunk?": the chunks of xorbs, their hashes keyed.

    Each block is a xorb's hash and its table, n × (chunk hash[32] · u32 packed end · u32 unpacked end) as it is stored.
    `created` and `expires` are in Unix seconds; `key` is 32 bytes, not all zero: zero would mean plain hashes.
    """
    if not any(key):
        raise ValueError("a key that is zero would give plain hashes away")
    parts, packed, unpacked = [_HEADER.pack(_TAG, _VERSION, _FOOTER.size), _BOOKEND], 0, 0
    for name, table in blocks:
        chunks, raw, on_disk = [], 0, 0
        for chunk, packed_end, end in _TABLE_ROW.iter_unpack(table):
            chunks.append(Chunk(hashes.keyed(key, chunk), raw, end - raw, eligible=False))
            raw, on_disk = end, packed_end
        parts += _written(FiledXorb(name, chunks, raw), on_disk)
        packed, unpacked = packed + on_disk, unpacked + raw
    body = b"".join([*parts, _BOOKEND])
    # Look-up tables of no entries: the client then reads the xorbs one by one.
    places = (_FOOTER_VERSION, _HEADER.size, _HEADER.size + _RECORD, *(len(body), 0) * 3)
    return body + _FOOTER.pack(*places, key, created, expires, packed, 0, unpacked, len(body))


def _written(xorb: FiledXorb, packed: int) -> Iterator[bytes]:
    yield _XORB.pack(xorb.hash, len(xorb.chunks), xorb.raw_size, packed)
    yield _laid_out(xorb.chunks)


def _laid_out(chunks: Sequence[Chunk]) -> bytes:
    """Return chunks as they travel."""
    if isinstance(chunks, _Rows):
        return chunks.raw
    return b"".join([_CHUNK.pack(name, at, length, _ELIGIBLE * asked) for name, at, length, asked in chunks])


class _Records:
    """The records of a shard, taken in order; none is promised before it is seen to be there."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, _HEADER.size

    def left(self) -> int:
        return len(self._data) - self._at

    def take(self, count: int, what: str) -> bytes:
        size = count * _RECORD
        if size > self.left():
            raise _broken(f"it ends before the {what} that it announces")
        self._at += size
        return self._data[self._at - size : self._at]

    def until_bookend(self, what: str) -> Iterator[bytes]:
        while (record := self.take(1, what)) != _BOOKEND:
            yield record


class _Rows(Sequence[Row]):
    """Rows that stay bytes until they are asked for; equal to any sequence of the same rows."""

    __slots__ = ("_proofs", "_read", "raw")

    def __init__(self, read: Callable[[bytes, int, bytes], Row], raw: bytes, proofs: bytes = b"") -> None:
        self._read, self.raw, self._proofs = read, raw, proofs

    def __len__(self) -> int:
        return len(self.raw) // _RECORD

    @overload
    def __getitem__(self, at: int) -> Row: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[Row]: ...
    def __getitem__(self, at: int | slice) -> Row | Sequence[Row]:
        if isinstance(at, slice):
            return tuple(self)[at]
        return self._read(self.raw, range(0, len(self.raw), _RECORD)[at], self._proofs)

    def __iter__(self) -> Iterator[Row]:
        return (self._read(self.raw, at, self._proofs) for at in range(0, len(self.raw), _RECORD))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and tuple(self) == tuple(other)


def _term(raw: bytes, at: int, proofs: bytes) -> Term:
    xorb, unpacked, start, end = _TERM.unpack_from(raw, at)
    return Term(xorb, unpacked, start, end, proofs[at : at + 32])


def _chunk(raw: bytes, at: int, _: bytes) -> Chunk:
    name, start, length, flags = _CHUNK.unpack_from(raw, at)
    return Chunk(name, start, length, bool(flags & _ELIGIBLE))


def _files(records: _Records) -> Iterator[FiledFile]:
    seen = set()
    for record in records.until_bookend("files"):
        name, flags, count = _FILE.unpack(record)
        if flags & ~(_PROVEN | _NAMED):
            raise _broken("it says things of a file that are not understood here")
        if name in seen:
            raise _broken(f"file {hashes.text(name)} stands in it twice")
        if (name == hashes.EMPTY) != (count == 0):
            raise _broken("a file without terms has the hash of nothing, and no other file has it")
        seen.add(name)
        raw = records.take(count, "terms")
        proofs = records.take(count, "proofs") if flags & _PROVEN else b""
        digest = records.take(1, "SHA-256")[:32] if flags & _NAMED else b""
        _check_terms(raw)
        yield FiledFile(name, _Rows(_term, raw, proofs), hashes.text(digest) if digest else "")


def _check_terms(raw: bytes) -> None:
    for _, unpacked, start, end in _TERM.iter_unpack(raw):
        count = end - start
        if not 0 < count <= unpacked <= count * MAX_CHUNK or end > MAX_CHUNKS:
            raise _broken(f"chunks {start} to {end} of a xorb cannot have {unpacked} bytes")


def _xorbs(records: _Records) -> Iterator[FiledXorb]:
    for record in records.until_bookend("xorbs"):
        name, count, size, _ = _XORB.unpack(record)
        if not 0 < count <= MAX_CHUNKS or size > MAX_RAW:
            raise _broken(f"a xorb of {count} chunks and {size} bytes; the limits are {MAX_CHUNKS} and {MAX_RAW}")
        raw = records.take(count, "chunks")
        at = 0
        for _, start, length, _ in _CHUNK.iter_unpack(raw):
            if start != at or not 0 < length <= MAX_CHUNK:
                raise _broken(f"a chunk of {length} bytes at byte {start} of a xorb, where byte {at} is next")
            at += length
        if at != size:
            raise _broken(f"the chunks of a xorb have {at} bytes, and it says {size}")
        yield FiledXorb(name, _Rows(_chunk, raw), size)


def _broken(why: str) -> BadXet:
    return BadXet(f"This Xet shard cannot be filed: {why}. Upload again, with the newest hf_xet.")
