"""Brings a request of the Hub's API to a repo and a revision of it.

    /api/{models|datasets|spaces}/{namespace}/{name}/{verb}/{revision}[/{path}]
    /[datasets/|spaces/]{namespace}/{name}/{verb}/{revision}[/{path}]

The raw path is split, not the decoded one: a slash within a revision or file name comes as `%2F`.
"""

from __future__ import annotations

from urllib.parse import urlencode

from starlette.requests import Request

from registry.access import Act, Visit
from registry.errors import BadBody, BadPath, NotSupported, RepoAbsent
from registry.names import TYPE_OF_NOUN, RepoId, RepoType, split_revpath
from registry.revisions import Resolved, Revisions, asked
from registry.routes.auth import Auth
from registry.routes.context import origin, raw_path


class Arrivals:
    """Parses addresses and asks for access; every door of the Hub that reads a repo begins here."""

    def __init__(self, *, auth: Auth, revisions: Revisions) -> None:
        self._auth = auth
        self._revisions = revisions

    def visit(self, request: Request, act: Act = "read", ref: bytes | None = None) -> Visit:
        """Bring the sender to the repo of the address, in one statement.

        Raises: BadToken, NeedsLogin, RepoAbsent, NotAllowed.
        """
        return self._auth.visit(request, repo_of(request), act, ref)

    def writer(self, request: Request) -> Visit:
        """Bring somebody who may write, to a branch or by a pull request, to the repo of the address.

        Raises: as `visit`, NotSupported (a pull request).
        """
        if flag(request, "create_pr"):
            # A pull request asks for less than a commit: whoever may read may propose.
            self.visit(request)
            raise NotSupported("This server has no pull requests yet; commit to a branch instead.")
        return self.visit(request, "write")

    def revision(self, request: Request) -> tuple[Visit, Resolved]:
        """Read an address that ends with a revision.

        Raises: as `visit`, RevisionAbsent, BadPath.
        """
        revision, _ = split_revpath(_tail(request).replace("/", "%2F"))
        visit = self.visit(request, ref=asked(revision))
        return visit, self._revisions.resolve(visit, revision)

    def file(self, request: Request) -> tuple[Visit, Resolved, str, bool]:
        """Read an address that ends with a revision and a path; last is True if the revision was the commit itself.

        Raises: as `visit`, RevisionAbsent, BadPath.
        """
        rest = _tail(request)
        if rest.startswith("refs/"):
            visit = self.visit(request)
            known = [name.decode("utf-8", "replace") for name in self._revisions.shown(visit)]
            revision, path = split_revpath(rest, known)
        else:
            revision, path = split_revpath(rest)
            visit = self.visit(request, ref=asked(revision))
        at = self._revisions.resolve(visit, revision)
        return visit, at, path.rstrip("/"), revision == at.commit


def check_gate(request: Request, visit: Visit) -> None:
    """Let only people with a right of their own read the files of a gated repo that everybody sees.

    Raises: GatedLogin, Gated.
    """
    visit.check_gate(origin(request))


def next_link(request: Request, **changes: object) -> str:
    """Write the Link header to the page that this request with some other parameters would get."""
    kept = [pair for pair in request.query_params.multi_items() if pair[0] not in changes]
    query = urlencode([*kept, *((key, str(value)) for key, value in changes.items())])
    return f'<{origin(request)}{_raw(request)}?{query}>; rel="next"'


def repo_of(request: Request) -> RepoId:
    """Read the repo of an address.

    Raises: RepoAbsent (names that no repo can have).
    """
    named = request.path_params
    kind = kind_of(request)
    if "/" in named["namespace"] or "/" in named["name"]:
        raise RepoAbsent("Repository not found.")
    return RepoId(kind, named["namespace"], named["name"])


def kind_of(request: Request) -> RepoType:
    """Read what type of repo an address is about."""
    parts = _raw(request).split("/", 3)
    return TYPE_OF_NOUN.get(parts[2] if parts[1] == "api" else parts[1], "model")


def count(request: Request, name: str, default: int, most: int) -> int:
    """Read a number from the query, at most `most`.

    Raises: BadBody.
    """
    text = request.query_params.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit()) or len(text) > 18:
        raise BadBody(f'"{name}" must be a number.')
    return min(int(text), most)


def flag(request: Request, name: str) -> bool:
    """Read a yes or no from the query; absent is no."""
    return request.query_params.get(name, "").lower() in ("true", "1", "yes")


def _tail(request: Request) -> str:
    """Cut what follows the verb out of the raw path.

    Raises: BadPath (a slash of the repo's name was quoted).
    """
    parts = _raw(request).split("/")
    verb = 5 if parts[1] == "api" else 4 if parts[1] in ("datasets", "spaces") else 3
    if len(parts) <= verb + 1 or request.scope["path"].count("/") < verb + 1:
        raise BadPath("The address has no revision.")
    return "/".join(parts[verb + 1 :])


def _raw(request: Request) -> str:
    return raw_path(request).removeprefix(request.scope.get("root_path", ""))
