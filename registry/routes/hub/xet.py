"""Leave to move files by their chunks, and copies of such files from repo to repo."""

from __future__ import annotations

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from lfs.xet import hashes
from lfs.xet.index import Scope
from registry.access import Visit
from registry.errors import BadBody, SwitchedOff
from registry.names import TYPE_OF_NOUN, RepoId, is_oid, parse_repo_id
from registry.routes.auth import Auth
from registry.routes.body import read_json
from registry.routes.cas import Cas
from registry.routes.context import origin
from registry.routes.hub import fields
from registry.routes.hub.arrivals import Arrivals, check_gate
from registry.xet_copies import Copies, Wanted

# What clients write for a revision that they do not know yet.
_NONE = "None"
_MOST_BODY = 1 << 20
_MOST_FILES = 1_000


class XetDoor:
    """Issues tokens and copies files; without a `cas` it says what to do instead, as clients do not fall back."""

    def __init__(self, *, auth: Auth, arrivals: Arrivals, copies: Copies, cas: Cas | None) -> None:
        self._auth = auth
        self._arrivals = arrivals
        self._copies = copies
        self._cas = cas

    def read_token(self, request: Request) -> Response:
        """Give leave to fetch the files of a revision by their chunks."""
        cas = self._opened()
        if request.path_params["revision"] == _NONE:
            visit = self._arrivals.visit(request)
        else:
            visit, _ = self._arrivals.revision(request)
        check_gate(request, visit)
        return _told(cas, request, visit, "read")

    def write_token(self, request: Request) -> Response:
        """Give leave to send chunks to a repo, and to file what they make; the branch may be new."""
        return _told(self._opened(), request, self._arrivals.writer(request), "write")

    async def duplicate(self, request: Request) -> Response:
        """Give files of this repo to another one, without their bytes; those that cannot be had are listed."""
        self._opened()
        body = await read_json(request, _MOST_BODY)
        return await run_in_threadpool(self._duplicate, request, body)

    def _duplicate(self, request: Request, body: fields.Body) -> Response:
        source = self._arrivals.visit(request)
        check_gate(request, source)
        target = self._auth.visit(request, _target(body), "write")
        failed = self._copies.copy(source.repo.id, target.repo, target.actor.user_id or 0, _wanted(body))
        return JSONResponse({"failed": [{"sha256": oid, "error": why} for oid, why in failed.items()]})

    def _opened(self) -> Cas:
        if self._cas is None:
            raise SwitchedOff("Xet is switched off on this server: set HF_HUB_DISABLE_XET=1, then try again.")
        return self._cas

    def routes(self) -> list[Route]:
        """List the routes of this door."""
        found = []
        for noun in TYPE_OF_NOUN:
            repo = f"/api/{noun}/{{namespace}}/{{name}}"
            found += [
                Route(f"{repo}/xet-read-token/{{revision:path}}", self.read_token, methods=["GET"]),
                Route(f"{repo}/xet-write-token/{{revision:path}}", self.write_token, methods=["GET"]),
                Route(f"{repo}/lfs-files/duplicate", self.duplicate, methods=["POST"]),
            ]
        return found


def _told(cas: Cas, request: Request, visit: Visit, scope: Scope) -> Response:
    made = cas.connect(origin(request), visit, scope)
    return JSONResponse(made.document(), headers={"Cache-Control": "no-store", **made.headers()})


def _target(body: fields.Body) -> RepoId:
    target = body.get("target")
    if not isinstance(target, dict):
        raise BadBody('"target" must be an object with "type" and "name".')
    return parse_repo_id(fields.repo_type(target), fields.text(target, "name"))


def _wanted(body: fields.Body) -> list[Wanted]:
    return [_one(file) for file in fields.objects(body, "files", most=_MOST_FILES)]


def _one(file: fields.Body) -> Wanted:
    oid = fields.text(file, "sha256")
    if not is_oid(oid):
        raise BadBody(f"{oid[:80]!r} is not a SHA-256 in lower-case hex.")
    return Wanted(hashes.parse(fields.text(file, "xetHash")), oid)
