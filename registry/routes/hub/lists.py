"""Lists of models, datasets and spaces: a query string read into a `Query`, a page written out."""

from __future__ import annotations

import re

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from registry.catalog import Catalog, Listed, Query, Sort
from registry.errors import BadBody
from registry.frontmatter import Json
from registry.names import TYPE_OF_NOUN, RepoType
from registry.revisions import Resolved, Revisions
from registry.routes.auth import Auth
from registry.routes.hub import shapes
from registry.routes.hub.arrivals import count, flag, kind_of, next_link

_PAGE, _MOST, _MOST_HEAVY = 100, 1000, 100
_MOST_TERMS = 20
_SORTS: dict[str, Sort] = {
    "createdAt": "created",
    "created_at": "created",
    "lastModified": "updated",
    "last_modified": "updated",
    "downloads": "downloads",
    "likes": "likes",
    "trendingScore": "likes",
    "trending_score": "likes",
}
_GATED = {"true": ("auto", "manual"), "false": ("",), "auto": ("auto",), "manual": ("manual",)}
_NARROWING = {"search", "author", "filter", "pipeline_tag", "gated", "num_parameters"}
_SHAPING = {"sort", "direction", "limit", "cursor", "full", "config", "cardData", "fetch_config", "linked"}
_KNOWN = _NARROWING | _SHAPING | {"expand", "expand[]"}
# What `shapes` reads from the card itself, which is large: such pages are short.
_FROM_CARDS = {"cardData", "baseModels", "model-index", "widgetData", "paperswithcode_id", "sdk"}
_SIZE = re.compile(r"(min|max):(\d{1,12}(?:\.\d{1,6})?)([KMBT]?)\Z", re.IGNORECASE)
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}


class ListDoor:
    """Lists repos that the sender may read."""

    def __init__(self, *, auth: Auth, catalog: Catalog, revisions: Revisions) -> None:
        self._auth = auth
        self._catalog = catalog
        self._revisions = revisions

    def listing(self, request: Request) -> Response:
        """List repos of a type, narrowed by the query, in pages that a Link header connects.

        A filter that this server does not know finds nothing, rather than everything.
        """
        kind = kind_of(request)
        actor = self._auth.actor(request)
        names = _properties(request, kind)
        query = _query(request, kind, names)
        if query is None:
            return _answer([], {})
        page = self._catalog.list(actor, query)
        headers = {"Link": next_link(request, cursor=page.cursor)} if page.cursor else {}
        return _answer([self._item(listed, names) for listed in page.repos], headers)

    def _item(self, listed: Listed, names: tuple[str, ...]) -> dict[str, Json]:
        made = shapes.described(listed.repo, listed.sha, listed.facts, names)
        if "siblings" in names:
            made["siblings"] = self._siblings(listed)
        return made

    def _siblings(self, listed: Listed) -> Json:
        if listed.sha is None:
            return []
        at = Resolved(listed.repo.id, listed.sha, listed.repo.manifest_version)
        return [{"rfilename": name} for name in self._revisions.names(at)]

    def routes(self) -> list[Route]:
        """List the routes of this door."""
        return [Route(f"/api/{noun}", self.listing, methods=["GET"]) for noun in TYPE_OF_NOUN]


def _properties(request: Request, kind: RepoType) -> tuple[str, ...]:
    params = request.query_params
    asked = [name for key in ("expand", "expand[]") for value in params.getlist(key) for name in value.split(",")]
    if asked:
        return tuple(shapes.expanded(kind, asked))
    names = shapes.LISTED[kind]
    if flag(request, "full"):
        names = (*names, "cardData", "siblings") if kind != "dataset" else (*names, "cardData", "siblings", "mainSize")
    if flag(request, "cardData"):
        names = (*names, "cardData")
    if flag(request, "config") or flag(request, "fetch_config"):
        names = (*names, "config")
    return names


def _query(request: Request, kind: RepoType, names: tuple[str, ...]) -> Query | None:
    """Read the query string; None if it narrows by something unknown here.

    Raises: BadBody.
    """
    params = request.query_params
    if set(params) - _KNOWN:
        return None
    gated = params.get("gated", "").lower()
    if gated and gated not in _GATED:
        return None
    sort = params.get("sort", "lastModified")
    if sort not in _SORTS:
        raise BadBody(f'"sort" must be one of [{", ".join(_SORTS)}].')
    terms = tuple(word for text in params.getlist("search") for word in text.split())
    tags = tuple(dict.fromkeys(tag for tag in params.getlist("filter") if tag))
    if len(terms) + len(tags) > _MOST_TERMS or any("\0" in term for term in (*terms, *tags, *params.values())):
        raise BadBody(f"A listing takes at most {_MOST_TERMS} search words and filters.")
    least, most = _parameters(params.get("num_parameters", ""))
    cards = not _FROM_CARDS.isdisjoint(names)
    limit = count(request, "limit", _PAGE, _MOST_HEAVY if cards or "siblings" in names else _MOST)
    return Query(
        kind=kind,
        search=terms,
        author=params.get("author", ""),
        tags=tags,
        task=params.get("pipeline_tag", ""),
        gated=_GATED.get(gated, ()),
        least_parameters=least,
        most_parameters=most,
        sort=_SORTS[sort],
        limit=max(1, limit),
        cursor=params.get("cursor", ""),
        cards=cards,
    )


def _parameters(text: str) -> tuple[int | None, int | None]:
    """Read `min:6B,max:128B`, either part alone too.

    Raises: BadBody.
    """
    bounds: dict[str, int] = {}
    for part in text.split(",") if text else ():
        found = _SIZE.match(part.strip())
        if found is None:
            raise BadBody('"num_parameters" must look like "min:6B,max:128B".')
        bounds[found[1].lower()] = min(int(float(found[2]) * _UNITS[found[3].upper()]), (1 << 63) - 1)
    return bounds.get("min"), bounds.get("max")


def _answer(items: list[dict[str, Json]], headers: dict[str, str]) -> Response:
    return Response(shapes.body(items), headers=headers, media_type="application/json")
