"""What a request of the Xet door says: hashes and signed spans in its address, and bodies of bounded length."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import IO

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive

from lfs import intake
from lfs.bodies import count_of, document, text_of
from lfs.doors import Answer
from lfs.errors import BadRequest, GrantInvalid, ObjectAbsent, TooLarge, WrongType
from lfs.store import PIECE, Span
from lfs.xet import hashes

PREFIXES = ("default", "default-merkledb")
MAX_SHARD = 64 << 20
MAX_SMALL = 64 << 10

_SIGNED = re.compile(r"r=(\d{1,18})-(\d{1,18})&exp=(\d{1,18})&sig=([0-9a-f]{64})", re.ASCII)

Act = Callable[[Request, bytes], Response]


def on_thread(act: Act) -> Answer:
    """Wrap a synchronous endpoint: a small body, one hop to a worker thread."""

    async def answer(request: Request) -> ASGIApp:
        body = await small(request.receive) if request.method == "POST" else b""
        return await run_in_threadpool(act, request, body)

    answer.__doc__ = act.__doc__
    return answer


def hash_of(request: Request) -> bytes:
    """Read the hash of an address. Raises: BadXet, ObjectAbsent (a kind of hash that is not spoken here)."""
    if request.path_params.get("prefix", PREFIXES[0]) not in PREFIXES:
        raise ObjectAbsent(f"Hashes are {PREFIXES[0]} ones here.")
    return hashes.parse(request.path_params["hash"])


def check_length(request: Request, limit: int, what: str) -> int:
    """Refuse a body before its first byte if it says that it is too long; return what it says, 0 if nothing.

    Raises: TooLarge, WrongType.
    """
    length = count_of(request.headers.get("content-length"), "Content-Length") or 0
    if length > limit:
        raise _too_large(limit, what)
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise WrongType("Xorbs and shards are sent as they are, without Content-Encoding.")
    return length


async def small(receive: Receive) -> bytes:
    """Take in a body that is known to be short. Raises: TooLarge, Interrupted."""
    found = await intake.gather(receive)
    if found.cut:
        raise intake.interrupted()
    if found.more or len(found.data) > MAX_SMALL:
        raise TooLarge(f"This address takes bodies of {MAX_SMALL} bytes; send less.")
    return found.data


def spooled(source: Iterable[bytes], folder: Path | None) -> IO[bytes]:
    """Keep a shard until it is its turn: in memory if it is small, else in a file. Raises: TooLarge."""
    with ExitStack() as stack:
        spool = stack.enter_context(SpooledTemporaryFile(PIECE, dir=None if folder is None else str(folder)))
        for piece in source:
            if spool.tell() + len(piece) > MAX_SHARD:
                raise _too_large(MAX_SHARD, "shard")
            spool.write(piece)
        spool.seek(0)
        stack.pop_all()
        return spool


def announced(body: bytes) -> tuple[int, int | None]:
    """Read how long a xorb is that a client wants to send, and its CRC-64/NVME if it says so. Raises: BadRequest."""
    fields = document(body)
    length, checksum = count_of(fields.get("length"), "length"), fields.get("checksum")
    if not length:
        raise BadRequest("`length` must be the bytes of the xorb.")
    told = checksum if isinstance(checksum, dict) and checksum.get("algo") == "crc64nvme" else {}
    value = text_of(told, "value")
    return length, int(value) if re.fullmatch("[0-9]{1,20}", value) else None


def signed(request: Request) -> tuple[str, Span, int, str]:
    """Read the address of a blob. Raises: GrantInvalid."""
    found = _SIGNED.fullmatch(request.url.query)
    if found is None:
        raise GrantInvalid("This link is not whole; use it as it was given.")
    first, last, expires, signature = found.groups()
    return request.path_params["key"], Span(int(first), int(last) + 1), int(expires), signature


def _too_large(limit: int, what: str) -> TooLarge:
    return TooLarge(f"A {what} may have {limit} bytes; send fewer files at a time.")
