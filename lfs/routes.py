"""Git LFS over HTTP: batch, bytes, verify, locks.

Source: git-lfs docs/api/server-discovery.md, batch.md, basic-transfers.md, locking.md.
"""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, Mapping

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lfs import batch
from lfs.bodies import Json, count_of, document, text_of
from lfs.errors import (
    BadRequest,
    Interrupted,
    LfsError,
    NotAcceptable,
    ObjectAbsent,
    SizeMismatch,
    TooLarge,
    WrongType,
    WrongVerb,
)
from lfs.grants import Grants
from lfs.host import Host, Leave, Operation
from lfs.locks import LockDesk
from lfs.problems import MEDIA_TYPE, Render, render
from lfs.store import ObjectStore
from lfs.transfer import Outgoing, Transfer
from lfs.uploads import Uploads

MAX_BODY = 8 << 20
JSON_TYPES = (MEDIA_TYPE, "application/json")

Answer = Callable[[Request], Awaitable[ASGIApp]]
Act = Callable[[Request, bytes], Json]


class LfsRoutes:
    """The Git LFS door of one host and one shelf.

    `clock` gives Unix seconds; `max_file` bounds one object in bytes; `render` writes refusals, so that a host with
    several doors keeps all errors in one place.
    """

    def __init__(
        self,
        *,
        host: Host,
        store: ObjectStore,
        transfer: Transfer,
        clock: Callable[[], float] = time.time,
        max_file: int | None = None,
        render: Render = render,
    ) -> None:
        self._host, self._transfer, self._render = host, transfer, render
        secrets = (host.secret(0), host.secret(1))
        self._grants = Grants([secret for secret in secrets if secret is not None], clock)
        self._batch = batch.Batch(host=host, grants=self._grants, max_file=max_file)
        self._uploads = Uploads(host=host, store=store)
        self._locks = LockDesk(host=host)

    def batch(self, request: Request, body: bytes) -> Json:
        """POST: say what to move, and where."""
        asked = batch.parse(body)
        leave = self._enter(request, asked.operation)
        return self._batch.answer(asked, leave, self._host.base_url(request.headers, request.url.scheme))

    def verify(self, request: Request, body: bytes) -> Json:
        """POST: confirm that an object has arrived; by its grant, or by the right to write."""
        fields = document(body)
        oid, size = text_of(fields, "oid"), count_of(fields.get("size"), "size")
        if size is None:
            raise BadRequest("`size` must be a whole number.")
        if "grant" in request.query_params:
            repo_id = self._grants.read(request.query_params["grant"], "verify", oid).repo_id
        else:
            repo_id = self._enter(request, "write").repo_id
        self._uploads.confirm(repo_id, oid, size)
        return {}

    def list_locks(self, request: Request, body: bytes) -> Json:
        """GET: a page of locks."""
        return self._locks.list(self._enter(request, "read"), request.query_params)

    def create_lock(self, request: Request, body: bytes) -> Json:
        """POST: take a lock."""
        return self._locks.create(self._enter(request, "write"), body)

    def verify_locks(self, request: Request, body: bytes) -> Json:
        """POST: the locks that a push has to respect, split by owner."""
        return self._locks.verify(self._enter(request, "write"), body)

    def unlock(self, request: Request, body: bytes) -> Json:
        """POST: give up a lock."""
        return self._locks.remove(self._enter(request, "write"), request.path_params["lock_id"], body)

    async def put(self, request: Request) -> ASGIApp:
        """PUT: take one object's bytes; 200 after they are durable and linked."""
        oid = request.path_params["oid"]
        grant = self._grants.read(request.query_params.get("grant", ""), "put", oid)
        declared = count_of(request.headers.get("content-length"), "Content-Length")
        if declared not in (None, grant.size):
            raise SizeMismatch(f"Content-Length is {declared}, the object has {grant.size} bytes; send it whole.")
        if request.headers.get("content-encoding", "identity").lower() != "identity":
            raise WrongType("Objects are sent as they are, without Content-Encoding.")
        await self._transfer.receive(request.receive, lambda source: self._uploads.take(grant, source))
        return Response(status_code=200)

    async def get(self, request: Request) -> ASGIApp:
        """GET, HEAD: send one object's bytes."""
        oid = request.path_params["oid"]
        grant = self._grants.read(request.query_params.get("grant", ""), "get", oid)
        held = (await run_in_threadpool(self._host.look, grant.repo_id, [oid])).get(oid)
        if held is None or not held.linked or held.state in ("deleting", "damaged"):
            raise ObjectAbsent("This repo has no such object any more; ask for a new batch.", oids=[oid])
        return self._transfer.send(Outgoing(held.key, held.size, oid))

    def routes(self) -> list[Route]:
        """The table of routes; `{repo}` may end in `.git` and begin with `datasets/` or `spaces/`."""
        at = "/{repo:path}/info/lfs"
        return [
            Route("/lfs/o/{oid}", self._door({"GET": self.get, "HEAD": self.get, "PUT": self.put})),
            Route(f"{at}/objects/batch", self._door({"POST": self._json(self.batch)})),
            Route(f"{at}/verify", self._door({"POST": self._json(self.verify)})),
            Route(
                f"{at}/locks",
                self._door({"GET": self._json(self.list_locks), "POST": self._json(self.create_lock, status=201)}),
            ),
            Route(f"{at}/locks/verify", self._door({"POST": self._json(self.verify_locks)})),
            Route(f"{at}/locks/{{lock_id}}/unlock", self._door({"POST": self._json(self.unlock)})),
            Route(at, self._door({})),
        ]

    def _enter(self, request: Request, operation: Operation) -> Leave:
        repo: str = request.path_params["repo"]
        return self._host.enter(request.headers, repo.removesuffix(".git"), operation)

    def _door(self, verbs: Mapping[str, Answer]) -> _Door:
        return _Door(verbs, self._render)

    def _json(self, act: Act, *, status: int = 200) -> Answer:
        """Wrap a synchronous endpoint: media types, a bounded body, one hop to a worker thread."""

        async def answer(request: Request) -> ASGIApp:
            _check_types(request)
            body = await _body(request)
            found = await run_in_threadpool(act, request, body)
            return Response(json.dumps(found), status, media_type=MEDIA_TYPE)

        return answer


class _Door:
    """One address: its verbs, and our errors in the words of the renderer."""

    def __init__(self, verbs: Mapping[str, Answer], render: Render) -> None:
        self._verbs, self._render = verbs, render

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request, started = Request(scope, receive), False

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            answer = await self._answer(request)
            await answer(scope, receive, watched)
        except LfsError as error:
            # Once bytes are on their way only a broken connection says that they are not all.
            if started:
                raise
            await self._render(error, request)(scope, receive, send)

    async def _answer(self, request: Request) -> ASGIApp:
        if request.method not in self._verbs:
            verbs = tuple(self._verbs) or ("POST",)
            raise WrongVerb(f"This address takes {', '.join(verbs)}; see the Git LFS API.", allowed=verbs)
        return await self._verbs[request.method](request)


def _check_types(request: Request) -> None:
    accepted = [each.split(";")[0].strip().lower() for each in request.headers.get("accept", "*/*").split(",")]
    if not set(accepted) & {*JSON_TYPES, "*/*", "application/*", ""}:
        raise NotAcceptable(f"This server answers {MEDIA_TYPE}; put it, or nothing, into Accept.")
    if request.method == "POST":
        sent = request.headers.get("content-type", "").split(";")[0].strip().lower()
        if sent not in JSON_TYPES:
            raise WrongType(f"Send the body as {MEDIA_TYPE}.")


async def _body(request: Request) -> bytes:
    gathered, size, more = [], 0, True
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise Interrupted("The connection closed before the end of the body.")
        gathered.append(message.get("body", b""))
        size, more = size + len(gathered[-1]), message.get("more_body", False)
        if size > MAX_BODY:
            raise TooLarge(f"A request body may have {MAX_BODY} bytes; send fewer objects at a time.")
    return b"".join(gathered)
