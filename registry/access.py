"""Who is asking, and what they may do to a repo.

Token, user, rights and repo are read in one statement on every request and never cached, so that revoking a token or
closing a repo works at once. A repo that the actor may not see looks exactly like one that does not exist.

    role on a repo = owner: admin · organisation member: their role · public: at least read
    a token narrows it: `read` tokens read; `write` tokens use every right of their user; `admin` tokens also act for
    the whole instance, if their user is an admin
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from operator import attrgetter
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from registry import tokens
from registry.db import Database, now
from registry.errors import BadToken, Gated, GatedLogin, NeedsLogin, NotAllowed, RepoAbsent
from registry.names import RepoId, RepoType
from registry.tables.identity import memberships, namespaces, users
from registry.tables.identity import tokens as token_table
from registry.tables.repos import moves, refs, repos

Act = Literal["read", "write", "admin"]

_RANK: dict[str | None, int] = {None: 0, "read": 1, "write": 2, "admin": 3}
_ROLES: tuple[Act | None, ...] = (None, "read", "write", "admin")
_USED_EVERY = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Actor:
    """Who is asking; `user_id` is None for somebody without a token."""

    user_id: int | None = None
    name: str = ""
    namespace_id: int | None = None
    token_id: int | None = None
    token_role: Act = "read"
    is_admin: bool = False

    @property
    def anonymous(self) -> bool:
        """True if no token came with the request."""
        return self.user_id is None

    @property
    def superuser(self) -> bool:
        """True if the token may act for the whole instance."""
        return self.is_admin and self.token_role == "admin"


ANONYMOUS = Actor()


@dataclass(frozen=True, slots=True)
class RepoRow:
    """A repo as the database has it; names are canonical."""

    id: int
    type: RepoType
    namespace_id: int
    namespace: str
    name: str
    visibility: str
    gated: str
    description: str
    sdk: str
    default_branch: bytes
    refs_version: int
    manifest_version: int
    git_bytes: int
    lfs_bytes: int
    downloads: int
    likes: int
    created_at: datetime
    updated_at: datetime

    @property
    def repo_id(self) -> RepoId:
        """The canonical name."""
        return RepoId(self.type, self.namespace, self.name)

    @property
    def private(self) -> bool:
        """True if only people with a right on it see it."""
        return self.visibility == "private"


@dataclass(frozen=True, slots=True)
class Visit:
    """An actor at a repo: what they may do there, and, if a ref was asked for, where it points."""

    actor: Actor
    repo: RepoRow
    role: Act | None
    tip: str | None = None
    own: bool = False
    """Whether the actor has a right of their own here, beside that of everybody to read what is public."""

    def may(self, act: Act) -> bool:
        """Tell whether the actor has this right here."""
        return _RANK[self.role] >= _RANK[act]

    def check_gate(self, site: str) -> None:
        """Let only people with a right of their own have the files of a gated repo; `site` is our origin.

        A token that narrows its user to reading does not shut their own repos to them.
        Raises: GatedLogin (no token), Gated.
        """
        if not self.repo.gated or self.own:
            return
        kind, name = self.repo.type, self.repo.repo_id
        where = f"Visit {site}/{name.web} to ask for access."
        if self.actor.anonymous:
            raise GatedLogin(f"Access to {kind} {name.full} is restricted: log in with a token. {where}")
        raise Gated(f"Access to {kind} {name.full} is restricted and you are not in the authorized list. {where}")


class Access:
    """Reads rights. `anonymous_read` off means that everybody must bring a token."""

    def __init__(self, database: Database, *, anonymous_read: bool = True, clock: Callable[[], datetime] = now) -> None:
        self._db = database
        self._anonymous_read = anonymous_read
        self._clock = clock
        self._find_actor = database.prepare(_ACTOR)
        self._find_visit = database.prepare(_VISIT)

    def actor(self, token: str | None) -> Actor:
        """Say whose token this is.

        Raises: BadToken (unknown, revoked, expired, or its user is disabled).
        """
        if token is None:
            return ANONYMOUS
        return self._actor_of(self._find_actor.first({"hash": _hash(token)}))

    def visit(self, token: str | None, repo: RepoId, act: Act = "read", *, ref: bytes | None = None) -> Visit:
        """Bring an actor to a repo, in one statement; `ref` is a full ref name whose target is read along.

        Raises: BadToken, NeedsLogin (no token, and the repo is absent, hidden or the act needs one), RepoAbsent (also
        for hidden ones), NotAllowed (visible, and the act is not permitted).
        """
        asked = _asked(token, repo, ref)
        row = self._find_visit.first(asked)
        if row is None:
            with self._db.read() as connection:
                return self.visit_in(connection, token, repo, act, ref=ref)
        return self._judged(token, row, repo, act)

    def visit_in(
        self, connection: Connection, token: str | None, repo: RepoId, act: Act = "read", *, ref: bytes | None = None
    ) -> Visit:
        """Do as `visit` does, inside a transaction that the caller holds."""
        asked = _asked(token, repo, ref)
        row: Any = connection.execute(_VISIT, asked).first()
        if row is None:
            moved = connection.execute(_MOVED, {"type": repo.type, "fold": repo.fold}).first()
            if moved is not None:
                row = connection.execute(_VISIT_BY_ID, asked | {"id": moved.repo_id}).first()
        if row is None:
            actor = ANONYMOUS
            if token is not None:
                actor = self._actor_of(connection.execute(_ACTOR, {"hash": asked["hash"]}).first())
            raise _absent(actor, repo)
        return self._judged(token, row, repo, act)

    def _judged(self, token: str | None, row: Any, asked: RepoId, act: Act) -> Visit:
        actor = ANONYMOUS if token is None else self._actor_of(row)
        found = _repo_of(row)
        role = self._role(actor, row)
        if role is None:
            raise _absent(actor, asked)
        visit = Visit(actor, found, role, row.tip, _own_rank(actor, row) > 0)
        if not visit.may(act):
            if actor.anonymous:
                raise NeedsLogin(f"Log in with a token that may {act} {found.repo_id.full}.")
            raise NotAllowed(f"{actor.name} may {role} {found.repo_id.full} with this token, not {act} it.")
        return visit

    def _role(self, actor: Actor, row: Any) -> Act | None:
        if actor.anonymous:
            return "read" if row.visibility == "public" and self._anonymous_read else None
        rank = max(_own_rank(actor, row), 1 if row.visibility == "public" else 0)
        if actor.token_role == "read":
            rank = min(rank, 1)
        return _ROLES[rank]

    def _actor_of(self, row: Any) -> Actor:
        moment = self._clock()
        if row is None or row.token_id is None or row.revoked_at is not None or row.disabled_at is not None:
            raise BadToken("Invalid credentials in Authorization header")
        if row.expires_at is not None and row.expires_at <= moment:
            raise BadToken("Invalid credentials in Authorization header")
        return Actor(row.user_id, row.user_name, row.user_namespace_id, row.token_id, row.token_role, row.is_admin)

    def may_create(self, actor: Actor, namespace: str) -> int:
        """Return the id of a namespace in which the actor may create repos.

        Raises: NeedsLogin, NotAllowed (also when there is no such namespace, so that names do not leak).
        """
        if actor.anonymous:
            raise NeedsLogin("Log in to create a repo.")
        with self._db.look() as connection:
            row = connection.execute(_NAMESPACE, {"fold": namespace.casefold(), "user": actor.user_id}).first()
        owns = row is not None and (row.id == actor.namespace_id or _RANK[row.role] >= 2 or actor.superuser)
        if row is None or not owns or actor.token_role == "read":
            raise NotAllowed(f"{actor.name} may not create repos under the namespace {namespace!r} with this token.")
        return int(row.id)

    def touch(self, actor: Actor) -> None:
        """Note that a token was used, at most once a minute."""
        if actor.token_id is None:
            return
        moment = self._clock()
        stale = sa.or_(token_table.c.last_used_at.is_(None), token_table.c.last_used_at < moment - _USED_EVERY)
        with self._db.write() as connection:
            connection.execute(
                sa.update(token_table).where(token_table.c.id == actor.token_id, stale).values(last_used_at=moment)
            )


def _asked(token: str | None, repo: RepoId, ref: bytes | None) -> dict[str, object]:
    """Give the statement its values; the columns of the row are those of `_VISIT`."""
    return {
        "hash": _hash(token) if token is not None else "",
        "type": repo.type,
        "namespace": repo.namespace.casefold(),
        "name": repo.name.casefold(),
        "ref": ref,
    }


def _own_rank(actor: Actor, row: Any) -> int:
    """Rank the right that an actor has as owner, member or admin, whatever their token makes of it."""
    if actor.anonymous:
        return 0
    owns = actor.superuser or actor.namespace_id == row.namespace_id
    return 3 if owns else _RANK[row.member_role]


def _hash(token: str) -> str:
    # A text that cannot be one of our tokens hashes to nothing stored; the shape check spares the hash, not the answer.
    return tokens.digest(token) if tokens.plausible(token) else "-"


def _absent(actor: Actor, repo: RepoId) -> NeedsLogin | RepoAbsent:
    if actor.anonymous:
        return NeedsLogin(f"Repository {repo.full} not found, or it is private: log in with a token to see it.")
    return RepoAbsent(f"Repository {repo.full} not found.")


def _repo_of(row: Any) -> RepoRow:
    return RepoRow(*_REPO_CELLS(row))


_owner = namespaces.alias("owner")
_ACTOR_COLUMNS = (
    token_table.c.id.label("token_id"),
    token_table.c.role.label("token_role"),
    token_table.c.expires_at,
    token_table.c.revoked_at,
    users.c.id.label("user_id"),
    users.c.namespace_id.label("user_namespace_id"),
    users.c.is_admin,
    users.c.disabled_at,
    _owner.c.name.label("user_name"),
)
_people = token_table.join(users, users.c.id == token_table.c.user_id).join(_owner, _owner.c.id == users.c.namespace_id)

_ACTOR = sa.select(*_ACTOR_COLUMNS).select_from(_people).where(token_table.c.hash == sa.bindparam("hash"))

_REPO_CELLS = attrgetter(*RepoRow.__slots__)
_REPO_COLUMNS = tuple(
    namespaces.c.name.label("namespace") if name == "namespace" else repos.c[name] for name in RepoRow.__slots__
)
_tip = (
    sa.select(refs.c.target)
    .where(refs.c.repo_id == repos.c.id, refs.c.name == sa.bindparam("ref"))
    .scalar_subquery()
    .label("tip")
)
_BASE = (
    sa.select(
        *_REPO_COLUMNS,
        *_ACTOR_COLUMNS,
        memberships.c.role.label("member_role"),
        _tip,
    )
    .select_from(
        repos.join(namespaces, namespaces.c.id == repos.c.namespace_id)
        .outerjoin(token_table, token_table.c.hash == sa.bindparam("hash"))
        .outerjoin(users, users.c.id == token_table.c.user_id)
        .outerjoin(_owner, _owner.c.id == users.c.namespace_id)
        .outerjoin(
            memberships,
            sa.and_(memberships.c.namespace_id == repos.c.namespace_id, memberships.c.user_id == users.c.id),
        )
    )
    .where(repos.c.deleted_at.is_(None))
)
_VISIT = _BASE.where(
    repos.c.type == sa.bindparam("type"),
    namespaces.c.name_fold == sa.bindparam("namespace"),
    repos.c.name_fold == sa.bindparam("name"),
)
_VISIT_BY_ID = _BASE.where(repos.c.id == sa.bindparam("id"))
_MOVED = sa.select(moves.c.repo_id).where(
    moves.c.type == sa.bindparam("type"), moves.c.old_fold == sa.bindparam("fold")
)
_NAMESPACE = (
    sa.select(namespaces.c.id, memberships.c.role)
    .select_from(
        namespaces.outerjoin(
            memberships,
            sa.and_(memberships.c.namespace_id == namespaces.c.id, memberships.c.user_id == sa.bindparam("user")),
        )
    )
    .where(namespaces.c.name_fold == sa.bindparam("fold"))
)
