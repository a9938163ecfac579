"""Files of a revision: `resolve` gives the content, `raw` what git holds (the pointer, for an LFS file).

HEAD is always 200 with every header and no Location. GET is the bytes, or a 302 to the shelf itself if it is a bucket.
Answers of a pinned commit never change, so their headers and small bodies are kept ready; access is decided first,
on every request. Source: HTTP ranges and conditions as in RFC 9110.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from lfs import http_range
from lfs.errors import RangeUnsatisfiable
from lfs.memory import Memory
from lfs.transfer import IMMUTABLE, Outgoing, Transfer
from registry.access import Visit
from registry.errors import ObjectAbsent
from registry.git.tree import Entry, absent
from registry.links import Held
from registry.names import WEB_PREFIX
from registry.revisions import Resolved, Revisions
from registry.routes.cas import FILE_INFO, Advert, Cas
from registry.routes.context import origin
from registry.routes.hub import shapes
from registry.routes.hub.arrivals import Arrivals, check_gate
from registry.unpacked import Unpacked

Verb = Literal["resolve", "raw"]
RawHeaders = list[tuple[bytes, bytes]]

_SMALL = 64 << 10
_INLINE = {
    "png": "image/png",
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "gif": "image/gif",
    "webp": "image/webp",
    "json": "application/json",
    "txt": "text/plain; charset=utf-8",
    "md": "text/plain; charset=utf-8",
    "jsonl": "text/plain; charset=utf-8",
    "yaml": "text/plain; charset=utf-8",
    "yml": "text/plain; charset=utf-8",
    "toml": "text/plain; charset=utf-8",
    "csv": "text/plain; charset=utf-8",
    "py": "text/plain; charset=utf-8",
    "gitattributes": "text/plain; charset=utf-8",
    "gitignore": "text/plain; charset=utf-8",
}
"""What a browser may show in place; everything else is a download, whatever it claims to be."""
_PLAIN_NAME = re.compile(r"[^A-Za-z0-9._ -]")
_GUARDS: RawHeaders = [
    (b"accept-ranges", b"bytes"),
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"sandbox; default-src 'none'"),
    (b"cross-origin-resource-policy", b"same-site"),
]


@dataclass(frozen=True, slots=True)
class Ready:
    """The answer for one path of a pinned commit; `headers` lack only the ones that depend on the request."""

    etag: str
    size: int
    headers: RawHeaders
    entry: Entry
    oid: str | None
    body: bytes | None


class Bytes(Response):
    """An answer whose headers are ready; cheaper than the general one, which builds them per request."""

    def __init__(self, status: int, headers: RawHeaders, body: bytes = b"") -> None:
        self.status_code = status
        self.raw_headers = headers
        self.body = body
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body})


class FileDoor:
    """Serves files. `held(repo_id, oid)` finds an LFS object of a repo.

    Files of git above `inline` bytes are sent from the store, where `unpacked` lays them out; without it, from memory.
    `cas` is asked each time whether a file can be had by its chunks: that may change where a commit never does.
    """

    def __init__(
        self,
        *,
        arrivals: Arrivals,
        revisions: Revisions,
        transfer: Transfer,
        held: Callable[[int, str], Held | None],
        unpacked: Unpacked | None = None,
        cas: Cas | None = None,
        inline: int = 1 << 20,
        memory: int = 32 << 20,
    ) -> None:
        self._arrivals = arrivals
        self._revisions = revisions
        self._transfer = transfer
        self._held = held
        self._unpacked = unpacked
        self._cas = cas
        self._inline = inline
        self._ready: Memory[tuple[int, str, str, Verb], Ready] = Memory(
            memory, lambda ready: 2500 + len(ready.body or b"")
        )

    def resolve(self, request: Request) -> ASGIApp:
        """Give a file of a revision; HEAD tells commit, tag and size of it."""
        return self._serve(request, "resolve")

    def raw(self, request: Request) -> ASGIApp:
        """Give what git holds at a path of a revision: for an LFS file the text of its pointer."""
        return self._serve(request, "raw")

    def _serve(self, request: Request, verb: Verb) -> ASGIApp:
        visit, at, path, pinned = self._arrivals.file(request)
        check_gate(request, visit)
        ready = self._ready.get((at.repo_id, at.commit, path, verb), lambda: self._made(at, path, verb))
        attach = request.query_params.get("download") in ("true", "1")
        headers = [
            *ready.headers,
            (b"cache-control", IMMUTABLE.encode() if pinned else b"no-cache"),
            (b"content-disposition", _disposition(path, attach=attach)),
        ]
        if _matches(request.headers.get("if-none-match"), ready.etag):
            return Bytes(304, headers)
        advert = self._advert(request, visit, at, ready)
        if advert is not None:
            headers += advert.headers()
            if request.method == "GET" and _wants_info(request):
                info = shapes.body(advert.document(ready.size, ready.etag))
                return Bytes(200, _retold(headers, info), info)
        if request.method == "HEAD":
            return Bytes(200, [*headers, _length(ready.size)])
        if ready.oid is not None:
            return self._object(at, ready, headers)
        if ready.size > self._inline and self._unpacked is not None:
            return self._sent(self._unpacked.key(at, ready.entry), ready, headers)
        return self._blob(request, at, ready, headers)

    def _advert(self, request: Request, visit: Visit, at: Resolved, ready: Ready) -> Advert | None:
        if self._cas is None or ready.oid is None:
            return None
        return self._cas.advert(origin(request), visit.repo, at.commit, ready.oid)

    def _object(self, at: Resolved, ready: Ready, headers: RawHeaders) -> ASGIApp:
        assert ready.oid is not None
        where = partial(self._key, at.repo_id, ready.oid)
        if not (key := where()):
            raise ObjectAbsent(
                "The bytes of this file are lost or damaged; upload it again to heal it.", oids=[ready.oid]
            )
        return self._sent(key, ready, headers, where)

    def _key(self, repo_id: int, oid: str) -> str:
        held = self._held(repo_id, oid)
        return "" if held is None else held.key

    def _sent(self, key: str, ready: Ready, headers: RawHeaders, elsewhere: Callable[[], str] = str) -> ASGIApp:
        named = {name.decode(): value.decode("latin-1") for name, value in headers}
        return self._transfer.send(Outgoing(key, ready.size, ready.etag.strip('"'), named, elsewhere))

    def _blob(self, request: Request, at: Resolved, ready: Ready, headers: RawHeaders) -> Response:
        body = ready.body
        if body is None:
            body = self._revisions.blob(at, ready.entry, ready.entry.git_size)
        asked, only_if = request.headers.get("range"), request.headers.get("if-range")
        try:
            span = http_range.asked(asked, len(body), if_range=only_if, etag=ready.etag)
        except RangeUnsatisfiable:
            told = (b"content-range", http_range.unsatisfied(len(body)).encode())
            return Bytes(416, [*headers, told, _length(0)])
        if span is None:
            return Bytes(200, [*headers, _length(len(body))], body)
        told = (b"content-range", http_range.content_range(*span, len(body)).encode())
        part = body[slice(*span)]
        return Bytes(206, [*headers, told, _length(len(part))], part)

    def _made(self, at: Resolved, path: str, verb: Verb) -> Ready:
        entry = self._revisions.entry(at, path)
        if entry.folder:
            raise absent(at.commit, path.encode())
        commit = (b"x-repo-commit", at.commit.encode())
        kind = (b"content-type", _media(path)[0].encode())
        pointer = entry.pointer if verb == "resolve" else None
        if pointer is not None:
            etag = f'"{pointer.oid}"'
            linked = [(b"x-linked-etag", etag.encode()), (b"x-linked-size", str(pointer.size).encode())]
            headers = [commit, kind, (b"etag", etag.encode()), *linked, *_GUARDS]
            return Ready(etag, pointer.size, headers, entry, pointer.oid, None)
        etag = f'"{entry.sha}"'
        headers = [commit, kind, (b"etag", etag.encode()), *_GUARDS]
        body = self._revisions.blob(at, entry, _SMALL) if entry.git_size <= _SMALL else None
        return Ready(etag, entry.git_size, headers, entry, None, body)

    def routes(self) -> list[Route]:
        """List the routes of this door; HEAD comes with GET."""
        found = []
        for prefix in sorted(WEB_PREFIX.values(), reverse=True):
            repo = f"/{prefix}{{namespace}}/{{name}}"
            found += [
                Route(f"{repo}/resolve/{{revpath:path}}", self.resolve, methods=["GET"]),
                Route(f"{repo}/raw/{{revpath:path}}", self.raw, methods=["GET"]),
            ]
        return found


def _wants_info(request: Request) -> bool:
    """Say whether a client asks for the way to a file with the words by which it would ask for its first byte."""
    return FILE_INFO in request.headers.get("accept", "") and request.headers.get("range") == "bytes=0-0"


def _retold(headers: RawHeaders, body: bytes) -> RawHeaders:
    """Describe a body that tells of a file in place of the file."""
    changed = (b"content-type", b"content-disposition", b"accept-ranges")
    kept = [pair for pair in headers if pair[0] not in changed]
    return [*kept, (b"content-type", FILE_INFO.encode()), (b"vary", b"accept, range"), _length(len(body))]


def _length(size: int) -> tuple[bytes, bytes]:
    return b"content-length", str(size).encode()


def _media(path: str) -> tuple[str, bool]:
    """Choose the type to send, and whether a browser may show it."""
    found = _INLINE.get(path.rpartition("/")[2].rpartition(".")[2].lower())
    return (found, True) if found is not None else ("application/octet-stream", False)


def _disposition(path: str, *, attach: bool) -> bytes:
    name = path.rpartition("/")[2]
    plain = _PLAIN_NAME.sub("_", name)
    how = "inline" if _media(path)[1] and not attach else "attachment"
    return f"{how}; filename*=UTF-8''{quote(name, safe='')}; filename=\"{plain}\";".encode()


def _matches(header: str | None, etag: str) -> bool:
    """Say whether an If-None-Match names the tag, compared weakly (RFC 9110, 13.1.2)."""
    if header is None:
        return False
    return header.strip() == "*" or etag in (tag.strip().removeprefix("W/") for tag in header.split(","))
