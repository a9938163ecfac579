"""Which repos there are: list, search, filter, sort; and the rows by which they are found.

Pages go by (sort value, id), newest or largest first, so a page costs the same at any depth and neither loses nor
repeats a repo that stays where it is. Only repos that the actor may read are ever looked at.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from registry.access import Actor, RepoRow
from registry.cards import Facts
from registry.db import Database, lock_repo
from registry.errors import BadBody
from registry.names import RepoType
from registry.tables.identity import memberships, namespaces
from registry.tables.repos import card_tags, cards, refs, repos

Sort = Literal["created", "updated", "downloads", "likes"]

_SORTS: dict[Sort, sa.Column[Any]] = {
    "created": repos.c.created_at,
    "updated": repos.c.updated_at,
    "downloads": repos.c.downloads,
    "likes": repos.c.likes,
}
# Prefixes that clients write and that the tags of models do not carry.
_BARE = ("language:", "library:", "other:", "task:", "pipeline_tag:")
_ATTEMPTS = 4


@dataclass(frozen=True, slots=True)
class Query:
    """What to list; empty fields do not narrow. `parameters` bounds are inclusive."""

    kind: RepoType
    search: tuple[str, ...] = ()
    author: str = ""
    tags: tuple[str, ...] = ()
    task: str = ""
    gated: tuple[str, ...] = ()
    least_parameters: int | None = None
    most_parameters: int | None = None
    sort: Sort = "updated"
    limit: int = 100
    cursor: str = ""
    cards: bool = True
    """Read cards as well, which may be half a megabyte each."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A repo in a list; `sha` is the tip of its default branch, None while it has none.

    The facts have an empty card if the query did not ask for cards.
    """

    repo: RepoRow
    sha: str | None
    facts: Facts


@dataclass(frozen=True, slots=True)
class CatalogPage:
    """Some repos; `cursor` continues behind them, empty at the end."""

    repos: tuple[Listed, ...]
    cursor: str = ""


class Catalog:
    """Lists repos and keeps their card rows. Thread-safe."""

    def __init__(
        self, database: Database, *, describe: Callable[[RepoType, int, str], Facts], anonymous_read: bool = True
    ) -> None:
        """`describe(kind, repo_id, sha)` reads what a commit says of itself."""
        self._db = database
        self._describe = describe
        self._anonymous_read = anonymous_read

    def list(self, actor: Actor, query: Query) -> CatalogPage:
        """List a page of the repos that the actor may read.

        Raises: BadBody (the cursor is not of this listing).
        """
        if actor.anonymous and not self._anonymous_read:
            return CatalogPage(())
        column = _SORTS[query.sort]
        rows_of = _ROWS.add_columns(cards.c.card) if query.cards else _ROWS
        chosen = rows_of.where(repos.c.type == query.kind, *_conditions(query), *_readable(actor))
        if query.cursor:
            value, last = _opened(query)
            chosen = chosen.where(sa.or_(column < value, sa.and_(column == value, repos.c.id < last)))
        chosen = chosen.order_by(column.desc(), repos.c.id.desc()).limit(query.limit + 1)
        with self._db.read() as connection:
            rows = connection.execute(chosen).all()
            page = rows[: query.limit]
            tags = _tags(connection, [row.id for row in page])
        cursor = _closed(query.sort, page[-1]) if len(rows) > query.limit else ""
        return CatalogPage(tuple(_listed(row, tags.get(row.id, ())) for row in page), cursor)

    def refresh(self, repo_id: int) -> None:
        """Bring the card rows of a repo to the tip of its default branch.

        Idempotent, and one statement if nothing moved; to be called after a change of refs.
        """
        for _ in range(_ATTEMPTS):
            with self._db.read() as connection:
                state = connection.execute(_STATE, {"id": repo_id}).first()
            if state is None or state.tip == state.sha:
                return
            facts = None if state.tip is None else self._describe(state.type, repo_id, state.tip)
            with self._db.write() as connection:
                lock_repo(connection, repo_id)
                now = connection.execute(_STATE, {"id": repo_id}).first()
                if now is not None and now.tip == state.tip:
                    _replace(connection, repo_id, state.tip, facts)
                    return


def _replace(connection: Connection, repo_id: int, sha: str | None, facts: Facts | None) -> None:
    connection.execute(sa.delete(card_tags).where(card_tags.c.repo_id == repo_id))
    connection.execute(sa.delete(cards).where(cards.c.repo_id == repo_id))
    if sha is None or facts is None:
        return
    row = {
        "repo_id": repo_id,
        "sha": sha,
        "card": dict(facts.card),
        "config": dict(facts.config),
        "tensors": dict(facts.tensors),
        "library": facts.library,
        "task": facts.task,
        "parameters": min(facts.parameters, (1 << 63) - 1),
        "text": " ".join([facts.title, *facts.tags]).lower(),
    }
    connection.execute(sa.insert(cards).values(row))
    rows = [{"repo_id": repo_id, "tag": tag, "position": place} for place, tag in enumerate(facts.tags)]
    if rows:
        connection.execute(sa.insert(card_tags), rows)


def _conditions(query: Query) -> list[sa.ColumnElement[bool]]:
    found = [_mentions(term) for term in query.search]
    found += [_tagged(tag, query.kind) for tag in query.tags]
    if query.author:
        found.append(namespaces.c.name_fold == query.author.casefold())
    if query.task:
        found.append(cards.c.task == query.task)
    if query.gated:
        found.append(repos.c.gated.in_(query.gated))
    if query.least_parameters is not None:
        found.append(cards.c.parameters >= query.least_parameters)
    if query.most_parameters is not None:
        # Zero means that nobody could count them.
        found.append(cards.c.parameters.between(1, query.most_parameters))
    return found


def _mentions(term: str) -> sa.ColumnElement[bool]:
    word = term.lower()
    name = namespaces.c.name_fold + "/" + repos.c.name_fold
    return sa.or_(name.contains(word, autoescape=True), cards.c.text.contains(word, autoescape=True))


def _tagged(tag: str, kind: RepoType) -> sa.ColumnElement[bool]:
    spellings = [tag]
    if kind == "model" and tag.startswith(_BARE):
        spellings.append(tag.partition(":")[2])
    here = sa.and_(card_tags.c.repo_id == repos.c.id, card_tags.c.tag.in_(spellings))
    return sa.exists(sa.select(sa.literal(1)).where(here))


def _readable(actor: Actor) -> list[sa.ColumnElement[bool]]:
    if actor.superuser:
        return []
    public = repos.c.visibility == "public"
    if actor.anonymous:
        return [public]
    member = sa.exists(
        sa.select(sa.literal(1)).where(
            memberships.c.namespace_id == repos.c.namespace_id, memberships.c.user_id == actor.user_id
        )
    )
    return [sa.or_(public, repos.c.namespace_id == actor.namespace_id, member)]


def _tags(connection: Connection, ids: Sequence[int]) -> dict[int, tuple[str, ...]]:
    chosen = (
        sa.select(card_tags.c.repo_id, card_tags.c.tag)
        .where(card_tags.c.repo_id.in_(ids))
        .order_by(card_tags.c.repo_id, card_tags.c.position)
    )
    found: dict[int, tuple[str, ...]] = {}
    for row in connection.execute(chosen) if ids else ():
        found[row.repo_id] = (*found.get(row.repo_id, ()), row.tag)
    return found


def _listed(row: Row[*tuple[Any, ...]], tags: tuple[str, ...]) -> Listed:
    repo = RepoRow(*(getattr(row, name) for name in RepoRow.__slots__))
    facts = Facts(
        getattr(row, "card", None) or {}, row.config or {}, row.tensors or {}, row.library or "", row.task or "", tags
    )
    return Listed(repo, row.tip, facts)


def _closed(sort: Sort, row: Row[*tuple[Any, ...]]) -> str:
    value = {"created": row.created_at, "updated": row.updated_at, "downloads": row.downloads, "likes": row.likes}[sort]
    text = value.isoformat() if isinstance(value, datetime) else value
    return base64.urlsafe_b64encode(json.dumps([sort, text, row.id]).encode()).decode().rstrip("=")


def _opened(query: Query) -> tuple[datetime | int, int]:
    try:
        raw = base64.urlsafe_b64decode(query.cursor + "=" * (-len(query.cursor) % 4))
        sort, value, last = json.loads(raw)
        opened = _moment(value) if query.sort in ("created", "updated") else value
        fits = sort == query.sort and _counts(last) and (isinstance(opened, datetime) or _counts(opened))
    except (ValueError, TypeError, OverflowError):
        fits = False
    if not fits:
        raise BadBody("The cursor is not one of this listing; begin again without it.")
    return opened, last


def _moment(text: str) -> datetime:
    """Read a time with a zone. Raises: ValueError, OverflowError (a time before the first in UTC)."""
    found = datetime.fromisoformat(text)
    if found.tzinfo is None:
        raise ValueError("a time without a zone")
    return found.astimezone(UTC)


def _counts(value: object) -> bool:
    """True for a number that a column of counts or ids can hold."""
    return type(value) is int and 0 <= value < 1 << 63


_tip = (
    sa.select(refs.c.target)
    .where(refs.c.repo_id == repos.c.id, refs.c.name == repos.c.default_branch)
    .scalar_subquery()
    .label("tip")
)
_ROWS = (
    sa.select(
        *(namespaces.c.name.label("namespace") if name == "namespace" else repos.c[name] for name in RepoRow.__slots__),
        cards.c.config,
        cards.c.tensors,
        cards.c.library,
        cards.c.task,
        _tip,
    )
    .select_from(
        repos.join(namespaces, namespaces.c.id == repos.c.namespace_id).outerjoin(cards, cards.c.repo_id == repos.c.id)
    )
    .where(repos.c.deleted_at.is_(None))
)
_STATE = (
    sa.select(repos.c.type, cards.c.sha, _tip)
    .select_from(repos.outerjoin(cards, cards.c.repo_id == repos.c.id))
    .where(repos.c.id == sa.bindparam("id"), repos.c.deleted_at.is_(None))
)
