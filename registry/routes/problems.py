"""One error, each door's dialect.

    git     text/plain, which git shows as `remote:` lines, and the no-cache headers of its own server
    lfs     application/vnd.git-lfs+json {message, request_id}; never 503, from which git-lfs does not come back
    hub     {"error": text}, X-Error-Code and X-Error-Message, by which huggingface_hub chooses its exception
    plain   text/plain

A class that is not in the table is judged as the nearest class above it. What is no error of ours at all is 500: the
traceback goes to the log, the request id to the client, nothing else.
"""

from __future__ import annotations

import errno
import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lfs import errors as lfs
from lfs import problems as lfs_problems
from registry import errors
from registry.routes.context import origin, request_id

Dialect = Literal["git", "lfs", "hub", "plain"]

NO_CACHE = {
    "Expires": "Fri, 01 Jan 1980 00:00:00 GMT",
    "Pragma": "no-cache",
    "Cache-Control": "no-cache, max-age=0, must-revalidate",
}
"""What every answer of the git door carries, refusals too."""
_CHALLENGE = 'Basic realm="weightroom"'
# By these words the Hub's clients tell a wrong token from a missing repo.
_BAD_TOKEN = "Invalid credentials in Authorization header"
WRONG_TOKEN = (
    "Invalid credentials: the token is unknown, revoked or expired. Log in with a valid one; "
    "`git credential reject` forgets the old one, and a token in a URL stays until the URL is changed."
)
"""What people are told who see the text themselves, at the doors of git and Git LFS."""

log = logging.getLogger("registry.problems")


@dataclass(frozen=True, slots=True)
class Row:
    """HTTP status in each dialect, and the code that the Hub's clients look for."""

    git: int
    lfs: int
    hub: int
    code: str = ""

    def status(self, dialect: Dialect) -> int:
        """Pick the status of a dialect; plain doors answer as git's does."""
        return {"git": self.git, "lfs": self.lfs, "hub": self.hub, "plain": self.git}[dialect]


_UNKNOWN = Row(500, 500, 500)

TABLE: Mapping[type[Exception], Row] = {
    errors.NeedsLogin: Row(401, 401, 401, "RepoNotFound"),
    errors.BadToken: Row(401, 401, 401),
    errors.RepoAbsent: Row(404, 404, 404, "RepoNotFound"),
    errors.RevisionAbsent: Row(404, 404, 404, "RevisionNotFound"),
    errors.EntryAbsent: Row(404, 404, 404, "EntryNotFound"),
    errors.ObjectAbsent: Row(404, 404, 404, "EntryNotFound"),
    errors.NotAllowed: Row(403, 403, 403),
    errors.Gated: Row(403, 403, 403, "GatedRepo"),
    errors.GatedLogin: Row(401, 401, 401, "GatedRepo"),
    errors.Exists: Row(409, 409, 409),
    errors.StaleParent: Row(409, 409, 412),
    errors.RefMoved: Row(409, 409, 409),
    errors.BadBody: Row(400, 400, 400),
    errors.BadPath: Row(400, 400, 422),
    errors.DigestMismatch: Row(400, 400, 400),
    errors.SizeMismatch: Row(400, 400, 400),
    errors.TooLarge: Row(413, 413, 413),
    errors.QuotaExceeded: Row(403, 507, 403),
    errors.NoSpace: Row(507, 507, 507),
    errors.RateLimited: Row(429, 429, 429),
    errors.Busy: Row(503, 429, 503),
    errors.Damaged: Row(500, 500, 500),
    errors.NotSupported: Row(501, 501, 501),
    errors.SwitchedOff: Row(404, 404, 404),
}

# What bytes may suffer, seen through another door than their own; there `lfs.problems` knows better.
_BYTES: Mapping[type[Exception], Row] = {
    lfs.NeedsLogin: Row(401, 401, 401, "RepoNotFound"),
    lfs.RepoAbsent: Row(404, 404, 404, "RepoNotFound"),
    lfs.ObjectAbsent: Row(404, 404, 404, "EntryNotFound"),
    **{
        kind: Row(status, status, status)
        for kind, status in {
            lfs.BadToken: 401,
            lfs.NotAllowed: 403,
            lfs.GrantInvalid: 403,
            lfs.LockAbsent: 404,
            lfs.WrongVerb: 405,
            lfs.NotAcceptable: 406,
            lfs.WrongType: 415,
            lfs.HashUnsupported: 409,
            lfs.AlreadyLocked: 409,
            lfs.SizeConflict: 409,
            lfs.BadRequest: 400,
            lfs.BadXet: 400,
            lfs.Mismatch: 400,
            lfs.TooLarge: 413,
            lfs.RangeUnsatisfiable: 416,
            lfs.QuotaExceeded: 403,
            lfs.NoSpace: 507,
            lfs.RateLimited: 429,
            lfs.Busy: 503,
            lfs.Unavailable: 503,
            lfs.HeavyError: 503,
            lfs.StoreError: 500,
            lfs.BadStorage: 500,
        }.items()
    },
}
_ROWS = {**TABLE, **_BYTES}


def row_of(error: Exception) -> Row:
    """Find the row of an error's class, or of the nearest class above it."""
    return next((_ROWS[kind] for kind in type(error).__mro__ if kind in _ROWS), _UNKNOWN)


class Problems:
    """Renders errors in one dialect."""

    def __init__(self, dialect: Dialect) -> None:
        self.dialect: Dialect = dialect

    def render(self, error: Exception, request: Request) -> Response:
        """Answer a request with an error; never raises."""
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            # Met outside the store, where packs and commits wait to be judged.
            log.error("request %s failed", request_id(request), exc_info=error)
            error = errors.NoSpace("The server's disk is full; free space, then send this again.")
        if self.dialect == "lfs" and isinstance(error, lfs.LfsError) and lfs_problems.status_of(error) != 500:
            return lfs_problems.render(error, request)
        row = row_of(error)
        status = row.status(self.dialect)
        text = self._text(error, status, request)
        headers = _headers(error, status)
        if self.dialect == "hub":
            return _hub(error, row, status, text, headers, request)
        if status == 401:
            headers["WWW-Authenticate"] = _CHALLENGE
        if self.dialect == "lfs":
            return _lfs(status, text, headers, request)
        if self.dialect == "git":
            headers |= NO_CACHE
        return Response(text + "\n", status, headers, "text/plain; charset=utf-8")

    def _text(self, error: Exception, status: int, request: Request) -> str:
        if status != 500 and isinstance(error, errors.RegistryError | lfs.LfsError):
            if not isinstance(error, errors.BadToken | lfs.BadToken):
                return error.message
            return _BAD_TOKEN if self.dialect == "hub" else WRONG_TOKEN
        log.error("request %s failed", request_id(request), exc_info=error)
        return f"The server failed; its log has more under request id {request_id(request)}."


def _headers(error: Exception, status: int) -> dict[str, str]:
    """Name what a status promises: when to come back, which verbs, how long the object is, which commit lacks it."""
    headers: dict[str, str] = {}
    if status in (429, 503):
        headers["Retry-After"] = str(getattr(error, "retry_after", 5))
    if isinstance(error, lfs.WrongVerb):
        headers["Allow"] = ", ".join(error.allowed)
    if isinstance(error, lfs.RangeUnsatisfiable):
        headers["Content-Range"] = f"bytes */{error.size}"
    if isinstance(error, errors.EntryAbsent):
        headers["X-Repo-Commit"] = error.commit
    return headers


def _hub(error: Exception, row: Row, status: int, text: str, headers: dict[str, str], request: Request) -> Response:
    body = {"error": text}
    if isinstance(error, errors.Exists) and error.path:
        body["url"] = f"{origin(request)}/{error.path.lstrip('/')}"
    headers["X-Error-Message"] = header_text(text)
    if row.code:
        headers["X-Error-Code"] = row.code
    return Response(json.dumps(body), status, headers, "application/json")


def _lfs(status: int, text: str, headers: dict[str, str], request: Request) -> Response:
    if status == 401:
        headers["LFS-Authenticate"] = _CHALLENGE
    return Response(
        json.dumps({"message": text, "request_id": request_id(request)}), status, headers, lfs_problems.MEDIA_TYPE
    )


def header_text(text: str) -> str:
    """Make a text safe as a header's value: one line of Latin-1, at most 1,000 characters."""
    flat = "".join(character if character.isprintable() else " " for character in text[:1000])
    return flat.encode("latin-1", "replace").decode("latin-1").strip()


class InDialect:
    """Wraps one route's application, so that whatever it raises leaves in the door's dialect.

    Once an answer has begun an error can only end it: the connection is cut and the client sees a short body.
    """

    def __init__(self, app: ASGIApp, problems: Problems) -> None:
        self._app = app
        self.problems = problems

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the route."""
        begun = False

        async def tell(message: Message) -> None:
            nonlocal begun
            begun = begun or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, tell)
        except ClientDisconnect:
            scope["state"]["gone"] = True
        except Exception as error:
            if begun:
                raise
            response = self.problems.render(error, Request(scope))
            await response(scope, receive, send)


class WrongVerbs:
    """Says in the dialect of the door that stands at an address that it takes other verbs."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._doors = {route.endpoint: route.app.problems for route in routes if isinstance(route.app, InDialect)}

    async def __call__(self, request: Request, error: Exception) -> Response:
        """Answer a request with a verb that its address does not take."""
        allowed = (getattr(error, "headers", None) or {}).get("Allow", "")
        verbs = sorted(verb.strip() for verb in allowed.split(",") if verb.strip())
        text = f"{request.method} is not for this address; use {' or '.join(verbs)}."
        return self._at(request).render(lfs.WrongVerb(text, allowed=verbs), request)

    def _at(self, request: Request) -> Problems:
        endpoint = request.scope.get("endpoint")
        return Problems("plain") if endpoint is None else self._doors.get(endpoint, Problems("plain"))
