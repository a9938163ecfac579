"""As much HTTP/1.1 as it takes to tell requests on a connection apart."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

PIECE = 1 << 16

# How a request or an answer begins.
_HTTP = re.compile(rb"[A-Z]{3,7} [^ ]+ HTTP/1|HTTP/1")


@dataclass(slots=True)
class Asked:
    """A request that came: its place among all of them, from 1; how many bytes of bodies passed so far; and the status
    of its answer, 0 if none passed."""

    number: int
    method: str = ""
    target: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    up: int = 0
    down: int = 0
    status: int = 0


class Inbox:
    """Reads from one side, a head or a piece at a time."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader, self._held = reader, b""

    async def more(self) -> bool:
        """Wait until there is something to read; False at the end."""
        self._held = self._held or await self._reader.read(PIECE)
        return bool(self._held)

    async def some(self, limit: int = PIECE) -> bytes:
        """Return 1 to `limit` bytes, b"" at the end."""
        await self.more()
        piece, self._held = self._held[:limit], self._held[limit:]
        return piece

    async def until(self, mark: bytes) -> bytes:
        """Return everything up to and with the mark, or what there is of it."""
        while mark not in self._held and (more := await self._reader.read(PIECE)):
            self._held += more
        end = self._held.find(mark) + len(mark) if mark in self._held else len(self._held)
        found, self._held = self._held[:end], self._held[end:]
        return found

    async def head(self) -> bytes:
        """Return a head of HTTP; or, of what does not begin like one, a piece."""
        await self.more()
        return await (self.until(b"\r\n\r\n") if _HTTP.match(self._held) else self.some())


def parsed(head: bytes, number: int) -> Asked:
    """Return the request that a head announces; one without a method if it is none."""
    if not _HTTP.match(head):
        return Asked(number)
    first, *lines = head.decode("latin-1").split("\r\n")
    method, target, _ = (*first.split(" "), "", "")[:3]
    pairs = (line.partition(":") for line in lines if line)
    return Asked(number, method, target, {name.lower(): value.strip() for name, _, value in pairs})


async def body_of(asked: Asked, inbox: Inbox) -> AsyncIterator[bytes]:
    """Yield a request's body as it is on the wire; all that comes, if this is not HTTP."""
    if asked.headers.get("transfer-encoding", "").lower() == "chunked":
        left = -1
        while left:
            line = await inbox.until(b"\r\n")
            yield line
            left = int(line.split(b";")[0] or b"0", 16)
            async for piece in _exactly(left + 2, inbox):
                yield piece
        return
    size = int(asked.headers.get("content-length", 0)) if asked.method else sys.maxsize
    async for piece in _exactly(size, inbox):
        yield piece


async def _exactly(size: int, inbox: Inbox) -> AsyncIterator[bytes]:
    while size and (piece := await inbox.some(min(size, PIECE))):
        yield piece
        size -= len(piece)
