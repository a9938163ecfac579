"""A registry in memory: the routes a sidecar asks, over a real socket, and switches to make it misbehave."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.inference.listening import listening

LFS_FROM = 1000

REPO = "acme/tiny"
WEIGHTS = bytes(range(256)) * 400
FILES = {
    "config.json": b'{"model_type": "llama"}',
    "tokenizer.json": b"{}",
    "chat_template.jinja": b"{{ messages }}",
    "model.safetensors": WEIGHTS,
    "1_Pooling/config.json": b"{}",
    "empty.txt": b"",
    "README.md": b"# not wanted",
    "pytorch_model.bin": b"\x80\x04pickle" * 300,
    "modeling_evil.py": b"import os",
    ".hidden/config.json": b"{}",
    ".weightroom.json": b"forged",
}


def git_id(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def sha_of(files: Mapping[str, bytes]) -> str:
    return hashlib.sha1(repr(sorted(files.items())).encode(), usedforsecurity=False).hexdigest()


@dataclass
class Hub:
    """Repos as branches of commits; what is asked is counted in `asked`."""

    branches: dict[tuple[str, str], str] = field(default_factory=dict)
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    readers: dict[str, set[str]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    tokens_seen: list[tuple[str, str | None]] = field(default_factory=list)
    page: int = 3
    status: int | None = None
    break_after: int | None = None
    ranges: bool = True
    redirect_to: str | None = None
    replaced: dict[str, bytes] = field(default_factory=dict)
    listed: dict[str, list[dict[str, object]]] = field(default_factory=dict)

    def push(self, repo: str, files: Mapping[str, bytes], branch: str = "main") -> str:
        sha = sha_of(files)
        self.commits[sha] = dict(files)
        self.branches[(repo, branch)] = sha
        return sha

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/api/models/{repo:path}/revision/{rev:path}", self._info),
                Route("/api/models/{repo:path}/tree/{sha}", self._tree),
                Route("/api/models/{repo:path}", self._info),
                Route("/bucket/{sha}/{path:path}", self._file),
                Route("/{repo:path}/resolve/{sha}/{path:path}", self._resolve),
            ]
        )

    def _enter(self, request: Request) -> Response | None:
        self.asked.append(request.url.path)
        header = request.headers.get("authorization")
        self.tokens_seen.append((request.url.path, header))
        if self.status is not None:
            return JSONResponse({"error": "told to"}, self.status, {"Retry-After": "7"})
        allowed = self.readers.get(request.path_params.get("repo", ""))
        if allowed is not None and (header or "").removeprefix("Bearer ") not in allowed:
            return JSONResponse({"error": "Repository not found"}, 401 if header is None else 404)
        return None

    def _info(self, request: Request) -> Response:
        refused = self._enter(request)
        repo, rev = request.path_params["repo"], request.path_params.get("rev", "main")
        sha = rev if rev in self.commits else self.branches.get((repo, rev))
        if refused is not None or sha is None:
            return refused or JSONResponse({"error": "no such thing"}, 404)
        return JSONResponse({"id": repo, "sha": sha, "_id": "0" * 24})

    def _tree(self, request: Request) -> Response:
        refused = self._enter(request)
        sha = request.path_params["sha"]
        if refused is not None or sha not in self.commits:
            return refused or JSONResponse({"error": "no such thing"}, 404)
        entries = self.listed.get(sha) or [_listed(path, data) for path, data in self.commits[sha].items()]
        at = int(request.query_params.get("cursor", "0"))
        headers = {}
        if at + self.page < len(entries):
            following = request.url.include_query_params(cursor=at + self.page)
            # Registries behind a proxy name themselves as their clients know them.
            headers["Link"] = f'<{following.replace(hostname="public.example", port=443)}>; rel="next"'
        return JSONResponse(entries[at : at + self.page], headers=headers)

    def _resolve(self, request: Request) -> Response:
        refused = self._enter(request)
        if refused is not None:
            return refused
        if self.redirect_to is not None:
            sha, path = request.path_params["sha"], request.path_params["path"]
            return RedirectResponse(f"{self.redirect_to}/bucket/{sha}/{path}", 302)
        return self._send(request)

    def _file(self, request: Request) -> Response:
        return self._enter(request) or self._send(request)

    def _send(self, request: Request) -> Response:
        path = request.path_params["path"]
        data = self.commits.get(request.path_params["sha"], {}).get(path)
        if data is None:
            return JSONResponse({"error": "EntryNotFound"}, 404)
        data = self.replaced.get(path, data)
        start = request.headers.get("range", "bytes=0-").removeprefix("bytes=").rstrip("-")
        at = int(start) if self.ranges else 0
        headers = {"Content-Length": str(len(data) - at)}
        return StreamingResponse(self._pieces(data[at:]), 206 if at else 200, headers)

    async def _pieces(self, data: bytes) -> AsyncIterator[bytes]:
        if self.break_after is not None and len(data) > self.break_after:
            yield data[: self.break_after]
            raise ConnectionAbortedError("told to")
        yield data


@contextmanager
def serving(hub: Hub) -> Iterator[str]:
    with listening(hub.app()) as url:
        yield url


def _listed(path: str, data: bytes) -> dict[str, object]:
    entry: dict[str, object] = {"type": "file", "path": path, "size": len(data), "oid": git_id(data)}
    if len(data) >= LFS_FROM:
        oid = hashlib.sha256(data).hexdigest()
        entry["lfs"] = {"oid": oid, "size": len(data), "pointerSize": 130}
    return entry
