"""Rows that many tests need: users, organisations, tokens and repos, made without the doors."""

from __future__ import annotations

from datetime import UTC, datetime

import sqlalchemy as sa

from registry import tokens
from registry.db import Database
from registry.tables.identity import memberships, namespaces, users
from registry.tables.identity import tokens as token_table
from registry.tables.repos import repos

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def add_namespace(database: Database, name: str, kind: str = "user") -> int:
    """Insert a namespace; return its id."""
    with database.write() as connection:
        row = {"name": name, "name_fold": name.casefold(), "kind": kind, "created_at": START}
        return int(connection.execute(sa.insert(namespaces).values(row)).inserted_primary_key[0])


def add_user(database: Database, name: str, *, is_admin: bool = False) -> int:
    """Insert a user with a namespace of the same name; return the user's id."""
    namespace_id = add_namespace(database, name)
    with database.write() as connection:
        row = {"namespace_id": namespace_id, "is_admin": is_admin, "created_at": START}
        return int(connection.execute(sa.insert(users).values(row)).inserted_primary_key[0])


def add_token(database: Database, user_id: int, role: str = "write", *, expires_at: datetime | None = None) -> str:
    """Insert a token; return it in the clear."""
    token = tokens.mint()
    with database.write() as connection:
        row = {"user_id": user_id, "hash": tokens.digest(token), "role": role, "created_at": START}
        connection.execute(sa.insert(token_table).values(row | {"expires_at": expires_at}))
    return token


def add_member(database: Database, namespace_id: int, user_id: int, role: str) -> None:
    """Insert a membership."""
    with database.write() as connection:
        row = {"namespace_id": namespace_id, "user_id": user_id, "role": role}
        connection.execute(sa.insert(memberships).values(row))


def add_repo(database: Database, namespace: str, name: str, *, visibility: str = "public", kind: str = "model") -> int:
    """Insert an empty repo; return its id."""
    with database.write() as connection:
        found = sa.select(namespaces.c.id).where(namespaces.c.name_fold == namespace.casefold())
        row = {
            "type": kind,
            "namespace_id": connection.execute(found).scalar_one(),
            "name": name,
            "name_fold": name.casefold(),
            "visibility": visibility,
            "created_at": START,
            "updated_at": START,
        }
        return int(connection.execute(sa.insert(repos).values(row)).inserted_primary_key[0])
