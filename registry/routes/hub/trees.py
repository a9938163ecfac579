"""What a revision holds, as lists: tree pages, and entries of named paths."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import parse_qs

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from lfs.memory import Memory
from registry.errors import BadBody, TooLarge
from registry.git.tree import Entry
from registry.names import TYPE_OF_NOUN
from registry.revisions import Resolved, Revisions
from registry.routes.body import parse_object, read_body
from registry.routes.cas import Cas
from registry.routes.hub import shapes
from registry.routes.hub.arrivals import Arrivals, count, flag, next_link

_PAGE, _EXPANDED_PAGE = 1000, 50
# llama.cpp reads one page and never follows a Link.
_ONLY_PAGE = 10_000
_MOST_BODY = 8 << 20
_MOST_PATHS = 10_000


@dataclass(frozen=True, slots=True)
class Asked:
    """Which page of a tree; `after` is the last path of the page before."""

    folder: str
    recursive: bool
    expand: bool
    limit: int
    after: bytes | None


@dataclass(frozen=True, slots=True)
class Written:
    """Entries of a pinned commit as JSON, and where each LFS object among them ends, in the order of the text.

    `last` is the last path of a page that others follow.
    """

    body: bytes
    large: tuple[tuple[int, str], ...]
    last: bytes | None = None

    def with_hashes(self, hashes: Mapping[str, str]) -> bytes:
        """Add the Xet hashes of these objects."""
        made, begin = [], 0
        for end, oid in self.large:
            if oid in hashes:
                made.append(self.body[begin:end] + b',"xetHash":"' + hashes[oid].encode() + b'"')
                begin = end
        return b"".join([*made, self.body[begin:]])


class TreeDoor:
    """Lists entries. Pages of pinned commits are kept written under `memory` bytes.

    Which of their files can be had by chunks may change, and is asked of `cas` for each answer, in one look.
    """

    def __init__(
        self, *, arrivals: Arrivals, revisions: Revisions, cas: Cas | None = None, memory: int = 32 << 20
    ) -> None:
        self._arrivals = arrivals
        self._revisions = revisions
        self._cas = cas
        self._written: Memory[tuple[int, str, Asked], Written] = Memory(
            memory, lambda written: 500 + len(written.body) + 200 * len(written.large)
        )

    def tree(self, request: Request) -> Response:
        """List a folder of a revision, with `recursive` all below it; `expand` adds each entry's last commit."""
        visit, at, folder, _ = self._arrivals.file(request)
        after = None
        if cursor := request.query_params.get("cursor"):
            commit, after = _opened(cursor)
            at = self._revisions.resolve(visit, commit)
        recursive, expand = flag(request, "recursive"), flag(request, "expand")
        limit = count(request, "limit", *_sizes(request, recursive=recursive, expand=expand))
        asked = Asked(folder, recursive, expand, max(1, limit), after)
        written = self._written.get((at.repo_id, at.commit, asked), lambda: self._page(at, asked))
        more = {} if written.last is None else {"Link": next_link(request, cursor=_closed(at.commit, written.last))}
        return self._told(at, written, more)

    async def paths_info(self, request: Request) -> Response:
        """Tell of named paths of a revision, files and folders; those that do not exist are left out."""
        body = await read_body(request, _MOST_BODY)
        return await run_in_threadpool(self._paths_info, request, body)

    def _paths_info(self, request: Request, body: bytes) -> Response:
        _, at = self._arrivals.revision(request)
        paths, expand = _asked_paths(request, body)
        return self._told(at, self._write(at, self._revisions.find(at, paths), expand=expand), {})

    def _told(self, at: Resolved, written: Written, more: Mapping[str, str]) -> Response:
        body = written.body
        if self._cas is not None and written.large:
            body = written.with_hashes(self._cas.hashes(at.repo_id, [oid for _, oid in written.large]))
        return Response(body, headers={"X-Repo-Commit": at.commit, **more}, media_type="application/json")

    def _page(self, at: Resolved, asked: Asked) -> Written:
        page = self._revisions.tree(at, asked.folder, recursive=asked.recursive, limit=asked.limit, after=asked.after)
        last = page.entries[-1].path if page.more else None
        return self._write(at, page.entries, expand=asked.expand, last=last)

    def _write(self, at: Resolved, entries: Sequence[Entry], *, expand: bool, last: bytes | None = None) -> Written:
        changes = self._revisions.last_changes(at, [entry.path for entry in entries]) if expand else {}
        items, large, end = [], [], 0
        for entry in entries:
            items.append(shapes.body(shapes.entry(entry, changes.get(entry.path))))
            # One letter for the bracket or comma before it; its own last letter closes it.
            end += 1 + len(items[-1])
            if entry.pointer is not None:
                large.append((end - 1, entry.pointer.oid))
        return Written(b"[" + b",".join(items) + b"]", tuple(large), last)

    def routes(self) -> list[Route]:
        """List the routes of this door."""
        found = []
        for noun in TYPE_OF_NOUN:
            repo = f"/api/{noun}/{{namespace}}/{{name}}"
            found += [
                Route(f"{repo}/tree/{{revpath:path}}", self.tree, methods=["GET"]),
                Route(f"{repo}/paths-info/{{revision:path}}", self.paths_info, methods=["POST"]),
            ]
        return found


def _sizes(request: Request, *, recursive: bool, expand: bool) -> tuple[int, int]:
    """Say how many entries a page has, and how many a client may ask for."""
    if expand:
        return _EXPANDED_PAGE, _PAGE
    if recursive and "llama" in request.headers.get("user-agent", "").lower():
        return _ONLY_PAGE, _ONLY_PAGE
    return _PAGE, _ONLY_PAGE


def _asked_paths(request: Request, body: bytes) -> tuple[list[str], bool]:
    """Read paths and `expand` from a form, as Python sends them, or from JSON, as JavaScript does.

    Raises: BadBody, TooLarge.
    """
    if request.headers.get("content-type", "").startswith("application/json"):
        found = parse_object(body)
        paths, expand = found.get("paths", []), found.get("expand", False)
    else:
        form = _form(body)
        paths, expand = form.get("paths", []), form.get("expand", [""])[-1].lower() in ("true", "1")
    if isinstance(paths, str):
        paths = [paths]
    if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
        raise BadBody('"paths" must be an array of strings.')
    if len(paths) > _MOST_PATHS:
        raise TooLarge(f"One call takes at most {_MOST_PATHS} paths; ask in parts.")
    return paths, expand is True


def _form(body: bytes) -> dict[str, list[str]]:
    try:
        return parse_qs(body.decode(), keep_blank_values=True, max_num_fields=_MOST_PATHS + 10, errors="strict")
    except ValueError as error:
        raise BadBody("The body is no form, or has too many fields.") from error


def _closed(commit: str, path: bytes) -> str:
    """Name the place behind an entry; it holds the commit, so that a push between two pages changes neither."""
    return base64.urlsafe_b64encode(bytes.fromhex(commit) + path).decode().rstrip("=")


def _opened(cursor: str) -> tuple[str, bytes]:
    """Read a place.

    Raises: BadBody.
    """
    try:
        raw = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
    except ValueError as error:
        raise BadBody("The cursor is not one of this listing; begin again without it.") from error
    if len(raw) <= 20:
        raise BadBody("The cursor is not one of this listing; begin again without it.")
    return raw[:20].hex(), raw[20:]
