"""`GET /v1/models` and `GET /v1/models/{id}`; a name keeps its slashes, and may end in `@revision`."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from inference.errors import ModelAbsent
from inference.keys import Caller, Keys
from inference.leases import Pool, State
from inference.origin import Origin
from inference.routes.bodies import bearer
from inference.routes.front import Record
from inference.shapes.fields import Plain

LISTED = 1000
"""Models in a list."""


class Models:
    """The door. Without an `origin` it knows the loaded models only."""

    def __init__(self, *, pool: Pool, keys: Keys, origin: Origin | None, started: int):
        self._pool = pool
        self._keys = keys
        self._origin = origin
        self._started = started

    def index(self, request: Request) -> Response:
        """List pinned and loaded models first, then what else the caller may read at the registry."""
        caller = self._caller(request)
        readable = self._origin.models(caller.token, limit=LISTED) if self._origin is not None else []
        allowed = set(readable)
        known = [state for state in self._pool.states() if not self._keys.personal or state.repo in allowed]
        known.sort(key=lambda state: (not state.pinned, state.name))
        listed = {state.name: self._loaded(state) for state in known}
        for name in readable:
            listed.setdefault(name, self._entry(name))
        return JSONResponse({"object": "list", "data": list(listed.values())[:LISTED]})

    def one(self, request: Request) -> Response:
        """Show one model: its commit, and its state if it is loaded. Loads nothing."""
        record: Record = request.state.record
        caller = self._caller(request)
        name: str = request.path_params["id"]
        states = [state for state in self._pool.states() if state.name == name]
        # What is loaded for somebody else is shown only to those whom the registry shows it.
        sha = None if states and not self._keys.personal else self._found(name, caller)
        entry = self._loaded(states[0]) if states else {**self._entry(name), "commit": sha}
        record.sha = str(entry["commit"])
        return JSONResponse(entry)

    def routes(self) -> list[Route]:
        """List the endpoints."""
        return [
            Route("/v1/models", self.index, methods=["GET"]),
            Route("/v1/models/{id:path}", self.one, methods=["GET"]),
        ]

    def _caller(self, request: Request) -> Caller:
        caller = self._keys.caller(bearer(request))
        record: Record = request.state.record
        record.actor = caller.actor
        return caller

    def _found(self, name: str, caller: Caller) -> str:
        if self._origin is None:
            raise ModelAbsent(f"The model {name!r} does not exist.", param="model")
        return self._origin.find(name, caller.token)

    def _loaded(self, state: State) -> Plain:
        return {
            **self._entry(state.name, state.repo),
            "commit": state.sha,
            "state": state.state,
            "pinned": state.pinned,
            "bytes": state.bytes,
            "context": state.context,
        }

    def _entry(self, name: str, repo: str | None = None) -> Plain:
        owner = (repo or name).partition("/")[0]
        return {"id": name, "object": "model", "created": self._started, "owned_by": owner, "state": "available"}
