"""The git door: smart HTTP for every repo, with and without `.git` at the end of its name.

    GET  R/info/refs?service=git-upload-pack | git-receive-pack
    POST R/git-upload-pack      POST R/git-receive-pack        R = [datasets/ | spaces/] namespace/name

Answers are never compressed and never cached. Source: gitprotocol-http.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, request_response

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
from registry.routes.problems import NO_CACHE, InDialect, Problems

_TYPES: dict[str, RepoType] = {"": "model", "/datasets": "dataset", "/spaces": "space"}
_UPLOAD, _RECEIVE = "git-upload-pack", "git-receive-pack"
_MOST_BODY = 64 << 20
_MOST_DISCARDED = 1 << 20
_DISCARD_SECONDS = 10.0
_PROBE = b"0000"
Endpoint = Callable[[Request], Awaitable[Response]]


class GitDoor:
    """Speaks git over HTTP; all work happens on worker threads."""

    def __init__(
        self,
        *,
        auth: Auth,
        repositories: Repositories,
        upload_pack: UploadPack,
        upload_pack_v0: UploadPackV0,
        threads: Threads,
    ) -> None:
        self._auth = auth
        self._repositories = repositories
        self._upload = upload_pack
        self._upload_v0 = upload_pack_v0
        self._threads = threads
        self._problems = Problems("git")

    async def info_refs(self, request: Request) -> Response:
        """List what this server can do and, to old clients and for a push, the refs."""
        service = request.query_params.get("service")
        if service == _UPLOAD:
            opened = await self._open(request, "read")
            return await self._threads.answer(self._advertise(request, opened), _headers(f"{service}-advertisement"))
        raise NotAllowed("Only smart HTTP is served here: use git 1.6.6 or newer.")

    async def upload_pack(self, request: Request) -> Response:
        """Answer one fetch request."""
        refusal = _wrong_type(request, _UPLOAD)
        if refusal is not None:
            return refusal
        opened = await self._open(request, "read")
        body = await read_body(request, _MOST_BODY, "for one fetch request")
        if body == _PROBE:
            return Response(b"", 200, _headers(f"{_UPLOAD}-result"))
        return await self._threads.answer(self._serve(request, opened, body), _headers(f"{_UPLOAD}-result"))

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
        pieces = list(_inflated(request, [body]))
        if _version(request) == 2:
            yield from self._upload.serve(snapshot, pieces)
        else:
            yield from self._upload_v0.serve(snapshot, pieces)

    async def _open(self, request: Request, act: Act) -> Snapshot:
        """Decide who may come in, and read the repo at one instant; no byte of a body is read before."""
        repo = _repo_id(request)

        def work() -> Snapshot:
            visit: Visit = self._auth.visit(request, repo, act)
            return self._repositories.snapshot(visit.repo.id)

        return await self._threads.run(work)

    def routes(self) -> list[Route]:
        """Name the routes of this door."""
        table: list[tuple[str, str, Endpoint]] = [
            ("GET", "/info/refs", self.info_refs),
            ("POST", "/git-upload-pack", self.upload_pack),
            ("GET", "/HEAD", self.absent),
            ("GET", "/objects/{path:path}", self.absent),
        ]
        return [
            Route(f"{prefix}/{{namespace}}/{{name}}{path}", self._wrapped(endpoint, kind), methods=[method])
            for prefix, kind in _TYPES.items()
            for method, path, endpoint in table
        ]

    def _wrapped(self, endpoint: Endpoint, kind: RepoType) -> InDialect:
        async def guarded(request: Request) -> Response:
            request.path_params["type"] = kind
            try:
                return await endpoint(request)
            except Exception:
                await _discard(request)
                raise

        guarded.__doc__ = endpoint.__doc__
        return InDialect(request_response(guarded), self._problems)


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


def _inflated(request: Request, pieces: Iterable[bytes]) -> Iterable[bytes]:
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    return pkt.gunzip(pieces, _MOST_BODY) if encoding in ("gzip", "x-gzip") else pieces


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
