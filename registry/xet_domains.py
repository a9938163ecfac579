"""Xet domains: who may still come into the circle of a repo, as it was when leave was given, the keys of its answers.

The domain of a repo follows from its row at each request: a token that names another one, because the repo was moved
or closed since, is refused, and its client asks for a new one.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from lfs.xet.index import Leave
from registry.access import RepoRow
from registry.db import Database, now
from registry.errors import BadToken, ObjectAbsent, RepoAbsent
from registry.links import insert_unless_there
from registry.tables.identity import memberships, tokens, users
from registry.tables.repos import repos
from registry.tables.xet import xet_domains, xet_keys
from registry.xet_circles import Circle, Sharing, circle_of, make_domain

WEEK = 7 * 24 * 3600
"""Seconds for which dedup answers are hidden under one key; weeks are counted from 1970."""

# Who remembers what has gone is stuck until the next one; a writer who lies about it makes others forget.
_AT_MOST_EVERY = timedelta(minutes=10)
_FOUND = sa.select(xet_domains.c.id, xet_domains.c.generation).where(
    xet_domains.c.owner == sa.bindparam("owner"), xet_domains.c.kind == sa.bindparam("kind")
)
_HOME = sa.select(repos.c.id, repos.c.namespace_id, repos.c.visibility, repos.c.gated).where(
    repos.c.id == sa.bindparam("repo"), repos.c.deleted_at.is_(None)
)
_ENTRY = (
    sa.select(
        repos.c.id,
        repos.c.namespace_id,
        repos.c.visibility,
        repos.c.gated,
        users.c.id.label("user_id"),
        users.c.namespace_id.label("home"),
        users.c.is_admin,
        users.c.disabled_at,
        tokens.c.id.label("token_id"),
        tokens.c.role.label("token_role"),
        tokens.c.expires_at,
        tokens.c.revoked_at,
        memberships.c.role,
        xet_domains.c.owner,
        xet_domains.c.kind,
        xet_domains.c.generation,
    )
    .select_from(
        repos.outerjoin(users, users.c.id == sa.bindparam("actor"))
        .outerjoin(tokens, sa.and_(tokens.c.id == sa.bindparam("token"), tokens.c.user_id == users.c.id))
        .outerjoin(
            memberships,
            sa.and_(memberships.c.namespace_id == repos.c.namespace_id, memberships.c.user_id == users.c.id),
        )
        .outerjoin(xet_domains, xet_domains.c.id == sa.bindparam("domain"))
    )
    .where(repos.c.id == sa.bindparam("repo"), repos.c.deleted_at.is_(None))
)
_KEY = sa.select(xet_keys.c.key).where(
    xet_keys.c.domain_id == sa.bindparam("domain"), xet_keys.c.week == sa.bindparam("week")
)


@dataclass(frozen=True, slots=True)
class Domain:
    """A circle within which content is deduplicated: 32 hex digits, and how often its clients were told to forget."""

    id: str
    generation: int


class XetDomains:
    """Finds and makes domains. Thread-safe, among processes too."""

    def __init__(self, database: Database, sharing: Sharing, *, clock: Callable[[], datetime] = now) -> None:
        self._db = database
        self._sharing = sharing
        self._clock = clock
        self._found = database.prepare(_FOUND)
        self._home = database.prepare(_HOME)
        self._entry = database.prepare(_ENTRY)
        self._key = database.prepare(_KEY)

    def domain_of(self, repo: RepoRow) -> Domain:
        """Return the domain of a repo, made when it is first asked for."""
        return self._domain(circle_of(self._sharing, repo))

    def domain_for(self, repo_id: int) -> Domain:
        """Do the same by the number of a repo. Raises: RepoAbsent."""
        row = self._home.first({"repo": repo_id})
        if row is None:
            raise RepoAbsent("The repository is gone.")
        return self._domain(circle_of(self._sharing, row))

    def _domain(self, circle: Circle) -> Domain:
        asked = {"owner": circle.owner, "kind": circle.kind}
        row = self._found.first(asked)
        if row is None:
            # Of several who make it at once, one does; all look again.
            with self._db.write() as connection:
                make_domain(connection, circle)
            row = self._found.first(asked)
        assert row is not None
        return Domain(row.id, row.generation)

    def enter(self, leave: Leave, generation: int) -> None:
        """Look whether leave still holds, in one statement.

        Raises: BadToken (its actor is disabled or lost the right, the token of the Hub that it was given for was
        revoked or has expired, or this is not the repo's domain any more), RepoAbsent, ObjectAbsent (the domain has no
        such generation yet).
        """
        values = {"actor": leave.actor_id, "token": leave.token_id, "domain": leave.domain, "repo": leave.repo_id}
        row = self._entry.first(values)
        if row is None:
            raise RepoAbsent("The repository is gone.")
        permitted = _permits(leave, row, self._clock())
        if Circle(row.owner, row.kind) != circle_of(self._sharing, row) or not permitted:
            raise BadToken("This Xet token holds no more; ask for a new one.")
        if generation > row.generation:
            raise ObjectAbsent("There is no such generation; ask for a new Xet token.")

    def renew(self, domain: str, *, every: timedelta = _AT_MOST_EVERY) -> bool:
        """Begin a new generation, unless the last one began less than `every` ago: its clients forget what they know.

        Those of the generation before go on, and may meet xorbs that are gone.
        """
        moment = self._clock()
        old = sa.or_(xet_domains.c.renewed_at.is_(None), xet_domains.c.renewed_at <= moment - every)
        renewed = sa.update(xet_domains).where(xet_domains.c.id == domain, old)
        with self._db.write() as connection:
            changed = renewed.values(generation=xet_domains.c.generation + 1, renewed_at=moment)
            return connection.execute(changed).rowcount == 1

    def answer_key(self, domain: str, week: int) -> tuple[bytes, int]:
        """Return the key of a week, the same for all who ask, and when it ends, in Unix seconds."""
        asked: dict[str, object] = {"domain": domain, "week": week}
        row = self._key.first(asked)
        if row is None:
            with self._db.write() as connection:
                # Never zero: that would mean that nothing is hidden.
                made = {"domain_id": domain, "week": week, "key": secrets.token_bytes(31) + b"\x01"}
                insert_unless_there(connection, xet_keys, [made])
            row = self._key.first(asked)
        assert row is not None
        return bytes(row.key), (week + 1) * WEEK


def _permits(leave: Leave, row: Any, moment: datetime) -> bool:
    """Judge by what stands in the rows now, as `registry/access` did when the token was given."""
    if leave.actor_id and (row.user_id is None or row.disabled_at is not None):
        return False
    if leave.token_id and not _works(row, moment):
        return False
    # What was given without a token of the Hub is narrowed by none.
    narrow = row.token_role if leave.token_id else "admin"
    owns = bool(leave.actor_id) and (row.home == row.namespace_id or (row.is_admin and narrow == "admin"))
    if leave.scope == "write":
        return narrow != "read" and (owns or row.role in ("write", "admin"))
    return owns or row.role is not None or row.kind == "public"


def _works(row: Any, moment: datetime) -> bool:
    """True if the token of the Hub is one of this user's, not revoked, in time."""
    if row.token_id is None or row.revoked_at is not None:
        return False
    return row.expires_at is None or row.expires_at > moment
