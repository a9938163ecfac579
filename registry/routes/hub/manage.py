"""Repos made, removed, moved and set up."""

from __future__ import annotations

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from registry.access import Actor
from registry.errors import BadBody, NeedsLogin, RepoAbsent
from registry.names import TYPE_OF_NOUN, RepoId, parse_repo_id
from registry.repos import Changes, NewRepo, Repos
from registry.routes.auth import Auth
from registry.routes.body import read_json
from registry.routes.context import origin, request_id
from registry.routes.hub import fields
from registry.routes.hub.arrivals import Arrivals

_MOST_BODY = 8 << 20


class ManageDoor:
    """Changes repos as such. To remove, move or set one up one must be its admin."""

    def __init__(self, *, auth: Auth, arrivals: Arrivals, repos: Repos) -> None:
        self._auth = auth
        self._arrivals = arrivals
        self._repos = repos

    async def create(self, request: Request) -> Response:
        """Make a repo with its first commit; 409 with its `url` if it exists."""
        body = await read_json(request, _MOST_BODY)
        return await run_in_threadpool(self._create, request, body)

    def _create(self, request: Request, body: fields.Body) -> Response:
        actor = self._known(request)
        name = fields.repo(body, actor.name)
        wanted = NewRepo(
            type=name.type,
            name=name.name,
            namespace=name.namespace,
            private=bool(fields.private(body)),
            sdk=fields.maybe_text(body, "sdk") or "",
            files=_files(body),
        )
        row_id, made = self._repos.create(actor, wanted, request_id=request_id(request))
        url = f"{origin(request)}/{made.web}"
        return JSONResponse({"url": url, "name": made.full, "id": format(row_id, "024x")})

    async def delete(self, request: Request) -> Response:
        """Remove a repo. Its old names do not work here: they might mean another repo than the sender thinks."""
        body = await read_json(request, _MOST_BODY)
        return await run_in_threadpool(self._delete, request, body)

    def _delete(self, request: Request, body: fields.Body) -> Response:
        asked = fields.repo(body, self._known(request).name)
        visit = self._auth.visit(request, asked, "admin")
        if visit.repo.repo_id.fold != asked.fold:
            raise RepoAbsent(f"Repository {asked.full} was moved to {visit.repo.repo_id.full}; use that name.")
        self._repos.delete(visit.actor, visit.repo)
        return JSONResponse({})

    async def move(self, request: Request) -> Response:
        """Rename a repo, or move it to another namespace; the old name stays an alias."""
        body = await read_json(request, _MOST_BODY)
        return await run_in_threadpool(self._move, request, body)

    def _move(self, request: Request, body: fields.Body) -> Response:
        kind = fields.repo_type(body)
        here, there = (parse_repo_id(kind, fields.text(body, name)) for name in ("fromRepo", "toRepo"))
        visit = self._auth.visit(request, here, "admin")
        made: RepoId = self._repos.move(visit.actor, visit.repo, there)
        return JSONResponse({"url": f"{origin(request)}/{made.web}"})

    async def settings(self, request: Request) -> Response:
        """Change who sees a repo, whether it is gated, its description, and what clients only read."""
        body = await read_json(request, _MOST_BODY)
        return await run_in_threadpool(self._settings, request, body)

    def _settings(self, request: Request, body: fields.Body) -> Response:
        visit = self._arrivals.visit(request, "admin")
        discussions = fields.flag(body, "discussionsDisabled")
        changes = Changes(
            private=fields.private(body),
            gated=_gated(body),
            description=fields.maybe_text(body, "description"),
            options={} if discussions is None else {"discussionsDisabled": discussions},
        )
        made = self._repos.change(visit.actor, visit.repo, changes)
        if "gated" in made:
            made["gated"] = made["gated"] or False
        return JSONResponse(made)

    def _known(self, request: Request) -> Actor:
        actor = self._auth.actor(request)
        if actor.anonymous:
            raise NeedsLogin("Log in with a token to change repositories.")
        return actor

    def routes(self) -> list[Route]:
        """List the routes of this door."""
        return [
            Route("/api/repos/create", self.create, methods=["POST"]),
            Route("/api/repos/delete", self.delete, methods=["DELETE"]),
            Route("/api/repos/move", self.move, methods=["POST"]),
            *(
                Route(f"/api/{noun}/{{namespace}}/{{name}}/settings", self.settings, methods=["PUT"])
                for noun in TYPE_OF_NOUN
            ),
        ]


def _files(body: fields.Body) -> dict[str, bytes]:
    """Read the files that JavaScript's client sends along for the first commit."""
    found = body.get("files")
    if found is None:
        return {}
    if not isinstance(found, list) or not all(isinstance(file, dict) for file in found):
        raise BadBody('"files" must be an array of objects.')
    return {fields.text(file, "path"): fields.content(file) for file in found}


def _gated(body: fields.Body) -> str | None:
    found = body.get("gated")
    if found is None or found in ("auto", "manual"):
        return None if found is None else str(found)
    if found is False:
        return ""
    raise BadBody('"gated" must be "auto", "manual" or false.')
