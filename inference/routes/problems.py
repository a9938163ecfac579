"""One error, one OpenAI error body: the table from our words to statuses, and the handlers that use it.

{"error": {"message": …, "type": …, "param": …, "code": …}}
"""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ExceptionHandler

from inference import errors
from inference.shapes.fields import Plain

# Most special class first: the first that fits counts.
TABLE: tuple[tuple[type[errors.SidecarError], int, str], ...] = (
    (errors.InvalidRequest, 400, "invalid_request_error"),
    (errors.InvalidKey, 401, "authentication_error"),
    (errors.NotAllowed, 403, "permission_error"),
    (errors.ModelAbsent, 404, "invalid_request_error"),
    (errors.ModelRefused, 409, "invalid_request_error"),
    (errors.Overloaded, 429, "rate_limit_error"),
    (errors.Unavailable, 503, "server_error"),
    (errors.DeadlineExceeded, 504, "server_error"),
    (errors.EngineFailed, 500, "server_error"),
    (errors.SidecarError, 500, "server_error"),
)

# The first segment under /v1 of what OpenAI has, and of what other servers of its API add; whatever of it no route
# serves is refused as unsupported, not unknown.
OPENAI = frozenset({
    "agents", "assistants", "audio", "batches", "chat", "chatkit", "completions", "containers",
    "content_provenance_checks", "conversations", "decisions", "detokenize", "edits", "embeddings", "evals", "files",
    "fine-tuning", "fine_tuning", "images", "live", "models", "moderations", "organization", "projects", "realtime",
    "rerank", "responses", "safety", "score", "skills", "threads", "tokenize", "uploads", "vaults", "vector_stores",
    "videos", "webhook_endpoints", "webhook_event_types",
})  # fmt: skip


class Problem(Exception):
    """A refusal that only a door can have: size, media type, a client that left."""

    def __init__(self, status: int, code: str, message: str):
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message


CLIENT_LEFT = 499
"""What the log says of a request whose client left; nobody receives it."""


def body(message: str, type_: str, code: str, param: str | None = None) -> Plain:
    """Write an OpenAI error."""
    return {"error": {"message": message, "type": type_, "param": param, "code": code}}


def described(error: errors.SidecarError) -> tuple[int, Plain]:
    """Find status and body of one of our errors."""
    status, type_ = next((status, type_) for kind, status, type_ in TABLE if isinstance(error, kind))
    return status, body(error.message, type_, error.code, error.param)


def unknown() -> Plain:
    """Say that something broke, and nothing about what."""
    return body("Something broke here; the log knows this request's id.", "server_error", "internal_error")


def refused(_: Request, error: Exception) -> Response:
    """Answer a domain error."""
    assert isinstance(error, errors.SidecarError)
    status, text = described(error)
    headers = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
    if isinstance(error, errors.InvalidKey):
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(text, status, headers)


def problem(_: Request, error: Exception) -> Response:
    """Answer a door's own refusal."""
    assert isinstance(error, Problem)
    return JSONResponse(body(error.message, "invalid_request_error", error.code), error.status)


def unrouted(request: Request, error: Exception) -> Response:
    """Answer what no route takes: unsupported if OpenAI has it, else unknown; or a wrong method."""
    assert isinstance(error, HTTPException)
    path = request.url.path
    headers = dict(error.headers or {})
    if error.status_code == 405:
        text = f"{request.method} is not allowed for {path}."
        return JSONResponse(body(text, "invalid_request_error", "method_not_allowed"), 405, headers)
    parts = path.split("/")
    if len(parts) > 2 and parts[1] == "v1" and parts[2] in OPENAI:
        text = f"{request.method} {path} is not supported by this server."
        return JSONResponse(body(text, "invalid_request_error", "unsupported_endpoint"), 501, headers)
    text = f"Unknown URL: {request.method} {path}."
    return JSONResponse(body(text, "invalid_request_error", "unknown_url"), error.status_code, headers)


def handlers() -> dict[type[Exception], ExceptionHandler]:
    """Give Starlette what answers which exception; anything else is the front's."""
    return {errors.SidecarError: refused, Problem: problem, HTTPException: unrouted}
