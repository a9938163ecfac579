"""The git door: smart HTTP for every repo, with and without `.git` at the end of its name.

    GET  R/info/refs?service=git-upload-pack | git-receive-pack
    POST R/git-upload-pack      POST R/git-receive-pack        R = [datasets/ | spaces/] namespace/name

Answers are never compressed and never cached. Source: gitprotocol-http.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial, wraps

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from registry.access import Act, Visit
from registry.errors import BadName, NotAllowed, RepoAbsent
from registry.git import pkt
from registry.git.repository import Repositories
from registry.git.snapshot import Snapshot
from registry.git.upload_pack import UploadPack
from registry.git.upload_pack_v0 import UploadPackV0
from registry.names import RepoId, RepoType, parse_repo_id
from registry.routes.auth import Auth
from registry.routes.blocks import Threads
from registry.routes.body import read_body
from registry.routes.context import origin, request_id
from registry.routes.judging import Pusher
from registry.routes.problems import NO_CACHE
from registry.routes.pushes import Pushes

_TYPES: dict[str, RepoType] = {"": "model", "/datasets": "dataset", "/spaces": "space"}
_UPLOAD, _RECEIVE = "git-upload-pack", "git-receive-pack"
_MOST_BODY = 64 << 20
_MOST_DISCARDED = 1 << 20
_DISCARD_SECONDS = 10.0
_PROBE = b"0000"
_BLOCK = 1 << 20
_MOST_ANSWERS = 256
Endpoint = Callable[[Request], Awaitable[Response]]


class GitDoor:
    """Speaks git over HTTP; all work happens on worker threads.

    `threads` serve what is short. Answers have threads of their own, since most of the time they wait: for the check of
    a push, or for a pack that others build. Else some forty of them would shut the door for everybody.
    """

    def __init__(
        self,
        *,
        auth: Auth,
        repositories: Repositories,
        upload_pack: UploadPack,
        upload_pack_v0: UploadPackV0,
        pushes: Pushes,
        threads: Threads,
    ) -> None:
        self._auth = auth
        self._repositories = repositories
        self._upload = upload_pack
        self._upload_v0 = upload_pack_v0
        self._pushes = pushes
        self._threads = threads
        self._answers = Threads(_MOST_ANSWERS)

    async def info_refs(self, request: Request) -> Response:
        """List what this server can do and, to old clients and for a push, the refs."""
        service = request.query_params.get("service")
        if service == _UPLOAD:
            _, opened = await self._open(request, "read")
            return await self._answers.answer(self._advertise(request, opened), _headers(f"{service}-advertisement"))
        if service == _RECEIVE:
            _, opened = await self._open(request, "write")
            return Response(self._pushes.advertisement(opened), 200, _headers(f"{service}-advertisement"))
        raise NotAllowed("Only smart HTTP is served here: use git 1.6.6 or newer.")

    async def upload_pack(self, request: Request) -> Response:
        """Answer one fetch request."""
        refusal = _wrong_type(request, _UPLOAD)
        if refusal is not None:
            return refusal
        _, opened = await self._open(request, "read")
        body = await read_body(request, _MOST_BODY, "for one fetch request")
        if body == _PROBE:
            return Response(b"", 200, _headers(f"{_UPLOAD}-result"))
        return await self._answers.answer(self._serve(request, opened, body), _headers(f"{_UPLOAD}-result"))

    async def receive_pack(self, request: Request) -> Response:
        """Take one push."""
        refusal = _wrong_type(request, _RECEIVE)
        if refusal is not None:
            return refusal
        visit, _ = await self._open(request, "write")
        intake = self._pushes.intake(gzipped=_is_gzipped(request))
        try:
            async for block in _gathered(request):
                await self._threads.run(partial(intake.feed, block))
                if intake.refused is not None:
                    await _discard(request)
                    break
            await self._threads.run(intake.end)
        except BaseException:
            intake.close()
            raise
        repo = _repo_id(request)
        pusher = Pusher(
            visit.repo.id, visit.actor, request_id(request), lambda: self._auth.visit(request, repo, "write")
        )
        return await self._answers.answer(self._pushes.finish(intake, pusher), _headers(f"{_RECEIVE}-result"))

    async def absent(self, request: Request) -> Response:
        """Refuse the files of the dumb protocol."""
        raise RepoAbsent("Only smart HTTP is served here; this file does not exist.")

    def _advertise(self, request: Request, snapshot: Snapshot) -> Iterator[bytes]:
        yield pkt.encode(b"# service=git-upload-pack\n") + pkt.FLUSH
        version = _version(request)
        if version == 2:
            yield self._upload.advertisement()
        else:
            yield from self._upload_v0.advertisement(snapshot, version=version)

    def _serve(self, request: Request, snapshot: Snapshot, body: bytes) -> Iterator[bytes]:
        pieces = list(pkt.gunzip([body], _MOST_BODY)) if _is_gzipped(request) else [body]
        if _version(request) == 2:
            yield from self._upload.serve(snapshot, pieces)
        else:
            yield from self._upload_v0.serve(snapshot, pieces)

    async def _open(self, request: Request, act: Act) -> tuple[Visit, Snapshot]:
        """Decide who may come in, and read the repo at one instant; no byte of a body is read before."""
        repo = _repo_id(request)

        def work() -> tuple[Visit, Snapshot]:
            visit = self._auth.visit(request, repo, act)
            visit.check_gate(origin(request))
            return visit, self._repositories.snapshot(visit.repo.id)

        return await self._threads.run(work)

    def routes(self) -> list[Route]:
        """Name the routes of this door."""
        table: list[tuple[str, str, Endpoint]] = [
            ("GET", "/info/refs", self.info_refs),
            ("POST", "/git-upload-pack", self.upload_pack),
            ("POST", "/git-receive-pack", self.receive_pack),
            ("GET", "/HEAD", self.absent),
            ("GET", "/objects/{path:path}", self.absent),
        ]
        return [
            Route(f"{prefix}/{{namespace}}/{{name}}{path}", _wrapped(endpoint, kind), methods=[method])
            for prefix, kind in _TYPES.items()
            for method, path, endpoint in table
        ]


def _wrapped(endpoint: Endpoint, kind: RepoType) -> Endpoint:
    """Tell an endpoint the type of repo that its route stands for, and clean up after its refusals."""

    @wraps(endpoint)
    async def guarded(request: Request) -> Response:
        request.path_params["type"] = kind
        try:
            return await endpoint(request)
        except Exception:
            await _discard(request)
            raise

    return guarded


def _headers(kind: str) -> dict[str, str]:
    return {**NO_CACHE, "Content-Type": f"application/x-{kind}"}


def _repo_id(request: Request) -> RepoId:
    """Read the repo that a path names; a name that no repo can have is simply absent."""
    path = request.path_params
    full = f"{path['namespace']}/{path['name'].removesuffix('.git')}"
    try:
        return parse_repo_id(path["type"], full)
    except BadName as error:
        raise RepoAbsent(f"There is no repo {full}.") from error


def _version(request: Request) -> int:
    """Pick the highest protocol version that the client offers and we speak."""
    offered = request.headers.get("git-protocol", "").split(":")
    return max((n for n in (1, 2) if f"version={n}" in offered), default=0)


def _wrong_type(request: Request, service: str) -> Response | None:
    asked = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    wanted = f"application/x-{service}-request"
    if asked == wanted:
        return None
    return Response(f"This route takes {wanted}.\n", 415, NO_CACHE, "text/plain; charset=utf-8")


def _is_gzipped(request: Request) -> bool:
    return request.headers.get("content-encoding", "identity").strip().lower() in ("gzip", "x-gzip")


async def _gathered(request: Request) -> AsyncIterator[bytes]:
    """Join the small pieces of a body to blocks that are worth a hop to a thread."""
    held: list[bytes] = []
    size = 0
    async for piece in request.stream():
        held.append(piece)
        size += len(piece)
        if size >= _BLOCK:
            yield b"".join(held)
            held, size = [], 0
    if held:
        yield b"".join(held)


async def _discard(request: Request) -> None:
    """Read a little of a refused body: a client that still writes would see a reset instead of the reason."""
    if request.method != "POST" or "expect" in request.headers:
        return
    left = _MOST_DISCARDED
    try:
        async with asyncio.timeout(_DISCARD_SECONDS):
            async for piece in request.stream():
                left -= len(piece)
                if left < 0:
                    return
    except (TimeoutError, RuntimeError):
        # RuntimeError: the endpoint has read the body already.
        return
