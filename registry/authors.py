"""Who an actor is in git history."""

from __future__ import annotations

import sqlalchemy as sa

from registry.access import Actor
from registry.db import Database
from registry.git.write import Person
from registry.tables.identity import users

# Not a real domain: an address that nobody can receive mail at, and that still tells users apart.
_NOWHERE = "users.noreply.weightroom"


class Authors:
    """Reads name and address of actors."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def person(self, actor: Actor) -> Person:
        """Sign with the actor's name and, if they gave one, their address."""
        email = None
        if actor.user_id is not None:
            with self._db.read() as connection:
                email = connection.execute(sa.select(users.c.email).where(users.c.id == actor.user_id)).scalar()
        name = actor.name or "anonymous"
        return Person(name, email or f"{name}@{_NOWHERE}")
