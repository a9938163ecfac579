"""pkt-lines: the framing under every git conversation, its side-band channels and gzip bodies.

    4 hex digits, length of the whole packet    payload
    "000bhello\\n\\0" …                            0000 flush · 0001 delimiter · 0002 response end

A side-band packet's payload starts with a channel byte: 1 pack or report, 2 messages for people, 3 fatal error.
Source: gitprotocol-common, gitprotocol-v2, gitprotocol-pack (side-band).
"""

from __future__ import annotations

import enum
import zlib
from collections.abc import Iterable, Iterator

from registry.errors import BadBody, TooLarge

MAX_PACKET = 65_520
"""Longest packet in bytes, its four length digits included."""
MAX_PAYLOAD = MAX_PACKET - 4
BLOCK_FRAMES = 16
BLOCK = BLOCK_FRAMES * (MAX_PAYLOAD - 1)
"""Data bytes of one block of full side-band-64k frames: pieces of this size waste no short frame."""
MIB = 1 << 20


class PktError(BadBody):
    """Bytes from the wire are no pkt-lines or no gzip body; the message is fit for the client."""


class Mark(enum.Enum):
    """The packets without payload."""

    FLUSH = b"0000"
    DELIM = b"0001"
    END = b"0002"


Packet = bytes | Mark
Buffer = bytes | bytearray | memoryview

FLUSH = Mark.FLUSH.value
DELIM = Mark.DELIM.value
KEEP_ALIVE = b"0005\x01"
"""An empty pack frame: tells a waiting client that we still work."""

_MARKS = {0: Mark.FLUSH, 1: Mark.DELIM, 2: Mark.END}
_HEX = frozenset(b"0123456789abcdefABCDEF")


def encode(payload: bytes) -> bytes:
    """Make one packet.

    Raises: PktError (payload above `MAX_PAYLOAD`).
    """
    if len(payload) > MAX_PAYLOAD:
        raise PktError(f"packet of {len(payload)} bytes; at most {MAX_PAYLOAD} fit")
    return b"%04x%b" % (len(payload) + 4, payload)


def chomp(payload: bytes) -> bytes:
    """Drop the one line feed that text packets may end with."""
    return payload[:-1] if payload.endswith(b"\n") else payload


class PktReader:
    """Read packets from chunks of any size; what follows the last packet read stays for `rest`."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._buffer = b""
        self._at = 0

    def read(self) -> Packet | None:
        """Read the next packet; None if the input ended before one began.

        Raises: PktError (not a length, or input that ends within a packet).
        """
        if not self._fill(4):
            if self._at == len(self._buffer):
                return None
            raise PktError("input ended within a packet length")
        digits = self._buffer[self._at : self._at + 4]
        length = _length(digits)
        if length < 4:
            self._at += 4
            return _MARKS[length]
        if not self._fill(length):
            raise PktError("input ended within a packet")
        payload = self._buffer[self._at + 4 : self._at + length]
        self._at += length
        return payload

    def __iter__(self) -> Iterator[Packet]:
        """Yield packets until the input ends."""
        while (packet := self.read()) is not None:
            yield packet

    def rest(self) -> Iterator[bytes]:
        """Yield, once, all bytes that follow the last packet read."""
        left, self._buffer, self._at = self._buffer[self._at :], b"", 0
        if left:
            yield left
        yield from self._chunks

    def _fill(self, count: int) -> bool:
        """Hold at least `count` unread bytes; False if the input ends first."""
        if len(self._buffer) - self._at >= count:
            return True
        pieces = [self._buffer[self._at :]]
        held = len(pieces[0])
        while held < count:
            chunk = next(self._chunks, None)
            if chunk is None:
                break
            pieces.append(chunk)
            held += len(chunk)
        self._buffer, self._at = b"".join(pieces), 0
        return held >= count


def _length(digits: bytes) -> int:
    if not _HEX.issuperset(digits):
        raise PktError(f"bad packet length {digits!r}")
    length = int(digits, 16)
    if length == 3 or length > MAX_PACKET:
        raise PktError(f"bad packet length {digits!r}")
    return length


def side_band(channel: int, data: Buffer, *, payload: int = MAX_PAYLOAD - 1) -> Iterator[bytes]:
    """Frame data for one channel, in blocks of at most 16 frames (~1 MiB with the 64k form).

    `payload` is the data bytes of a frame: 65,515 for side-band-64k, 995 for the old side-band.
    Slices of a memoryview and one join per block: re-slicing the rest per frame would be quadratic.
    """
    view = memoryview(data)
    full = b"%04x%c" % (payload + 5, channel)
    for start in range(0, len(view), payload * BLOCK_FRAMES):
        stop = min(len(view), start + payload * BLOCK_FRAMES)
        pieces: list[Buffer] = []
        for at in range(start, stop, payload):
            size = min(payload, stop - at)
            pieces.append(full if size == payload else b"%04x%c" % (size + 5, channel))
            pieces.append(view[at : at + size])
        yield b"".join(pieces)


class Gunzip:
    """Inflates one gzip member, chunk by chunk as it comes.

    `limit` bounds the inflated bytes; above 1 MiB also `ratio` times the bytes taken so far.
    """

    def __init__(self, limit: int, *, ratio: int = 100) -> None:
        self._inflater = zlib.decompressobj(wbits=31)
        self._limit = limit
        self._ratio = ratio
        self._taken = self._made = 0

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Yield what a chunk brings, in pieces of at most 1 MiB.

        Raises: PktError (damaged, or followed by other data), TooLarge (beyond a bound).
        """
        if self._inflater.eof and chunk:
            raise PktError("data after the end of the gzip body")
        self._taken += len(chunk)
        for piece in self._inflate(chunk):
            self._made += len(piece)
            if self._made > self._limit:
                raise TooLarge(f"gzip body inflates beyond {self._limit} bytes")
            if self._made > MIB and self._made > self._ratio * self._taken:
                raise TooLarge(f"gzip body inflates more than {self._ratio} times")
            yield piece

    def end(self) -> None:
        """Say that no more chunks come.

        Raises: PktError (some are missing).
        """
        if not self._inflater.eof:
            raise PktError("gzip body is cut short")

    def _inflate(self, chunk: bytes) -> Iterator[bytes]:
        while True:
            try:
                piece = self._inflater.decompress(chunk, MIB)
            except zlib.error as error:
                raise PktError("damaged gzip body") from error
            if self._inflater.unused_data:
                raise PktError("data after the end of the gzip body")
            if piece:
                yield piece
            chunk = self._inflater.unconsumed_tail
            # A full piece may leave output inside the inflater although all input is taken.
            if self._inflater.eof or not (chunk or len(piece) == MIB):
                return


def gunzip(chunks: Iterable[bytes], limit: int, *, ratio: int = 100) -> Iterator[bytes]:
    """Inflate a whole gzip body, as `Gunzip` does.

    Raises: PktError, TooLarge.
    """
    inflater = Gunzip(limit, ratio=ratio)
    for chunk in chunks:
        yield from inflater.feed(chunk)
    inflater.end()
