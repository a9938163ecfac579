"""Bounded request bodies, read before the work that they ask for begins."""

from __future__ import annotations

import json
import re
from typing import NoReturn

from starlette.requests import Request

from registry.errors import BadBody, TooLarge

# An escaped NUL, and not the text of one behind an escaped backslash.
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")


async def read_body(request: Request, limit: int, purpose: str = "for one request to this route") -> bytes:
    """Read a whole body of at most `limit` bytes; the refusal says that this is the limit for its purpose.

    Raises: TooLarge, before the first byte when the length is announced; BadBody (a length that is no number).
    """
    announced = request.headers.get("content-length")
    if announced is not None:
        if not (announced.isascii() and announced.isdigit()):
            raise BadBody("The Content-Length header is no number.")
        if len(announced) > 18 or int(announced) > limit:
            raise _too_large(limit, purpose)
    pieces: list[bytes] = []
    size = 0
    async for piece in request.stream():
        size += len(piece)
        if size > limit:
            raise _too_large(limit, purpose)
        pieces.append(piece)
    return b"".join(pieces)


async def read_json(request: Request, limit: int) -> dict[str, object]:
    """Read a JSON object of at most `limit` bytes; an empty body counts as `{}`.

    Raises: TooLarge, BadBody (another content type, no JSON, no object).
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind and kind != "application/json" and not kind.endswith("+json"):
        raise BadBody(f"This route takes application/json, not {kind}; send the body as JSON.")
    return parse_object(await read_body(request, limit))


def parse_object(body: bytes) -> dict[str, object]:
    """Parse a JSON object; nothing at all counts as `{}`.

    Raises: BadBody.
    """
    if not body.strip():
        return {}
    try:
        found = json.loads(body, parse_constant=_no_constant)
        _check_text(body, found)
    except (ValueError, RecursionError) as error:
        raise BadBody("The body is not JSON.") from error
    if not isinstance(found, dict):
        raise BadBody("The body must be a JSON object.")
    return found


def _check_text(body: bytes, found: object) -> None:
    """Refuse what JSON can write and neither UTF-8 nor a database column can hold: half surrogates and NUL."""
    if _NUL.search(body):
        raise ValueError("NUL in a text")
    if b"\\u" in body:
        json.dumps(found, ensure_ascii=False).encode()


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _too_large(limit: int, purpose: str) -> TooLarge:
    return TooLarge(f"The body is larger than {limit} bytes, the limit {purpose}.")
