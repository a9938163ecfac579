"""The address of one resumable upload: `HEAD` asks how far it is, `PATCH` goes on from there.

Every answer names the version of the protocol, refusals too. There is no creation: a batch opens uploads.

Source: https://tus.io/protocols/resumable-upload, 1.0.0, core protocol.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lfs.bodies import count_of
from lfs.byte_routes import grant_of
from lfs.doors import Door, Verbs
from lfs.errors import BadRequest, LfsError, SizeMismatch, WrongType, WrongVersion
from lfs.grants import Grant, Grants
from lfs.leases import Lease
from lfs.problems import Render
from lfs.transfer import Transfer
from lfs.tus import Tus

VERSION = "1.0.0"
MEDIA_TYPE = "application/offset+octet-stream"
# A lease is prolonged so many times before it would lapse.
BEATS = 3


class TusRoutes:
    """Endpoints of resumable uploads."""

    def __init__(self, *, grants: Grants, transfer: Transfer, tus: Tus) -> None:
        self._grants, self._transfer, self._tus = grants, transfer, tus

    def door(self, render: Render) -> ASGIApp:
        """Return the app of `/lfs/tus/{upload}`."""
        verbs: Verbs = {"HEAD": self.head, "PATCH": self.patch, "OPTIONS": self.options}
        return _Versioned(Door(verbs, render))

    async def options(self, request: Request) -> ASGIApp:
        """OPTIONS: say what is spoken here."""
        return Response(status_code=204, headers={"Tus-Version": VERSION})

    async def head(self, request: Request) -> ASGIApp:
        """HEAD: say how many bytes are durable; a complete upload is linked, or waits for its proof."""
        grant = self._admitted(request)
        offset = await run_in_threadpool(self._tus.offset, grant)
        told = {"Upload-Offset": str(offset), "Upload-Length": str(grant.size), "Cache-Control": "no-store"}
        return Response(headers=told)

    async def patch(self, request: Request) -> ASGIApp:
        """PATCH: take the bytes that follow the offset; 204 and the new offset, which is durable."""
        grant = self._admitted(request)
        offset = _offset(request, grant.size)
        async with self._only_writer(grant) as lease:
            reached = await self._transfer.receive(
                request.receive, lambda source: self._tus.take(grant, offset, source, lease)
            )
        return Response(status_code=204, headers={"Upload-Offset": str(reached)})

    def _admitted(self, request: Request) -> Grant:
        grant = self._grants.read_for(grant_of(request), "tus", request.path_params["upload"])
        if request.headers.get("tus-resumable") != VERSION:
            raise WrongVersion(f"Send the header Tus-Resumable: {VERSION}.")
        return grant

    @asynccontextmanager
    async def _only_writer(self, grant: Grant) -> AsyncIterator[Lease]:
        """Hold the upload while the block runs, however long its body takes."""
        lease = await run_in_threadpool(self._tus.lease, grant)
        beat = asyncio.create_task(_beat(lease))
        try:
            yield lease
        finally:
            # Ended before the lease is given back: a beat after that would take it again.
            beat.cancel()
            await asyncio.wait([beat])
            await run_in_threadpool(lease.give_back)


class _Versioned:
    """Names the version on every answer of a door."""

    def __init__(self, door: ASGIApp) -> None:
        self._door = door
        self.__doc__ = door.__doc__

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["Tus-Resumable"] = VERSION
                if message["status"] == 412:
                    headers["Tus-Version"] = VERSION
            await send(message)

        await self._door(scope, receive, named)


async def _beat(lease: Lease) -> None:
    while True:
        await asyncio.sleep(lease.seconds / BEATS)
        try:
            await run_in_threadpool(lease.prolong)
        except LfsError:
            # The next beat tries again; a lease that lapses over it says so itself.
            pass


def _offset(request: Request, size: int) -> int:
    """Read where a body goes on. Raises: WrongType, BadRequest, SizeMismatch."""
    if request.headers.get("content-type", "").split(";")[0].strip().lower() != MEDIA_TYPE:
        raise WrongType(f"Send the bytes as {MEDIA_TYPE}.")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise WrongType("Objects are sent as they are, without Content-Encoding.")
    offset = count_of(request.headers.get("upload-offset"), "Upload-Offset")
    if offset is None:
        raise BadRequest("Send the header Upload-Offset: how many bytes this server said it holds.")
    length = count_of(request.headers.get("content-length"), "Content-Length")
    if length is not None and offset + length > size:
        raise SizeMismatch(f"{length} bytes after {offset} are more than the announced {size}; announce the true size.")
    return offset
