"""What `front` knows about a request, for the doors behind it."""

from __future__ import annotations

from starlette.requests import Request


def request_id(request: Request) -> str:
    """Return the id that the client, the log and the answer share."""
    found = request.scope.get("state", {}).get("request_id", "")
    assert isinstance(found, str)
    return found


def origin(request: Request) -> str:
    """Return scheme, host, port and prefix that the client sees, without a slash at the end."""
    found = request.scope.get("state", {}).get("origin", "")
    assert isinstance(found, str)
    return found or str(request.base_url).rstrip("/")


def raw_path(request: Request) -> str:
    """Return the path as it stood in the URL: quoted, without the query."""
    found = request.scope.get("raw_path") or request.scope["path"].encode()
    assert isinstance(found, bytes)
    return found.partition(b"?")[0].decode("ascii", "replace")
