"""What the registry says over HTTP: whose token this is, and what it may read."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from http.client import HTTPException
from typing import IO

from inference.errors import InvalidKey, Unavailable

TIMEOUT = 5.0
"""Seconds for one question."""
MAX_ANSWER = 16 * 2**20
"""Bytes of an answer."""


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A token goes to the registry and nowhere that it points to."""

    def redirect_request(self, *_: object) -> None:
        return None


class Origin:
    """Asks one registry; thread-safe, keeps nothing."""

    def __init__(self, url: str, *, timeout: float = TIMEOUT):
        self._url = url.rstrip("/")
        self._timeout = timeout
        self._opener = urllib.request.build_opener(_NoRedirects, urllib.request.ProxyHandler({}))

    def whoami(self, token: str) -> str:
        """Name the token's user.

        Raises: InvalidKey, Unavailable.
        """
        status, body = self._get("/api/whoami-v2", token)
        if status in (401, 403, 404):
            raise InvalidKey("The registry does not know this API key.")
        name = body.get("name") if status == 200 and isinstance(body, dict) else None
        if not isinstance(name, str):
            raise _away(status)
        return name

    def models(self, token: str | None, *, limit: int = 1000) -> list[str]:
        """List the models that a token may read, at most `limit`.

        Raises: InvalidKey, Unavailable.
        """
        status, body = self._get(f"/api/models?limit={limit}", token)
        if status in (401, 403):
            raise InvalidKey("The registry does not know this API key.")
        if status != 200 or not isinstance(body, list):
            raise _away(status)
        names = [entry.get("id") for entry in body if isinstance(entry, dict)]
        return [name for name in names if isinstance(name, str)][:limit]

    def _get(self, path: str, token: str | None) -> tuple[int, object]:
        """Give status and JSON; an answer that is not JSON counts as none."""
        request = urllib.request.Request(self._url + path, headers={"Accept": "application/json"})
        if token is not None:
            request.add_header("Authorization", f"Bearer {token}")
        try:
            with self._opener.open(request, timeout=self._timeout) as answer:
                return answer.status, _json(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, None
        except (OSError, HTTPException, ValueError) as error:
            raise _away(None) from error


def _json(answer: IO[bytes]) -> object:
    text = answer.read(MAX_ANSWER + 1)
    if len(text) > MAX_ANSWER:
        return None
    try:
        return json.loads(text)
    except ValueError:
        return None


def _away(status: int | None) -> Unavailable:
    said = "does not answer" if status is None else f"answered {status}"
    return Unavailable(f"The registry {said}; try again.", code="registry_unavailable", retry_after=2)
