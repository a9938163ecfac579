"""Large request bodies handed over: the thread that stores them reads them from the socket itself.

Uvicorn parses the head and what came with it. From there on its parser, its buffers and the event loop would copy each
byte four times and hop between threads for each mebibyte; half of what a push costs beside its hash. So uvicorn stops
reading, the thread takes exactly the rest of this body from a copy of the descriptor, and gives the connection back
with a fresh parser. What a thread leaves unread is skipped, so that a client hears of a refusal in any case.

Only for bodies with a Content-Length, in the clear, of which nobody has read yet; all others come as ever.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import httptools
from starlette.types import Message, Receive
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

# Below this a body is mostly here when its head is.
SMALLEST = 1 << 20

_INSIDES = ("body", "more_body", "flow", "message_event", "transport", "waiting_for_100_continue")


class Taken:
    """The rest of a body: `first` has come already, `left` bytes are to be read from `fileno()`, not blocking.

    Whoever took it calls `give_back`, once, from the event loop.
    """

    def __init__(self, fd: int, first: bytes, left: int, back: Callable[[int], None]) -> None:
        self.first, self.left = first, left
        self._fd, self._back = fd, back

    def fileno(self) -> int:
        """Return the descriptor: our own, so it stays valid whatever becomes of the connection."""
        return self._fd

    def give_back(self) -> None:
        """Let uvicorn go on after the bytes that are still `left`."""
        os.close(self._fd)
        self._back(self.left)


class HandingReceive:
    """ASGI's `receive`, and a second way to the same body."""

    def __init__(self, receive: Receive, take: Callable[[], Taken | None]) -> None:
        self._receive, self._take, self._begun = receive, take, False

    async def __call__(self) -> Message:
        """Return the next message."""
        self._begun = True
        return await self._receive()

    def take(self) -> Taken | None:
        """Take the body over; None if it comes by messages only."""
        return None if self._begun else self._take()


class HandingProtocol(HttpToolsProtocol):
    """Uvicorn's protocol, offering large bodies to threads."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._skipping = 0

    def data_received(self, data: bytes) -> None:
        """Leave out what is left of a body that was given back."""
        if self._skipping:
            skipped = min(len(data), self._skipping)
            self._skipping -= skipped
            data = data[skipped:]
            if not self._skipping:
                self._end_body(self.cycle)
        if data:
            super().data_received(data)

    def handing(self, receive: Receive, cycle: Any) -> Receive:
        """Return `receive` with the offer, where it can be kept."""
        if self.scheme != "http" or not all(hasattr(cycle, name) for name in _INSIDES):
            return receive
        return HandingReceive(receive, lambda: self._taken(cycle))

    def _taken(self, cycle: Any) -> Taken | None:
        length = _length(cycle.scope["headers"])
        if length < SMALLEST or cycle is not self.cycle or not cycle.more_body or self.transport.is_closing():
            return None
        if cycle.waiting_for_100_continue:
            cycle.waiting_for_100_continue = False
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        fd = os.dup(self.transport.get_extra_info("socket").fileno())
        self.flow.pause_reading()
        first, cycle.body = bytes(cycle.body), bytearray()
        return Taken(fd, first, length - len(first), lambda left: self._given_back(cycle, left))

    def _given_back(self, cycle: Any, left: int) -> None:
        if self not in self.connections:
            # Lost meanwhile.
            return
        # The old parser waits for the bytes that it has not seen; no method tells it not to.
        self.parser = httptools.HttpRequestParser(self)
        if hasattr(self.parser, "set_dangerous_leniencies"):
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self._skipping = left
        if not left:
            self._end_body(cycle)
        self.flow.resume_reading()

    def _end_body(self, cycle: Any) -> None:
        cycle.more_body = False
        cycle.message_event.set()


def _length(headers: list[tuple[bytes, bytes]]) -> int:
    """Return the Content-Length; 0 if there is none, or a Transfer-Encoding that overrides it."""
    found = 0
    for name, value in headers:
        if name == b"transfer-encoding":
            return 0
        if name == b"content-length" and value.isdigit():
            found = int(value)
    return found
