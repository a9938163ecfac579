"""What a repo is: info at a revision, refs, commits, and whether one may."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from lfs.memory import Memory
from registry.access import Visit
from registry.cards import Facts
from registry.errors import RevisionAbsent
from registry.facts import FactReader
from registry.frontmatter import Json
from registry.names import TYPE_OF_NOUN
from registry.revisions import Resolved, Revisions, asked
from registry.routes.hub import shapes
from registry.routes.hub.arrivals import Arrivals, check_gate, count, flag, next_link

_COMMITS, _MOST_COMMITS = 50, 1000
_WHOLE = 1 << 40


class RepoDoor:
    """Tells of one repo; `xet` says that large files may come by Xet.

    JSON of a pinned commit's files is kept ready under `memory` bytes.
    """

    def __init__(
        self,
        *,
        arrivals: Arrivals,
        revisions: Revisions,
        facts: FactReader,
        xet: bool = False,
        memory: int = 16 << 20,
    ) -> None:
        self._arrivals = arrivals
        self._revisions = revisions
        self._facts = facts
        self._xet = xet
        self._siblings: Memory[tuple[int, str, bool], bytes] = Memory(memory, lambda made: 200 + len(made))

    def info(self, request: Request) -> Response:
        """Tell of a repo at the tip of its default branch; one without commits has no `sha`."""
        visit = self._arrivals.visit(request, ref=asked(None))
        try:
            at = self._revisions.resolve(visit, None)
        except RevisionAbsent:
            return self._info(request, visit, None)
        return self._info(request, visit, at)

    def info_at(self, request: Request) -> Response:
        """Tell of a repo at a revision."""
        visit, at = self._arrivals.revision(request)
        return self._info(request, visit, at)

    def refs(self, request: Request) -> Response:
        """List branches, tags, converts and, with `include_prs`, pull requests."""
        visit = self._arrivals.visit(request)
        return _json(shapes.refs(self._revisions.shown(visit), pulls=flag(request, "include_prs")))

    def commits(self, request: Request) -> Response:
        """List the history of a revision in pages, newest first; `expand[]=formatted` adds escaped texts."""
        _, at = self._arrivals.revision(request)
        page, limit = count(request, "p", 0, _WHOLE), max(1, count(request, "limit", _COMMITS, _MOST_COMMITS))
        found, total = self._revisions.log(at, page * limit, limit)
        named = [*request.query_params.getlist("expand[]"), *request.query_params.getlist("expand")]
        headers = {"X-Total-Count": str(total), "X-Repo-Commit": at.commit}
        if (page + 1) * limit < total:
            headers["Link"] = next_link(request, p=page + 1)
        return _json([shapes.commit(commit, formatted="formatted" in named) for commit in found], headers)

    def auth_check(self, request: Request) -> Response:
        """Say whether the sender may read the files of a repo."""
        check_gate(request, self._arrivals.visit(request))
        return _json({})

    def auth_check_write(self, request: Request) -> Response:
        """Say whether the sender may write to a repo."""
        self._arrivals.visit(request, "write")
        return _json({})

    def _info(self, request: Request, visit: Visit, at: Resolved | None) -> Response:
        repo, blobs = visit.repo, flag(request, "blobs")
        names = shapes.expanded(repo.type, _expand(request))
        facts = Facts() if at is None else self._facts.read(repo.type, at)
        chosen = names or shapes.INFO[repo.type]
        made = shapes.described(repo, None if at is None else at.commit, facts, chosen)
        if shapes.XET in names:
            made[shapes.XET] = self._xet
        if flag(request, "securityStatus"):
            # Nothing is scanned yet, and an absent verdict must not look like a good one.
            made["securityRepoStatus"] = {"scansDone": False, "filesWithIssues": []}
        if names and "siblings" not in names and not blobs:
            return _json(made)
        siblings = b"[]" if at is None else self._files(at, blobs=blobs)
        body = shapes.body(made)[:-1] + b',"siblings":' + siblings + b"}"
        headers = {} if at is None else {"X-Repo-Commit": at.commit}
        return Response(body, headers=headers, media_type="application/json")

    def _files(self, at: Resolved, *, blobs: bool) -> bytes:
        def make() -> bytes:
            if not blobs:
                return shapes.body([{"rfilename": name} for name in self._revisions.names(at)])
            page = self._revisions.tree(at, "", recursive=True, limit=_WHOLE)
            return shapes.body([shapes.sibling(entry) for entry in page.entries if not entry.folder])

        return self._siblings.get((at.repo_id, at.commit, blobs), make)

    def routes(self) -> list[Route]:
        """List the routes of this door."""
        found = []
        for noun in TYPE_OF_NOUN:
            repo = f"/api/{noun}/{{namespace}}/{{name}}"
            found += [
                Route(repo, self.info, methods=["GET"]),
                Route(f"{repo}/revision/{{revision:path}}", self.info_at, methods=["GET"]),
                Route(f"{repo}/refs", self.refs, methods=["GET"]),
                Route(f"{repo}/commits/{{revision:path}}", self.commits, methods=["GET"]),
                Route(f"{repo}/auth-check", self.auth_check, methods=["GET"]),
                Route(f"{repo}/auth-check/write", self.auth_check_write, methods=["GET"]),
            ]
        return found


def _expand(request: Request) -> list[str]:
    """Gather the values of `expand`, however the client spells a list."""
    query = request.query_params
    return [name for value in (*query.getlist("expand"), *query.getlist("expand[]")) for name in value.split(",")]


def _json(found: Json | list[dict[str, Json]], headers: dict[str, str] | None = None) -> Response:
    return Response(shapes.body(found), headers=headers, media_type="application/json")
