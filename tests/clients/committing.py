"""Commits of the Hub written by hand, line by line."""

from __future__ import annotations

import json

import httpx

from tests.clients.hostile import Site

HEAD: dict[str, object] = {"key": "header", "value": {"summary": "s"}}


def file(path: object, content: object = "eA==", encoding: object = "base64") -> dict[str, object]:
    """Write the line of a file."""
    return {"key": "file", "value": {"path": path, "content": content, "encoding": encoding}}


def commit(site: Site, repo: str, *lines: object, at: str = "main", who: str | None = "owner") -> httpx.Response:
    """Send a commit; a line that is bytes goes as it is."""
    body = b"\n".join(one if isinstance(one, bytes) else json.dumps(one).encode() for one in lines)
    headers = {"Content-Type": "application/x-ndjson"}
    return site.ask("POST", f"/api/models/{repo}/commit/{at}", who, content=body, headers=headers)
