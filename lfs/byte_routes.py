"""The addresses where bytes pass through us: whole objects and parts of them.

Nobody logs in here; each address takes the grant that a batch gave.
"""

from __future__ import annotations

from collections.abc import Sequence

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from lfs.bodies import Json, count_of
from lfs.doors import Verbs, in_json
from lfs.errors import LfsError, ObjectAbsent, SizeMismatch, WrongType
from lfs.grants import Grant, Grants
from lfs.host import Held, Host
from lfs.multipart import Multipart, length_of
from lfs.transfer import Outgoing, Sender, Transfer
from lfs.uploads import Uploads, held_of


class ByteRoutes:
    """Endpoints of objects in one piece, and of parts."""

    def __init__(
        self, *, host: Host, grants: Grants, transfer: Transfer, uploads: Uploads, multipart: Multipart
    ) -> None:
        self._host, self._grants, self._transfer = host, grants, transfer
        self._uploads, self._multipart = uploads, multipart
        self._arrivals = transfer.arrivals(uploads.take_all)
        self._departures = transfer.departures(self._opened_all)

    def objects(self) -> Verbs:
        """Name the verbs of `/lfs/o/{oid}`."""
        return {"GET": self.get, "HEAD": self.get, "PUT": self.put}

    def parts(self) -> Verbs:
        """Name the verbs of `/lfs/part/{upload}/{number}`."""
        return {"PUT": self.put_part}

    def completion(self) -> Verbs:
        """Name the verbs of `/lfs/complete/{upload}`."""
        return {"POST": in_json(self.complete)}

    async def put(self, request: Request) -> ASGIApp:
        """PUT: take one object's bytes; 200 after they are durable and linked."""
        grant = self._grants.read(grant_of(request), "put", request.path_params["oid"])
        check_length(request, grant.size)
        await self._transfer.receive(
            request.receive,
            lambda source: self._uploads.take(grant, source),
            whole=lambda data: self._arrivals.ask((grant, data)),
        )
        return Response(status_code=200)

    async def get(self, request: Request) -> ASGIApp:
        """GET, HEAD: send one object's bytes."""
        grant = self._grants.read(grant_of(request), "get", request.path_params["oid"])
        return await self._departures.ask((grant, request))

    async def put_part(self, request: Request) -> ASGIApp:
        """PUT: take one part; 200 with its ETag after it is durable."""
        grant = self._grants.read_for(grant_of(request), "part", request.path_params["upload"])
        number = count_of(request.path_params["number"], "part number") or 0
        upload = await run_in_threadpool(self._multipart.expected, grant, number)
        check_length(request, length_of(upload, number))
        etag = await self._transfer.receive(
            request.receive, lambda source: self._multipart.take(upload, number, source), shed=False
        )
        return Response(status_code=200, headers={"ETag": etag})

    def complete(self, request: Request, body: bytes) -> Json:
        """POST: join the parts of an upload; 200 after the whole is durable."""
        grant = self._grants.read_for(grant_of(request), "complete", request.path_params["upload"])
        self._multipart.complete(grant, body)
        return {}

    def _opened_all(self, asked: Sequence[tuple[Grant, Request]]) -> Sequence[Sender | Exception]:
        """Look several objects up and open each, on a thread: one way there, and one look per repo, for all of them."""
        held = held_of(self._host, [grant for grant, _ in asked])
        return [self._opened(*each, known) for each, known in zip(asked, held, strict=True)]

    def _opened(self, grant: Grant, request: Request, held: Held | None) -> Sender | Exception:
        if held is None or not _is_served(held):
            return ObjectAbsent("This repo has no such object any more; ask for a new batch.", oids=[grant.oid])
        item = Outgoing(held.key, held.size, grant.oid, elsewhere=lambda: self._key(grant))
        sender = self._transfer.send(item)
        try:
            sender.open(request.method, request.headers)
        except LfsError as error:
            return error
        return sender

    def _key(self, grant: Grant) -> str:
        held = self._host.look(grant.repo_id, [grant.oid]).get(grant.oid)
        return held.key if held is not None and _is_served(held) else ""


def _is_served(held: Held) -> bool:
    return held.linked and held.state not in ("deleting", "damaged")


def grant_of(request: Request) -> str:
    """Return the grant of a request's address, empty if there is none."""
    return request.query_params.get("grant", "")


def check_length(request: Request, size: int) -> None:
    """Refuse a body before its first byte if it says that it is another one. Raises: SizeMismatch, WrongType."""
    declared = count_of(request.headers.get("content-length"), "Content-Length")
    if declared not in (None, size):
        raise SizeMismatch(f"Content-Length is {declared}, the bytes to send are {size}; send them all.")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise WrongType("Objects are sent as they are, without Content-Encoding.")
