"""Request bodies on their way to the thread that keeps them: by messages through the loop, or from the socket itself.

Either way the thread gets an iterator that ends with the body, or raises Interrupted when the client leaves or stalls.
"""

from __future__ import annotations

import asyncio
import os
import queue
import select
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol, TypeVar

from starlette.types import Message, Receive

from lfs.errors import Interrupted
from lfs.store import PIECE

T = TypeVar("T")

# A body slower than this, averaged over the time that a transfer is patient, holds a slot that others need.
FLOOR = 1024

# Read from a socket at a time: two threads wake each other for each such piece, and it is still in a core's own cache
# when it is hashed and written. With half of it a push of 1 GiB takes a tenth longer, with twice as much no less.
GULP = 512 << 10


class Taken(Protocol):
    """The rest of a body that was handed over, to be read from a descriptor that does not block."""

    first: bytes
    left: int

    def fileno(self) -> int:
        """Return the descriptor."""

    def give_back(self) -> None:
        """Return the connection to the server, which skips what is left."""


def taken(receive: Receive) -> Taken | None:
    """Take a body over from a server that hands it over; None from any other."""
    take = getattr(receive, "take", None)
    found: Taken | None = None if take is None else take()
    return found


class Direct:
    """Reads a body that was handed over, on the thread that iterates."""

    def __init__(self, body: Taken, patience: float) -> None:
        self._body, self._pace, self._stopped = body, Pace(patience), False

    def stop(self) -> None:
        """Make the thread stop waiting for more, within a second."""
        self._stopped = True

    def __iter__(self) -> Iterator[bytes]:
        if self._body.first:
            yield self._body.first
        ready = select.poll()
        ready.register(self._body.fileno(), select.POLLIN)
        while self._body.left:
            self._wait(ready)
            try:
                piece = os.read(self._body.fileno(), min(self._body.left, GULP))
            except BlockingIOError:
                continue
            except OSError as error:
                raise interrupted() from error
            if not piece:
                raise interrupted()
            self._body.left -= len(piece)
            self._pace.came(len(piece))
            yield piece

    def _wait(self, ready: select.poll) -> None:
        while not self._stopped:
            began = time.monotonic()
            found = ready.poll(min(1.0, self._pace.patience) * 1000)
            self._pace.passed(time.monotonic() - began)
            if found:
                return
        raise interrupted()


class Pace:
    """Says when a client is too slow to wait for; time that our own side takes does not count."""

    def __init__(self, patience: float) -> None:
        self.patience = patience
        self._waited, self._got = 0.0, 0

    def came(self, size: int) -> None:
        """Note bytes."""
        self._got += size

    def passed(self, seconds: float) -> None:
        """Note time spent waiting. Raises: Interrupted."""
        self._waited += seconds
        if self._waited >= self.patience:
            if self._got < FLOOR * self._waited:
                raise Interrupted(
                    f"Fewer than {FLOOR} bytes a second came for {self.patience:g} seconds; send the object again."
                )
            self._waited, self._got = 0.0, 0


class Feed:
    """Hands pieces from the event loop to one worker thread, a few at a time."""

    def __init__(self, loop: asyncio.AbstractEventLoop, depth: int = 2) -> None:
        self._loop = loop
        self._room = asyncio.Semaphore(depth)
        self._pieces: queue.SimpleQueue[bytes | Exception | None] = queue.SimpleQueue()
        self.stopped = False

    async def push(self, piece: bytes) -> None:
        """Hand a piece over as soon as the thread has room."""
        await self._room.acquire()
        self._pieces.put(piece)

    def put(self, end: Exception | None) -> None:
        """End the body: None after its last byte, an exception if it will not come."""
        self._pieces.put(end)

    def stop(self, task: asyncio.Future[T]) -> None:
        """Note that the thread takes no more, and wake whoever waits for room."""
        self.stopped = True
        self._room.release()
        # Looked at here as well, so that a cancelled request does not leave an error that nobody asked for.
        if not task.cancelled():
            task.exception()

    def __iter__(self) -> Iterator[bytes]:
        while (piece := self._pieces.get()) is not None:
            if isinstance(piece, Exception):
                raise piece
            yield piece
            self._loop.call_soon_threadsafe(self._room.release)


def paced(receive: Receive, patience: float) -> Receive:
    """Wrap `receive` so that a client that stalls is an Interrupted."""
    loop, pace = asyncio.get_running_loop(), Pace(patience)

    async def at_its_pace() -> Message:
        began = loop.time()
        try:
            async with asyncio.timeout(patience):
                message = await receive()
        except TimeoutError as error:
            raise Interrupted(f"No bytes came for {patience:g} seconds; send the object again.") from error
        pace.came(len(message.get("body", b"")))
        pace.passed(loop.time() - began)
        return message

    return at_its_pace


@dataclass(frozen=True, slots=True)
class Gathered:
    """Bytes of a body; without `more` the last of them, all that came of a client that left if it was `cut` off."""

    data: bytes
    more: bool
    cut: bool

    def body(self) -> Iterable[bytes]:
        """Return what came as a body; a list where nothing of it has to be waited for."""
        whole = [self.data] if self.data else []
        return _cut_off(whole) if self.cut else whole


async def gather(receive: Receive, enough: Callable[[], bool] = lambda: False) -> Gathered:
    """Take in about 1 MiB, or what there is until the body ends or it is `enough`."""
    gathered: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        gathered.append(message.get("body", b""))
        size, more = size + len(gathered[-1]), message.get("more_body", False)
        if size >= PIECE or not more or enough():
            data = gathered[0] if len(gathered) == 1 else b"".join(gathered)
            return Gathered(data, more, cut=message["type"] == "http.disconnect")


async def pump(first: Gathered, receive: Receive, feed: Feed) -> None:
    """Move a body into `feed`, piece by piece, until it ends or the thread takes no more."""
    piece = first
    while not feed.stopped:
        # Of a client that left, what came is worth having to those who keep parts.
        if piece.data:
            await feed.push(piece.data)
        if not piece.more:
            feed.put(interrupted() if piece.cut else None)
            return
        piece = await gather(receive, lambda: feed.stopped)


def _cut_off(came: Iterable[bytes]) -> Iterator[bytes]:
    yield from came
    raise interrupted()


def interrupted() -> Interrupted:
    """Say that a client left."""
    return Interrupted("The connection closed before the end of the body; send the object again.")
