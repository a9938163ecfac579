"""Users, organisations, their members, and tokens: made and changed, one transaction and one event row each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError

from registry import passwords, tokens
from registry.access import Act
from registry.db import Database, now
from registry.errors import BadBody, Exists, NotAllowed, RepoAbsent
from registry.names import check_namespace
from registry.tables.identity import memberships, namespaces, users
from registry.tables.identity import tokens as token_table
from registry.tables.work import events

ROLES: tuple[Act, ...] = ("read", "write", "admin")
FIRST_ADMIN = "admin"


class AccountAbsent(RepoAbsent):
    """There is no user, organisation or token of this name."""

    code = "account_absent"


@dataclass(frozen=True, slots=True)
class User:
    """An account that a person or a program uses."""

    id: int
    namespace_id: int
    name: str
    fullname: str
    is_admin: bool
    disabled: bool
    has_password: bool


@dataclass(frozen=True, slots=True)
class TokenRow:
    """A token as it is known afterwards: everything but the token."""

    id: int
    label: str
    role: Act
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None


@dataclass(frozen=True, slots=True)
class Membership:
    """An organisation that a user belongs to, and as what."""

    org: str
    fullname: str
    role: Act


class Accounts:
    """Changes account rows. Thread-safe; everything is durable at return."""

    def __init__(self, database: Database, *, clock: Callable[[], datetime] = now) -> None:
        self._db = database
        self._clock = clock

    def create_user(
        self, name: str, *, fullname: str = "", admin: bool = False, password: str | None = None, by: int | None = None
    ) -> User:
        """Make a user; without a password they use tokens only. `by` is the id of the user who does it.

        Raises: BadName, BadBody (the password), Exists.
        """
        hashed = None if password is None else passwords.hash_password(password)
        with self._db.write() as connection:
            user_id = self._insert_user(connection, name, fullname, admin, hashed)
            self._note(connection, by, "user.create", name)
            return _user(connection, users.c.id == user_id)

    def create_org(self, name: str, owner: str, *, fullname: str = "", by: int | None = None) -> int:
        """Make an organisation with one admin, its owner; return its namespace id.

        Raises: BadName, Exists, AccountAbsent (the owner).
        """
        with self._db.write() as connection:
            person = _user(connection, _named(owner), owner)
            org = self._insert_namespace(connection, name, "org", fullname)
            connection.execute(sa.insert(memberships).values(namespace_id=org, user_id=person.id, role="admin"))
            self._note(connection, by, "org.create", name)
            return org

    def set_member(self, org: str, user: str, role: Act, *, by: int | None = None) -> None:
        """Make a user a member of an organisation, or change their role there.

        Raises: AccountAbsent, BadBody (the role), NotAllowed (the last admin would lose the role).
        """
        check_role(role)
        with self._db.write() as connection:
            org_id = _org(connection, org)
            person = _user(connection, _named(user), user)
            here = sa.and_(memberships.c.namespace_id == org_id, memberships.c.user_id == person.id)
            if connection.execute(sa.update(memberships).where(here).values(role=role)).rowcount == 0:
                connection.execute(sa.insert(memberships).values(namespace_id=org_id, user_id=person.id, role=role))
            _check_owned(connection, org_id, org)
            self._note(connection, by, "org.member", f"{org}/{user}: {role}")

    def remove_member(self, org: str, user: str, *, by: int | None = None) -> None:
        """End a membership; one that is not there is ended already.

        Raises: AccountAbsent, NotAllowed (the last admin).
        """
        with self._db.write() as connection:
            org_id = _org(connection, org)
            person = _user(connection, _named(user), user)
            here = sa.and_(memberships.c.namespace_id == org_id, memberships.c.user_id == person.id)
            connection.execute(sa.delete(memberships).where(here))
            _check_owned(connection, org_id, org)
            self._note(connection, by, "org.member", f"{org}/{user}: none")

    def create_token(
        self,
        user: str,
        role: Act = "write",
        *,
        label: str = "",
        expires_at: datetime | None = None,
        by: int | None = None,
    ) -> str:
        """Make a token and return it: the only time that it is seen.

        Raises: AccountAbsent, BadBody (the role, or a label of over 100 characters), NotAllowed (an `admin` token for
        somebody who is no admin).
        """
        check_role(role)
        if len(label) > 100:
            raise BadBody("A token's label has at most 100 characters.")
        with self._db.write() as connection:
            person = _user(connection, _named(user), user)
            if role == "admin" and not person.is_admin:
                raise NotAllowed(f"{person.name} is no admin of this server; make them a `write` token.")
            return self._insert_token(connection, person, role, label, expires_at, by)

    def tokens(self, user: str) -> list[TokenRow]:
        """List a user's tokens that still work, oldest first.

        Raises: AccountAbsent.
        """
        with self._db.read() as connection:
            person = _user(connection, _named(user), user)
            chosen = sa.select(*(token_table.c[name] for name in TokenRow.__slots__)).where(
                token_table.c.user_id == person.id,
                token_table.c.revoked_at.is_(None),
                sa.or_(token_table.c.expires_at.is_(None), token_table.c.expires_at > self._clock()),
            )
            return [TokenRow(*row) for row in connection.execute(chosen.order_by(token_table.c.id))]

    def revoke_token(self, user: str, token_id: int, *, by: int | None = None) -> None:
        """End a token; every request that begins after the return is refused it.

        Raises: AccountAbsent (no such token of this user, or it is revoked already).
        """
        with self._db.write() as connection:
            person = _user(connection, _named(user), user)
            here = sa.and_(token_table.c.id == token_id, token_table.c.user_id == person.id)
            ended = sa.update(token_table).where(here, token_table.c.revoked_at.is_(None))
            if connection.execute(ended.values(revoked_at=self._clock())).rowcount == 0:
                raise AccountAbsent(f"{person.name} has no token {token_id}.")
            self._note(connection, by, "token.revoke", f"{person.name}: {token_id}")

    def set_password(self, user: str, password: str, *, by: int | None = None) -> None:
        """Give a user a password, or another one.

        Raises: AccountAbsent, BadBody.
        """
        hashed = passwords.hash_password(password)
        with self._db.write() as connection:
            person = _user(connection, _named(user), user)
            connection.execute(sa.update(users).where(users.c.id == person.id).values(password_hash=hashed))
            self._note(connection, by, "user.password", person.name)

    def knows(self, user: str, password: str) -> bool:
        """Tell whether a user has this password; always False for the absent, the disabled and token-only users."""
        chosen = (
            sa.select(users.c.password_hash).select_from(_PEOPLE).where(_named(user), users.c.disabled_at.is_(None))
        )
        with self._db.read() as connection:
            hashed = connection.execute(chosen).scalar()
        return hashed is not None and passwords.fits(password, hashed)

    def memberships(self, user_id: int) -> list[Membership]:
        """List the organisations of a user, by name."""
        chosen = (
            sa.select(namespaces.c.name, namespaces.c.fullname, memberships.c.role)
            .select_from(memberships.join(namespaces, namespaces.c.id == memberships.c.namespace_id))
            .where(memberships.c.user_id == user_id)
            .order_by(namespaces.c.name_fold)
        )
        with self._db.read() as connection:
            return [Membership(*row) for row in connection.execute(chosen)]

    def first_admin(self) -> str | None:
        """On a server without users make an admin and return their token; None if there is a user already."""
        try:
            with self._db.write() as connection:
                if connection.execute(sa.select(users.c.id).limit(1)).first() is not None:
                    return None
                self._insert_user(connection, FIRST_ADMIN, "", True, None)
                self._note(connection, None, "user.create", FIRST_ADMIN)
                person = _user(connection, _named(FIRST_ADMIN))
                return self._insert_token(connection, person, "admin", "made at the first start", None, None)
        except Exists:
            # Another process started at the same moment and prints the token.
            return None

    def _insert_user(self, connection: Connection, name: str, fullname: str, admin: bool, hashed: str | None) -> int:
        space = self._insert_namespace(connection, name, "user", fullname)
        values = {"namespace_id": space, "is_admin": admin, "password_hash": hashed, "created_at": self._clock()}
        return int(connection.execute(sa.insert(users).values(values).returning(users.c.id)).scalar_one())

    def _insert_namespace(self, connection: Connection, name: str, kind: str, fullname: str) -> int:
        check_namespace(name)
        values = {"name": name, "name_fold": name.casefold(), "kind": kind, "fullname": fullname[:200]}
        try:
            made = sa.insert(namespaces).values(values | {"created_at": self._clock()}).returning(namespaces.c.id)
            return int(connection.execute(made).scalar_one())
        except IntegrityError as error:
            raise Exists(f"The name {name!r} is taken; choose another.", path=name) from error

    def _insert_token(
        self, connection: Connection, person: User, role: Act, label: str, expires_at: datetime | None, by: int | None
    ) -> str:
        token = tokens.mint()
        values = {"user_id": person.id, "hash": tokens.digest(token), "label": label, "role": role}
        values |= {"created_at": self._clock(), "expires_at": expires_at}
        connection.execute(sa.insert(token_table).values(values))
        self._note(connection, by, "token.create", f"{person.name}: {role}")
        return token

    def _note(self, connection: Connection, by: int | None, act: str, subject: str) -> None:
        connection.execute(sa.insert(events).values(at=self._clock(), actor_id=by, act=act, subject=subject))


def check_role(role: str) -> None:
    """Check that a word is a role. Raises: BadBody."""
    if role not in ROLES:
        raise BadBody(f"The role {role!r} is none of {', '.join(ROLES)}.")


_PEOPLE = users.join(namespaces, namespaces.c.id == users.c.namespace_id)


def _named(name: str) -> sa.ColumnElement[bool]:
    return namespaces.c.name_fold == name.casefold()


def _user(connection: Connection, where: sa.ColumnElement[bool], name: str = "") -> User:
    chosen = sa.select(
        users.c.id,
        users.c.namespace_id,
        namespaces.c.name,
        namespaces.c.fullname,
        users.c.is_admin,
        users.c.disabled_at.is_not(None),
        users.c.password_hash.is_not(None),
    ).select_from(_PEOPLE)
    row = connection.execute(chosen.where(where)).first()
    if row is None:
        raise AccountAbsent(f"There is no user {name!r}; make one with `weightroom user create {name}`.")
    return User(*row)


def _org(connection: Connection, name: str) -> int:
    found = sa.select(namespaces.c.id).where(_named(name), namespaces.c.kind == "org")
    if connection.dialect.name != "sqlite":
        # Two admins who demote each other at the same moment must not both find the other still there.
        found = found.with_for_update()
    org = connection.execute(found).scalar()
    if org is None:
        raise AccountAbsent(f"There is no organisation {name!r}; make one with `weightroom org create {name}`.")
    return int(org)


def _check_owned(connection: Connection, org_id: int, name: str) -> None:
    admins = sa.select(memberships.c.user_id).where(memberships.c.namespace_id == org_id, memberships.c.role == "admin")
    if connection.execute(admins.limit(1)).first() is None:
        raise NotAllowed(f"{name} would be left without an admin; make somebody else one first.")
