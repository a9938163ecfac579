"""Circles: with whom a repo shares its chunks, as its row says it now, and the domain that stands for a circle.

XET_DOMAIN   namespace   n<namespace>    its public repos in one circle, its private and gated ones in another
             repo        r<repo>
             instance    i               public and private are two circles here, too
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from registry.links import insert_unless_there
from registry.tables.repos import repos
from registry.tables.xet import xet_domains, xet_links

Sharing = Literal["namespace", "repo", "instance"]
Kind = Literal["public", "private"]


@dataclass(frozen=True, slots=True)
class Circle:
    """Whose chunks are shared, as `xet_domains` names it, and whether everybody may read what they make."""

    owner: str
    kind: Kind


def circle_of(sharing: Sharing, repo: Any) -> Circle:
    """Say in which circle a row of `repos` is; what not everybody may read is in no public one."""
    kind: Kind = "public" if repo.visibility == "public" and not repo.gated else "private"
    match sharing:
        case "namespace":
            return Circle(f"n{repo.namespace_id}", kind)
        case "repo":
            return Circle(f"r{repo.id}", kind)
        case "instance":
            return Circle("i", kind)


def is_in(circle: Circle) -> sa.ColumnElement[bool]:
    """Say of a row of `xet_links` that its repo is in a circle, and not deleted.

    A question of its own for each row: joined, SQLite goes through all repos of the circle for every one.
    """
    open_to_all = sa.and_(repos.c.visibility == "public", repos.c.gated == "")
    kind = open_to_all if circle.kind == "public" else sa.not_(open_to_all)
    here = (repos.c.id == xet_links.c.repo_id, repos.c.deleted_at.is_(None), kind, *_owned(circle.owner))
    return sa.exists(sa.select(repos.c.id).where(*here).correlate(xet_links))


def _owned(owner: str) -> list[sa.ColumnElement[bool]]:
    number = owner[1:]
    match owner[0]:
        case "n":
            return [repos.c.namespace_id == int(number)]
        case "r":
            return [repos.c.id == int(number)]
    return []


def make_domain(connection: Connection, circle: Circle) -> None:
    """Make the domain of a circle unless there is one, also when several do at once."""
    made = {"id": secrets.token_hex(16), "owner": circle.owner, "kind": circle.kind, "generation": 0}
    insert_unless_there(connection, xet_domains, [made])


def find_domain(connection: Connection, circle: Circle) -> str | None:
    """Return the domain of a circle; None if nobody has asked for it yet."""
    here = sa.and_(xet_domains.c.owner == circle.owner, xet_domains.c.kind == circle.kind)
    found: str | None = connection.execute(sa.select(xet_domains.c.id).where(here)).scalar()
    return found
