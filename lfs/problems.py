"""One error, in the dialect of Git LFS: `{"message": …, "request_id": …}`.

No upload is ever answered with 422: git-lfs takes that for success and pushes a ref whose object is missing. Load is
shed with 429 only: a 500 or 503 to a batch ends a whole push with its message hidden.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import Response

from lfs import errors
from lfs.errors import LfsError
from lfs.locks import shown

MEDIA_TYPE = "application/vnd.git-lfs+json"

# Longer waits are capped by no client before its own patience ends.
MAX_WAIT = 60

Render = Callable[[LfsError, Request], Response]

STATUS: dict[type[LfsError], int] = {
    errors.NeedsLogin: 401,
    errors.BadToken: 401,
    errors.GrantInvalid: 403,
    errors.NotAllowed: 403,
    errors.RepoAbsent: 404,
    errors.ObjectAbsent: 404,
    errors.LockAbsent: 404,
    errors.Missing: 404,
    errors.WrongVerb: 405,
    errors.NotAcceptable: 406,
    errors.AlreadyLocked: 409,
    errors.HashUnsupported: 409,
    errors.OffsetConflict: 409,
    errors.SizeConflict: 409,
    errors.Damaged: 410,
    errors.WrongVersion: 412,
    errors.TooLarge: 413,
    errors.WrongType: 415,
    errors.RangeUnsatisfiable: 416,
    errors.Mismatch: 400,
    errors.BadRequest: 400,
    errors.BadXet: 400,
    errors.RateLimited: 429,
    errors.Unavailable: 429,
    errors.NoSpace: 507,
    errors.QuotaExceeded: 507,
}


def render(error: LfsError, request: Request) -> Response:
    """Write the answer to a refused request."""
    known = {"message": error.message, "request_id": request.scope.get("request_id") or uuid.uuid4().hex}
    body: dict[str, object] = dict(known)
    if isinstance(error, errors.AlreadyLocked):
        body["lock"] = shown(error.lock)
    return Response(json.dumps(body), status_of(error), _headers(error), MEDIA_TYPE)


def status_of(error: LfsError) -> int:
    """Return the status of the nearest class in the table, 500 for what no client can cause."""
    return next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), 500)


def _headers(error: LfsError) -> dict[str, str]:
    if isinstance(error, (errors.NeedsLogin, errors.BadToken)):
        challenge = 'Basic realm="weightroom"'
        return {"LFS-Authenticate": challenge, "WWW-Authenticate": challenge}
    if isinstance(error, errors.WrongVerb):
        return {"Allow": ", ".join(error.allowed)}
    if isinstance(error, errors.RangeUnsatisfiable):
        return {"Content-Range": f"bytes */{error.size}"}
    if isinstance(error, (errors.RateLimited, errors.Unavailable)):
        return {"Retry-After": str(min(getattr(error, "retry_after", 5), MAX_WAIT))}
    return {}
