"""Repos made, removed, moved and set up. One transaction each, its event row included, and where its chunks are found.

Deleting only marks the row: the name is free at once, the bytes wait for collection. A moved repo answers to its old
name until somebody takes that name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError

from registry.access import Access, Actor, RepoRow
from registry.db import Database, lock_repo, now
from registry.errors import BadBody, Exists, RepoAbsent
from registry.locks import forget
from registry.names import RepoId, RepoType, repo_id
from registry.publish import Origin
from registry.quota import Quotas
from registry.starting import FIRST_COMMIT, first_files
from registry.tables.identity import namespaces
from registry.tables.repos import moves, repos
from registry.tables.work import events
from registry.uploads import give_up
from registry.xet_ahead import Ahead
from registry.xet_following import Following

SDKS = ("gradio", "docker", "static", "streamlit")
LONGEST_DESCRIPTION = 10_000

Start = Callable[[int, Origin, Mapping[str, bytes], str], object]
"""Makes the first commit of a repo, of these files and with this title."""


@dataclass(frozen=True, slots=True)
class NewRepo:
    """A repo to be made; without a namespace it is the actor's own."""

    type: RepoType
    name: str
    namespace: str | None = None
    private: bool = False
    sdk: str = ""
    files: Mapping[str, bytes] = field(default_factory=dict)
    """What the first commit holds beside the default `.gitattributes`, or in its place."""


@dataclass(frozen=True, slots=True)
class Changes:
    """Settings to change; None leaves one as it is. `gated` is "", "auto" or "manual"."""

    private: bool | None = None
    gated: str | None = None
    description: str | None = None
    options: Mapping[str, bool] = field(default_factory=dict)

    def values(self) -> dict[str, object]:
        """Give what changes, by name."""
        asked = {"private": self.private, "gated": self.gated, "description": self.description, **self.options}
        return {name: value for name, value in asked.items() if value is not None}


class Repos:
    """Changes repo rows. Thread-safe."""

    def __init__(
        self,
        database: Database,
        access: Access,
        quotas: Quotas,
        *,
        start: Start,
        following: Following,
        clock: Callable[[], datetime] = now,
    ) -> None:
        self._db = database
        self._access = access
        self._quotas = quotas
        self._start = start
        self._following = following
        self._clock = clock

    def create(self, actor: Actor, wanted: NewRepo, *, request_id: str = "") -> tuple[int, RepoId]:
        """Make a repo and its first commit; durable at return. Give its row id and canonical name.

        Should the process die between the two, the repo stands empty: the first commit of anybody starts it.
        Raises: BadName, BadBody, NeedsLogin, NotAllowed, Exists, and what the gate refuses.
        """
        name = repo_id(wanted.type, wanted.namespace or actor.name, wanted.name)
        if wanted.type == "space" and wanted.sdk not in SDKS:
            raise BadBody(f"A space needs an sdk: one of {', '.join(SDKS)}.")
        namespace_id = self._access.may_create(actor, name.namespace)
        try:
            with self._db.write() as connection:
                row_id, made = self._insert(connection, actor, wanted, name, namespace_id)
        except IntegrityError as error:
            raise _made_already(name) from error
        try:
            files = {**first_files(wanted.type), **wanted.files}
            self._start(row_id, Origin(actor, "api", request_id=request_id), files, FIRST_COMMIT)
        except BaseException:
            # A repo that cannot take its first commit was never made.
            with self._db.write() as connection:
                connection.execute(sa.update(repos).where(repos.c.id == row_id).values(deleted_at=self._clock()))
            raise
        return row_id, made

    def delete(self, actor: Actor, repo: RepoRow) -> None:
        """Remove a repo: it is gone for everybody at return, and its name is free.

        Raises: RepoAbsent (somebody was faster).
        """
        with self._db.write() as connection:
            lock_repo(connection, repo.id)
            self._update(connection, repo, {"deleted_at": self._clock()})
            connection.execute(sa.delete(moves).where(moves.c.repo_id == repo.id))
            forget(connection, repo.id)
            give_up(connection, repo.id, "Its repository was deleted.")
            self._note(connection, actor, "repo.delete", repo.id, repo.repo_id)

    def move(self, actor: Actor, repo: RepoRow, target: RepoId) -> RepoId:
        """Give a repo another name, maybe in another namespace; the old one stays an alias. Return the canonical name.

        Raises: BadName, NotAllowed (the namespace), Exists, BadBody (another type), RepoAbsent, QuotaExceeded (what it
        holds does not fit into the quota of the namespace).
        """
        if target.type != repo.type:
            raise BadBody(f"A {repo.type} cannot become a {target.type}.")
        name = repo_id(target.type, target.namespace, target.name)
        namespace_id = self._access.may_create(actor, name.namespace)
        ahead = self._following.ahead(repo.id, {"namespace_id": namespace_id})
        try:
            with self._db.write() as connection:
                return self._move(connection, actor, repo, name, namespace_id, ahead)
        except IntegrityError as error:
            raise _name_taken(name) from error

    def change(self, actor: Actor, repo: RepoRow, changes: Changes) -> dict[str, object]:
        """Change settings; return those that were asked for.

        Raises: BadBody, RepoAbsent.
        """
        if changes.gated not in (None, "", "auto", "manual"):
            raise BadBody('gated must be "auto", "manual" or false.')
        if changes.description is not None and len(changes.description) > LONGEST_DESCRIPTION:
            raise BadBody(f"A description is limited to {LONGEST_DESCRIPTION} characters.")
        if "\0" in (changes.description or ""):
            raise BadBody("A description may not hold a NUL character.")
        asked, ahead = changes.values(), self._following.ahead(repo.id, _home(changes))
        with self._db.write() as connection:
            lock_repo(connection, repo.id)
            circle = self._following.circle(connection, repo.id)
            self._update(connection, repo, _columns(connection, repo.id, changes))
            self._following.follow(connection, repo.id, circle, ahead)
            self._note(connection, actor, "repo.settings", repo.id, repo.repo_id, asked)
        return asked

    def _insert(
        self, connection: Connection, actor: Actor, wanted: NewRepo, name: RepoId, namespace_id: int
    ) -> tuple[int, RepoId]:
        made = _canonical(connection, name, namespace_id)
        if (holder := _holder(connection, made, namespace_id)) is not None:
            raise _made_already(RepoId(made.type, made.namespace, holder[1]))
        _drop_alias(connection, made)
        moment = self._clock()
        values = {
            "type": made.type,
            "namespace_id": namespace_id,
            "name": made.name,
            "name_fold": made.name.casefold(),
            "visibility": "private" if wanted.private else "public",
            "sdk": wanted.sdk if made.type == "space" else "",
            "created_at": moment,
            "updated_at": moment,
        }
        row_id = int(connection.execute(sa.insert(repos).values(values).returning(repos.c.id)).scalar_one())
        self._note(connection, actor, "repo.create", row_id, made, {"private": wanted.private})
        return row_id, made

    def _move(
        self, connection: Connection, actor: Actor, repo: RepoRow, name: RepoId, namespace_id: int, ahead: Ahead
    ) -> RepoId:
        lock_repo(connection, repo.id)
        to = _canonical(connection, name, namespace_id)
        holder = _holder(connection, to, namespace_id)
        if holder is not None and holder[0] != repo.id:
            raise _name_taken(to)
        if namespace_id != repo.namespace_id:
            self._quotas.receive(connection, repo.id, namespace_id)
        old, circle = repo.repo_id, self._following.circle(connection, repo.id)
        _drop_alias(connection, to)
        values = {"namespace_id": namespace_id, "name": to.name, "name_fold": to.name.casefold()}
        self._update(connection, repo, values)
        self._following.follow(connection, repo.id, circle, ahead)
        if old.fold != to.fold:
            _drop_alias(connection, old)
            connection.execute(sa.insert(moves).values(type=old.type, old_fold=old.fold, repo_id=repo.id))
        self._note(connection, actor, "repo.move", repo.id, old, {"to": to.full})
        return to

    def _update(self, connection: Connection, repo: RepoRow, values: Mapping[str, object]) -> None:
        """Change the row, if it is still the repo that the caller was brought to."""
        here = sa.and_(repos.c.id == repo.id, repos.c.deleted_at.is_(None), repos.c.name == repo.name)
        here = sa.and_(here, repos.c.namespace_id == repo.namespace_id)
        changed = sa.update(repos).where(here).values(dict(values) | {"updated_at": self._clock()})
        if connection.execute(changed).rowcount != 1:
            raise RepoAbsent(f"Repository {repo.repo_id.full} not found.")

    def _note(
        self,
        connection: Connection,
        actor: Actor,
        act: str,
        row_id: int,
        subject: RepoId,
        body: Mapping[str, object] | None = None,
    ) -> None:
        connection.execute(
            sa.insert(events).values(
                at=self._clock(),
                actor_id=actor.user_id,
                act=act,
                repo_id=row_id,
                subject=subject.web,
                body=dict(body or {}),
            )
        )


def _home(changes: Changes) -> dict[str, object]:
    """Give the columns that say who may read the repo, as far as they change."""
    columns: dict[str, object] = {}
    if changes.private is not None:
        columns["visibility"] = "private" if changes.private else "public"
    if changes.gated is not None:
        columns["gated"] = changes.gated
    return columns


def _columns(connection: Connection, row_id: int, changes: Changes) -> dict[str, object]:
    columns = _home(changes)
    if changes.description is not None:
        columns["description"] = changes.description
    if changes.options:
        now_set = connection.execute(sa.select(repos.c.options).where(repos.c.id == row_id)).scalar() or {}
        columns["options"] = {**now_set, **changes.options}
    return columns


def _canonical(connection: Connection, name: RepoId, namespace_id: int) -> RepoId:
    """Spell the namespace as its owner does."""
    spelled = connection.execute(sa.select(namespaces.c.name).where(namespaces.c.id == namespace_id)).scalar_one()
    return RepoId(name.type, spelled, name.name)


def _holder(connection: Connection, name: RepoId, namespace_id: int) -> tuple[int, str] | None:
    """Find the repo that has a name: its row id, and the name as it spells it."""
    found = sa.select(repos.c.id, repos.c.name).where(
        repos.c.type == name.type,
        repos.c.namespace_id == namespace_id,
        repos.c.name_fold == name.name.casefold(),
        repos.c.deleted_at.is_(None),
    )
    row = connection.execute(found).first()
    return None if row is None else (row.id, row.name)


def _drop_alias(connection: Connection, name: RepoId) -> None:
    connection.execute(sa.delete(moves).where(moves.c.type == name.type, moves.c.old_fold == name.fold))


def _made_already(name: RepoId) -> Exists:
    return Exists(f"You already created this {name.type} repo: {name.full}", path=name.web)


def _name_taken(name: RepoId) -> Exists:
    return Exists(f"A {name.type} repository called {name.full} already exists", path=name.web)
