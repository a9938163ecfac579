"""Branches and tags made and removed, histories squashed."""

from __future__ import annotations

from collections.abc import Callable

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from registry.branches import Branches
from registry.names import TYPE_OF_NOUN
from registry.receive import Origin
from registry.routes.body import read_json
from registry.routes.context import request_id
from registry.routes.hub import fields
from registry.routes.hub.arrivals import Arrivals

_MOST_BODY = 1 << 20
_Work = Callable[[int, Origin], None]


class RefDoor:
    """Moves refs of a repo; one must be allowed to write to it.

    The name of a branch or tag is all that follows the verb: clients quote its slashes, people do not.
    """

    def __init__(self, *, arrivals: Arrivals, branches: Branches) -> None:
        self._arrivals = arrivals
        self._branches = branches

    async def create_branch(self, request: Request) -> Response:
        """Make a branch at `startingPoint`, else at the default branch; empty with `emptyBranch`."""
        body = await read_json(request, _MOST_BODY)

        def create(repo_id: int, origin: Origin) -> None:
            start = fields.maybe_text(body, "startingPoint")
            empty, overwrite = (fields.flag(body, name) is True for name in ("emptyBranch", "overwrite"))
            self._branches.create(repo_id, origin, _name(request), start=start, empty=empty, overwrite=overwrite)

        return await run_in_threadpool(self._change, request, create)

    def delete_branch(self, request: Request) -> Response:
        """Remove a branch, unless it is the default one."""
        return self._change(request, lambda repo_id, by: self._branches.delete(repo_id, by, _name(request)))

    async def create_tag(self, request: Request) -> Response:
        """Tag a revision; with a `message` the tag is an object of its own."""
        body = await read_json(request, _MOST_BODY)

        def create(repo_id: int, origin: Origin) -> None:
            message = fields.maybe_text(body, "message") or ""
            self._branches.create_tag(repo_id, origin, fields.text(body, "tag"), _name(request), message)

        return await run_in_threadpool(self._change, request, create)

    def delete_tag(self, request: Request) -> Response:
        """Remove a tag."""
        return self._change(request, lambda repo_id, by: self._branches.delete_tag(repo_id, by, _name(request)))

    async def squash(self, request: Request) -> Response:
        """Replace the history of a branch by one commit with the same files."""
        body = await read_json(request, _MOST_BODY)

        def squash(repo_id: int, origin: Origin) -> None:
            self._branches.squash(repo_id, origin, _name(request), fields.maybe_text(body, "message") or "")

        return await run_in_threadpool(self._change, request, squash)

    def _change(self, request: Request, work: _Work) -> Response:
        visit = self._arrivals.visit(request, "write")
        work(visit.repo.id, Origin(visit.actor, "api", request_id=request_id(request)))
        return JSONResponse({})

    def routes(self) -> list[Route]:
        """List the routes of this door."""
        found = []
        for noun in TYPE_OF_NOUN:
            repo = f"/api/{noun}/{{namespace}}/{{name}}"
            found += [
                Route(f"{repo}/branch/{{ref:path}}", self.create_branch, methods=["POST"]),
                Route(f"{repo}/branch/{{ref:path}}", self.delete_branch, methods=["DELETE"]),
                Route(f"{repo}/tag/{{ref:path}}", self.create_tag, methods=["POST"]),
                Route(f"{repo}/tag/{{ref:path}}", self.delete_tag, methods=["DELETE"]),
                Route(f"{repo}/super-squash/{{ref:path}}", self.squash, methods=["POST"]),
            ]
        return found


def _name(request: Request) -> str:
    return str(request.path_params["ref"])
