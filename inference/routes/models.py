"""`GET /v1/models` and `GET /v1/models/{id}`; a name keeps its slashes, and may end in `@revision`."""

from __future__ import annotations

from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from inference.download import Resolved
from inference.errors import ModelAbsent
from inference.keys import Caller, Keys
from inference.loaded import State
from inference.names import parse
from inference.origin import Origin
from inference.pool import Pool
from inference.routes.bodies import bearer
from inference.routes.front import Record
from inference.shapes.fields import Plain

LISTED = 1000
"""Models in a list."""


class Models:
    """The door; `find` asks the registry for a name's commit, as one caller may see it."""

    def __init__(
        self, *, pool: Pool, keys: Keys, origin: Origin, find: Callable[[str, str | None], Resolved], started: int
    ):
        self._pool = pool
        self._keys = keys
        self._origin = origin
        self._find = find
        self._started = started

    def index(self, request: Request) -> Response:
        """List pinned and loaded models first, then what else the caller may read at the registry."""
        caller = self._caller(request)
        readable = self._origin.models(caller.token, limit=LISTED)
        allowed = set(readable)
        known = [state for state in self._pool.states() if not self._keys.personal or state.repo in allowed]
        known.sort(key=lambda state: (not state.is_pinned, state.phase != "ready", state.names))
        listed: dict[str, Plain] = {}
        for state in known:
            for name in state.names:
                listed.setdefault(name, self._entry(name, state))
        for name in readable:
            listed.setdefault(name, self._entry(name, None))
        return JSONResponse({"object": "list", "data": list(listed.values())[:LISTED]})

    def one(self, request: Request) -> Response:
        """Show one model: the commit that its name means now, and what is loaded of it. Loads nothing."""
        caller = self._caller(request)
        name: str = request.path_params["id"]
        if parse(name).extra is not None:
            raise ModelAbsent(f"{name}: this sidecar serves whole revisions, without ':'", param="model")
        resolved = self._find(name, caller.token)
        states = {state.sha: state for state in self._pool.states() if name in state.names}
        # While a moved branch loads, its former commit still answers.
        serving = next((state for state in states.values() if state.phase == "ready"), None)
        state = serving or states.get(resolved.sha)
        entry = self._entry(name, state)
        entry.setdefault("commit", resolved.sha)
        coming = states.get(resolved.sha)
        if serving is not None and coming is not None and coming.sha != serving.sha:
            entry["next"] = {"commit": coming.sha, "state": coming.phase, "error": coming.error}
        record: Record = request.state.record
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

    def _entry(self, name: str, state: State | None) -> Plain:
        owner = parse(name).repo.partition("/")[0]
        entry: Plain = {"id": name, "object": "model", "created": self._started, "owned_by": owner}
        if state is None:
            return {**entry, "state": "available"}
        return {
            **entry,
            "state": state.phase,
            "commit": state.sha,
            "pinned": state.is_pinned,
            "bytes": state.bytes,
            "context": state.context,
            "error": state.error,
        }
