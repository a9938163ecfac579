"""How files come in: cards checked, files sorted, operations committed."""

from __future__ import annotations

import asyncio

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from registry import cards
from registry.access import Visit
from registry.awaiting import Awaiting, Wait
from registry.commits import Commits
from registry.draft import Draft
from registry.errors import RegistryError, StillChecked
from registry.frontmatter import Json
from registry.names import TYPE_OF_NOUN, RepoType
from registry.preupload import Announced, Preupload
from registry.receive import Origin
from registry.routes.body import read_json
from registry.routes.context import origin, request_id
from registry.routes.hub import fields
from registry.routes.hub.arrivals import Arrivals
from registry.routes.hub.ndjson import CommitLines

_MOST_BODY = 8 << 20
_MOST_FILES = 1_000
_SAMPLE = 512
# Lines go to a worker thread in parcels of this size: one hop for many small files.
_PARCEL = 1 << 20
_DRAINED = 1 << 20
_KINDS: dict[str, RepoType] = {"model": "model", "dataset": "dataset", "space": "space"}


class UploadDoor:
    """Takes commits, and answers what clients ask before they send one. One must be allowed to write."""

    def __init__(self, *, arrivals: Arrivals, preupload: Preupload, commits: Commits, awaiting: Awaiting) -> None:
        self._arrivals = arrivals
        self._awaiting = awaiting
        self._preupload = preupload
        self._commits = commits

    async def validate_yaml(self, request: Request) -> Response:
        """Judge the metadata of a card before it is committed; needs no token."""
        body = await read_json(request, _MOST_BODY)
        kind = _KINDS.get(fields.maybe_text(body, "repoType") or "model", "model")
        errors, warnings = await run_in_threadpool(cards.validate, fields.text(body, "content"), kind)
        status = 400 if errors else 200
        if "text/plain" in request.headers.get("accept", ""):
            return PlainTextResponse("\n".join([*errors, *warnings]), status)
        found: dict[str, Json] = {
            "errors": [{"message": text} for text in errors],
            "warnings": [{"message": text} for text in warnings],
        }
        return JSONResponse(found | {"error": "\n".join(errors)} if errors else found, status)

    async def sort(self, request: Request) -> Response:
        """Say of each file whether it goes into git or through LFS, and what its path holds now."""
        body = await read_json(request, _MOST_BODY)
        return await run_in_threadpool(self._sort, request, body)

    def _sort(self, request: Request, body: fields.Body) -> Response:
        visit = self._arrivals.writer(request)
        files = _announced(body)
        commit, found = self._preupload.sort(visit, _revision(request), files, fields.maybe_text(body, "gitIgnore"))
        answer: list[Json] = [
            {
                "path": one.path,
                "uploadMode": "lfs" if one.lfs else "regular",
                "shouldIgnore": one.ignored,
                "oid": one.oid,
            }
            for one in found
        ]
        return JSONResponse({"commitOid": commit, "files": answer})

    async def commit(self, request: Request) -> Response:
        """Make one commit of all operations in the body, which is read line by line."""
        visit = await run_in_threadpool(self._arrivals.writer, request)
        draft = await run_in_threadpool(self._commits.draft)
        try:
            await _collect(request, draft)
            with self._awaiting.place() as wait:
                return await self._patiently(request, visit, draft, wait)
        finally:
            await run_in_threadpool(draft.spool.close)

    async def _patiently(self, request: Request, visit: Visit, draft: Draft, wait: Wait) -> Response:
        """Commit, and again whenever uploads that stood in the way were checked; no thread is held in between."""
        while True:
            try:
                return await run_in_threadpool(self._finish, request, visit, draft)
            except StillChecked as still:
                while (pause := await run_in_threadpool(wait.pause, still)) is not None:
                    await asyncio.sleep(pause.seconds)
                    if await request.is_disconnected():
                        raise ClientDisconnect from still
                if not wait.patient:
                    raise
            # Minutes may have passed, and rights with them.
            visit = await run_in_threadpool(self._arrivals.writer, request)

    def _finish(self, request: Request, visit: Visit, draft: Draft) -> Response:
        by = Origin(visit.actor, "api", request_id=request_id(request))
        made = self._commits.commit(visit.repo.id, by, _revision(request), draft)
        url = f"{origin(request)}/{visit.repo.repo_id.web}/commit/{made.sha}"
        return JSONResponse({"success": True, "commitOid": made.sha, "commitUrl": url, "hookOutput": ""})

    def routes(self) -> list[Route]:
        """List the routes of this door."""
        found = [Route("/api/validate-yaml", self.validate_yaml, methods=["POST"])]
        for noun in TYPE_OF_NOUN:
            repo = f"/api/{noun}/{{namespace}}/{{name}}"
            found += [
                Route(f"{repo}/preupload/{{revision:path}}", self.sort, methods=["POST"]),
                Route(f"{repo}/commit/{{revision:path}}", self.commit, methods=["POST"]),
            ]
        return found


async def _collect(request: Request, draft: Draft) -> None:
    """Read the body into the draft.

    Raises: BadBody, BadPath, TooLarge.
    """
    lines, parcel = CommitLines(draft), bytearray()
    stream = request.stream()
    try:
        async for chunk in stream:
            parcel += chunk
            if len(parcel) >= _PARCEL:
                await run_in_threadpool(lines.feed, bytes(parcel))
                parcel.clear()
        await run_in_threadpool(lines.feed, bytes(parcel))
        await run_in_threadpool(lines.end)
    except RegistryError:
        # A client that is still writing would see a reset instead of the reason.
        left = _DRAINED
        async for chunk in stream:
            left -= len(chunk)
            if left < 0:
                break
        raise


def _announced(body: fields.Body) -> list[Announced]:
    return [_one(file) for file in fields.objects(body, "files", most=_MOST_FILES)]


def _one(file: fields.Body) -> Announced:
    path = fields.text(file, "path")
    sample = fields.base64_of(fields.maybe_text(file, "sample") or "", "sample")[:_SAMPLE]
    return Announced(path, fields.whole(file, "size") or 0, sample)


def _revision(request: Request) -> str:
    return str(request.path_params["revision"])
