"""How much a namespace holds, told to its people."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from registry.frontmatter import Json
from registry.routes.auth import Auth
from registry.routes.hub import shapes
from registry.routes.hub.arrivals import count, next_link
from registry.usage import RepoUsage, Usages

_PAGE, _MOST = 100, 1000


class UsageDoor:
    """Shows quotas and what stands against them. All numbers are bytes."""

    def __init__(self, *, auth: Auth, usages: Usages) -> None:
        self._auth = auth
        self._usages = usages

    def usage(self, request: Request) -> Response:
        """Tell what a namespace holds, may hold and expects, and its repos in pages that a Link header connects."""
        actor = self._auth.actor(request)
        limit = max(1, count(request, "limit", _PAGE, _MOST))
        after = count(request, "cursor", 0, 1 << 62)
        page = self._usages.page(actor, request.path_params["namespace"], after=after, limit=limit)
        usage = page.usage
        found: dict[str, Json] = {
            "namespace": usage.namespace,
            "quota": usage.quota,
            "used": usage.used,
            "reserved": usage.reserved,
            "repos": [_repo(one) for one in page.repos],
        }
        headers = {"Link": next_link(request, cursor=page.cursor)} if page.cursor else {}
        return Response(shapes.body(found), headers=headers, media_type="application/json")

    def routes(self) -> list[Route]:
        """List the routes of this door."""
        return [Route("/api/usage/{namespace}", self.usage, methods=["GET"])]


def _repo(one: RepoUsage) -> dict[str, Json]:
    return {
        "id": one.name.full,
        "type": one.name.type,
        "git": one.git,
        "lfs": one.lfs,
        "usedStorage": one.git + one.lfs,
    }
