"""What an account says of itself: names, address, organisations, and the token in use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from registry.access import Act, Actor
from registry.accounts import AccountAbsent
from registry.db import Database
from registry.errors import NeedsLogin
from registry.tables.identity import memberships, namespaces, tokens, users
from registry.tables.repos import repos


@dataclass(frozen=True, slots=True)
class OrgRole:
    """One end of a membership: an organisation, or a member of one, and the role between the two."""

    id: int
    name: str
    fullname: str
    role: Act


@dataclass(frozen=True, slots=True)
class Profile:
    """An account as its owner sees it."""

    id: int
    name: str
    fullname: str
    email: str | None
    token_label: str
    token_role: Act
    orgs: tuple[OrgRole, ...]


@dataclass(frozen=True, slots=True)
class Overview:
    """An account or organisation as others see it; only public repos are counted."""

    name: str
    fullname: str
    repos: Mapping[str, int]
    """Number of repos by type."""
    people: tuple[OrgRole, ...]
    """Organisations of a user, or members of an organisation, and the role between the two."""


class Profiles:
    """Reads profiles. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def me(self, actor: Actor) -> Profile:
        """Describe the sender of a request.

        Raises: NeedsLogin (nobody in particular, or an account that is gone).
        """
        with self._db.read() as connection:
            row = connection.execute(_ME, {"user": actor.user_id, "token": actor.token_id}).first()
            orgs = [OrgRole(*org) for org in connection.execute(_ORGS, {"user": actor.user_id})]
        if row is None:
            raise NeedsLogin("Log in with a token.")
        return Profile(row.id, row.name, row.fullname, row.email, row.label or "", actor.token_role, tuple(orgs))

    def user(self, name: str) -> Overview:
        """Describe a user and the organisations they belong to.

        Raises: AccountAbsent.
        """
        return self._overview(name, "user", _ORGS_OF)

    def org(self, name: str) -> Overview:
        """Describe an organisation and its members.

        Raises: AccountAbsent.
        """
        return self._overview(name, "org", _MEMBERS_OF)

    def _overview(self, name: str, kind: str, people: sa.Select[*tuple[Any, ...]]) -> Overview:
        with self._db.read() as connection:
            row = connection.execute(_NAMED, {"fold": name.casefold(), "kind": kind}).first()
            if row is None:
                raise AccountAbsent(f"There is no {'user' if kind == 'user' else 'organisation'} {name!r}.")
            counted = {one.type: int(one.number) for one in connection.execute(_COUNTS, {"namespace": row.id})}
            found = tuple(OrgRole(*one) for one in connection.execute(people, {"namespace": row.id}))
        return Overview(row.name, row.fullname, counted, found)


_ME = (
    sa.select(users.c.id, namespaces.c.name, namespaces.c.fullname, users.c.email, tokens.c.label)
    .select_from(
        users.join(namespaces, namespaces.c.id == users.c.namespace_id).outerjoin(
            tokens, tokens.c.id == sa.bindparam("token")
        )
    )
    .where(users.c.id == sa.bindparam("user"))
)
_ORGS = (
    sa.select(namespaces.c.id, namespaces.c.name, namespaces.c.fullname, memberships.c.role)
    .select_from(memberships.join(namespaces, namespaces.c.id == memberships.c.namespace_id))
    .where(memberships.c.user_id == sa.bindparam("user"))
    .order_by(namespaces.c.name_fold)
)
_NAMED = sa.select(namespaces.c.id, namespaces.c.name, namespaces.c.fullname).where(
    namespaces.c.name_fold == sa.bindparam("fold"), namespaces.c.kind == sa.bindparam("kind")
)
_COUNTS = (
    sa.select(repos.c.type, sa.func.count().label("number"))
    .where(
        repos.c.namespace_id == sa.bindparam("namespace"),
        repos.c.visibility == "public",
        repos.c.deleted_at.is_(None),
    )
    .group_by(repos.c.type)
)
_ORGS_OF = (
    sa.select(namespaces.c.id, namespaces.c.name, namespaces.c.fullname, memberships.c.role)
    .select_from(
        users.join(memberships, memberships.c.user_id == users.c.id).join(
            namespaces, namespaces.c.id == memberships.c.namespace_id
        )
    )
    .where(users.c.namespace_id == sa.bindparam("namespace"))
    .order_by(namespaces.c.name_fold)
)
_MEMBERS_OF = (
    sa.select(users.c.id, namespaces.c.name, namespaces.c.fullname, memberships.c.role)
    .select_from(
        memberships.join(users, users.c.id == memberships.c.user_id).join(
            namespaces, namespaces.c.id == users.c.namespace_id
        )
    )
    .where(memberships.c.namespace_id == sa.bindparam("namespace"))
    .order_by(namespaces.c.name_fold)
)
