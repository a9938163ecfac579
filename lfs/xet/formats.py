"""Xorbs ↔ bytes: chunks that travel and lie together, each packed by itself; proven while they stream.

A xorb is chunks back to back, at most 8192 of them and 64 MiB packed. Numbers are little-endian.

    0   u8    version, 0
    1   u24   length of the payload
    4   u8    scheme: 0 as it is, 1 an LZ4 frame, 2 regrouped by four and then an LZ4 frame
    5   u24   length of the chunk, at most 128 KiB
    8   …     payload

Regrouped: bytes 0, 4, 8, …, then 1, 5, 9, …, then 2, 6, …, then 3, 7, …; the exponents of floats come to lie together.
An old client adds a footer, which starts with `XETBLOB`; it repeats what the headers say and is not kept.

The table of a xorb has a row for each chunk, and is stored with a check over them all:

    n × 40   hash[32], u32 where it ends in the xorb, u32 where it ends unpacked
    32       blake3 of the rows

The name of the xorb proves hashes and unpacked ends. Where chunks end in the xorb nothing proves but the check.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import Any

import lz4.frame

from lfs.errors import BadXet
from lfs.xet import hashes

MAX_CHUNK = 131_072
MAX_PAYLOAD = 262_144
MAX_CHUNKS = 8192
# hf_xet fills a xorb up to 64 MiB unpacked, JavaScript up to 64 MiB packed: what packs well is as many chunks then.
MAX_RAW = MAX_CHUNKS * MAX_CHUNK
HEADER = 8
MAX_BODY = (64 << 20) + HEADER * MAX_CHUNKS

STORED, LZ4, BG4 = range(3)

_HEADER = struct.Struct("<II")
_ROW = struct.Struct("<32sII")
_ENDS = struct.Struct("<32xII")
_HASHES = struct.Struct("<32s8x")
_FOOTER = b"XETBLOB"

_Bytes = bytes | bytearray | memoryview


class XorbTable:
    """Where the chunks of one xorb lie and what they are called: `rows` are 40 bytes for each."""

    __slots__ = ("body_size", "chunks", "raw_size", "rows")

    def __init__(self, rows: bytes) -> None:
        """Take rows that were proven; what was stored goes through `from_bytes`."""
        self.rows = rows
        self.chunks = len(rows) // _ROW.size
        self.body_size, self.raw_size = self._ends(self.chunks)

    @classmethod
    def from_bytes(cls, data: bytes) -> XorbTable:
        """Read a stored table. Raises: BadXet (any byte of it is another one, or rows that no xorb has)."""
        chunks, odd = divmod(len(data) - hashes.CHECK, _ROW.size)
        if odd or not 0 < chunks <= MAX_CHUNKS:
            raise BadXet(f"{len(data)} bytes are not the table of a xorb; build it again from the xorb.")
        rows, check = data[: -hashes.CHECK], data[-hashes.CHECK :]
        if hashes.check(rows) != check:
            raise BadXet("The table of a xorb does not hash to its check; build it again from the xorb.")
        body = raw = 0
        for body_end, raw_end in _ENDS.iter_unpack(rows):
            if not (HEADER < body_end - body <= HEADER + MAX_PAYLOAD and 0 < raw_end - raw <= MAX_CHUNK):
                raise BadXet("The ends in the table of a xorb do not rise as they should; build it again.")
            body, raw = body_end, raw_end
        return cls(rows)

    def to_bytes(self) -> bytes:
        """Return the table as it is stored, with its check."""
        return self.rows + hashes.check(self.rows)

    def hash(self, index: int) -> bytes:
        """Return the hash of a chunk. Raises: BadXet (no such chunk)."""
        self._within(index, index + 1)
        at = index * _ROW.size
        return self.rows[at : at + 32]

    def physical(self, start: int, end: int) -> tuple[int, int]:
        """Return where chunks [start, end) lie in the xorb: first byte, byte after the last. Raises: BadXet."""
        self._within(start, end)
        return self._ends(start)[0], self._ends(end)[0]

    def unpacked(self, start: int, end: int) -> int:
        """Return how many bytes chunks [start, end) are when unpacked. Raises: BadXet."""
        self._within(start, end)
        return self._ends(end)[1] - self._ends(start)[1]

    def chunk_at(self, offset: int) -> int:
        """Find the chunk that holds a byte of the unpacked xorb. Raises: BadXet (not that many bytes)."""
        if not 0 <= offset < self.raw_size:
            raise BadXet(f"The xorb has {self.raw_size} bytes, none at {offset}; ask within them.")
        return bisect_right(range(self.chunks), offset, key=lambda index: self._ends(index + 1)[1])

    def hashes(self, start: int, end: int) -> Iterator[bytes]:
        """Return the hashes of chunks [start, end). Raises: BadXet."""
        return (raw for (raw,) in _HASHES.iter_unpack(self._between(start, end)))

    def span(self, start: int, end: int) -> bytes:
        """Return the range hash of chunks [start, end). Raises: BadXet."""
        return hashes.span(self.hashes(start, end))

    def leaves(self, start: int, end: int) -> Iterator[tuple[bytes, int]]:
        """Return hash and unpacked length of chunks [start, end), as `hashes.file` takes them. Raises: BadXet."""
        rows = _ROW.iter_unpack(self._between(start, end))
        return _lengths(rows, self._ends(start)[1])

    def _ends(self, count: int) -> tuple[int, int]:
        """Return how many bytes the first `count` chunks are: in the xorb, unpacked."""
        return _ENDS.unpack_from(self.rows, (count - 1) * _ROW.size) if count else (0, 0)

    def _between(self, start: int, end: int) -> memoryview:
        self._within(start, end)
        return memoryview(self.rows)[start * _ROW.size : end * _ROW.size]

    def _within(self, start: int, end: int) -> None:
        if not 0 <= start < end <= self.chunks:
            raise BadXet(f"The xorb has {self.chunks} chunks, not {start} to {end}; name chunks that it has.")


def _lengths(rows: Iterator[tuple[Any, ...]], at: int) -> Iterator[tuple[bytes, int]]:
    for raw, _, end in rows:
        yield raw, end - at
        at = end


class XorbReader:
    """Proves a xorb that arrives in pieces of any size, keeping one chunk and the table.

    An error ends it: what was fed is no xorb, and the reader is good for nothing more.
    """

    def __init__(self) -> None:
        self._held = bytearray()
        self._need = HEADER
        self._rows = bytearray()
        self._body = self._raw = 0
        self._footer: int | None = None
        self._context: Any = lz4.frame.create_decompression_context()

    def feed(self, piece: bytes | bytearray | memoryview) -> None:
        """Take the next bytes, and prove each chunk that ends in them. Raises: BadXet."""
        rest = memoryview(piece)
        while rest:
            if self._footer is not None:
                self._skip(len(rest))
                return
            rest = self._fill(rest) if self._held or len(rest) < HEADER else self._direct(rest)

    def finish(self, expected: bytes) -> XorbTable:
        """Return the table, if the bytes end here and make the xorb of this hash. Raises: BadXet."""
        if self._held:
            raise BadXet("The xorb ends within a chunk; send all of its bytes.")
        chunks = len(self._rows) // _ROW.size
        if not chunks:
            raise BadXet("The xorb has no chunks; send only xorbs that have some.")
        if self._body > self._raw + HEADER * chunks:
            raise BadXet(f"The xorb packs {self._raw} bytes into {self._body}; store what does not pack as it is.")
        table = XorbTable(bytes(self._rows))
        found = hashes.xorb(table.leaves(0, chunks))
        if found != expected:
            raise BadXet(f"The chunks make xorb {hashes.text(found)}; send it under that name.")
        return table

    def _direct(self, rest: memoryview) -> memoryview:
        """Take a chunk from the piece that holds all of it, else begin to gather it; return what follows."""
        payload, scheme, size = self._announced(rest)
        if self._footer is not None:
            return rest
        end = HEADER + payload
        if len(rest) < end:
            self._held += rest
            self._need = end
            return rest[len(rest) :]
        self._take(rest[HEADER:end], scheme, size)
        return rest[end:]

    def _fill(self, rest: memoryview) -> memoryview:
        """Gather a chunk that spans pieces; return what follows."""
        missing = self._need - len(self._held)
        self._held += rest[:missing]
        if len(self._held) == self._need:
            payload, scheme, size = self._announced(self._held)
            if self._need > HEADER:
                whole, self._held, self._need = self._held, bytearray(), HEADER
                self._take(memoryview(whole)[HEADER:], scheme, size)
            elif self._footer is not None:
                self._held = bytearray()
            else:
                self._need += payload
        return rest[missing:]

    def _announced(self, data: _Bytes) -> tuple[int, int, int]:
        """Read the header of the next chunk and weigh it against the limits, or see that the footer begins."""
        if data[:7] == _FOOTER:
            self._footer = 0
            return 0, 0, 0
        payload, scheme, size = _header(data)
        if len(self._rows) >= MAX_CHUNKS * _ROW.size:
            raise BadXet(f"A xorb has at most {MAX_CHUNKS} chunks; begin another one.")
        if self._body + HEADER + payload > MAX_BODY:
            raise BadXet(f"A xorb has at most {MAX_BODY} bytes; begin another one.")
        return payload, scheme, size

    def _take(self, payload: memoryview, scheme: int, size: int) -> None:
        data = _expand(payload, scheme, size, self._context)
        self._body += HEADER + len(payload)
        self._raw += size
        self._rows += _ROW.pack(hashes.chunk(data), self._body, self._raw)

    def _skip(self, size: int) -> None:
        """Pass over the footer, which has 40 bytes for each chunk and some more."""
        self._footer = (self._footer or 0) + size
        if self._footer > 2 * len(self._rows) + 1024:
            raise BadXet("The footer of the xorb has no end; send the xorb without one.")


def table_size(chunks: int) -> int:
    """Return how many bytes a table of so many chunks is stored in."""
    return chunks * _ROW.size + hashes.CHECK


def unpack(data: bytes | bytearray | memoryview) -> bytes:
    """Unpack one chunk, given with its header. Raises: BadXet (also if anything follows)."""
    view = memoryview(data)
    payload, scheme, size = _header(view)
    if len(view) != HEADER + payload:
        raise BadXet(f"A chunk of {HEADER + payload} bytes was given as {len(view)}; give exactly its bytes.")
    return bytes(_expand(view[HEADER:], scheme, size, lz4.frame.create_decompression_context()))


def chunks(data: bytes | bytearray | memoryview) -> Iterator[bytes]:
    """Unpack whole chunks that lie in a row, one by one; their hashes are not looked at. Raises: BadXet."""
    rest, context = memoryview(data), lz4.frame.create_decompression_context()
    while rest:
        payload, scheme, size = _header(rest)
        end = HEADER + payload
        if len(rest) < end:
            raise BadXet("The bytes end within a chunk; give them up to its end.")
        yield bytes(_expand(rest[HEADER:end], scheme, size, context))
        rest = rest[end:]


def pack(chunks: Iterable[bytes], scheme: int) -> bytes:
    """Write chunks as one xorb; a chunk that the scheme does not make smaller is stored as it is."""
    packed = bytearray()
    for data in chunks:
        payload, used = data, STORED
        if scheme != STORED:
            tried = lz4.frame.compress(_regrouped(data) if scheme == BG4 else data, store_size=False)
            if len(tried) < len(data):
                payload, used = tried, scheme
        packed += _HEADER.pack(len(payload) << 8, used | len(data) << 8)
        packed += payload
    return bytes(packed)


def _header(data: _Bytes) -> tuple[int, int, int]:
    """Read a header: length of the payload, scheme, length of the chunk. Raises: BadXet (it can be none of ours)."""
    if len(data) < HEADER:
        raise BadXet("The bytes end within the header of a chunk; give them up to its end.")
    first, second = _HEADER.unpack_from(data)
    if first & 0xFF:
        raise BadXet(f"A chunk has version {first & 0xFF}; only version 0 is read here.")
    payload, scheme, size = first >> 8, second & 0xFF, second >> 8
    if scheme > BG4:
        raise BadXet(f"A chunk is packed by scheme {scheme}; use 0, 1 or 2.")
    if not (0 < size <= MAX_CHUNK and 0 < payload <= MAX_PAYLOAD):
        raise BadXet(f"A chunk of {size} bytes in {payload}: it has 1 to {MAX_CHUNK}, packed at most {MAX_PAYLOAD}.")
    if scheme == STORED and payload != size:
        raise BadXet(f"A chunk of {size} bytes is stored in {payload}; give both numbers alike.")
    return payload, scheme, size


def _expand(payload: memoryview, scheme: int, size: int, context: Any) -> _Bytes:
    """Undo a scheme. Never makes more than `size` bytes, whatever the frame says of itself."""
    if scheme == STORED:
        return payload
    try:
        read: tuple[bytes, int, bool] = lz4.frame.decompress_chunk(context, payload, max_length=size)
    except RuntimeError as error:
        raise BadXet("A chunk is no LZ4 frame; pack it again.") from error
    data, used, ended = read
    if len(data) != size or used != len(payload) or not ended:
        raise BadXet(f"The LZ4 frame of a chunk does not hold exactly its {size} bytes; pack it again.")
    return _ungrouped(data) if scheme == BG4 else data


def _regrouped(data: bytes) -> bytes:
    return b"".join(data[lane::4] for lane in range(4))


def _ungrouped(data: bytes) -> bytearray:
    """Put regrouped bytes back; assigning extended slices does it at 2.5 GB/s, as fast as numpy would."""
    size, view, at = len(data), memoryview(data), 0
    result = bytearray(size)
    for lane in range(4):
        end = at + (size + 3 - lane) // 4
        result[lane::4] = view[at:end]
        at = end
    return result
