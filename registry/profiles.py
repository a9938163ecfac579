"""What an account says of itself: names, address, organisations, and the token in use."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from registry.access import Act, Actor
from registry.db import Database
from registry.errors import NeedsLogin
from registry.tables.identity import memberships, namespaces, tokens, users


@dataclass(frozen=True, slots=True)
class OrgRole:
    """An organisation, and what the account is there."""

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
