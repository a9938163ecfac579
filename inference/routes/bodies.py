"""A request's head and body: the key, and JSON within bounds."""

from __future__ import annotations

from starlette.requests import ClientDisconnect, Request

from inference.errors import InvalidKey
from inference.routes.problems import CLIENT_LEFT, Problem

MAX_BODY = 8 * 2**20
"""Bytes of a JSON body."""


def bearer(request: Request) -> str | None:
    """Read the API key; an empty one counts as none.

    Raises: InvalidKey: the header is there and is no bearer.
    """
    header = request.headers.get("authorization", "").strip()
    if not header:
        return None
    scheme, _, key = header.partition(" ")
    if scheme.lower() != "bearer":
        raise InvalidKey("Send the API key as Authorization: Bearer <key>.")
    return key.strip() or None


async def json_body(request: Request) -> bytes:
    """Read a body that says it is JSON.

    Raises: Problem: 413 above 8 MiB, 415 for another media type.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Problem(415, "unsupported_media_type", "Send Content-Type: application/json.")
    if int(request.headers.get("content-length", "0")) > MAX_BODY:
        raise _too_large()
    body = bytearray()
    try:
        async for piece in request.stream():
            body += piece
            if len(body) > MAX_BODY:
                raise _too_large()
    except ClientDisconnect:
        raise Problem(CLIENT_LEFT, "client_left", "The client left.") from None
    return bytes(body)


def _too_large() -> Problem:
    return Problem(413, "request_too_large", f"The body is longer than {MAX_BODY} bytes.")
