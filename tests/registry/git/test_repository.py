"""Snapshots show one instant; what is kept in memory is never older than the repo's row."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from registry.db import Database
from registry.errors import RepoAbsent
from registry.git.repository import Repositories
from registry.tables.objects import packs, repo_packs
from registry.tables.repos import refs, repos
from tests.registry import people

MAIN = b"refs/heads/main"


@pytest.fixture
def repo(database: Database) -> Database:
    """A database with repo 1."""
    people.add_user(database, "ann")
    people.add_repo(database, "ann", "one")
    return database


def move(database: Database, target: str, *, tell: bool = True) -> None:
    """Set main to a target; without `tell` the version number stays, as it does for nobody else."""
    with database.write() as connection:
        connection.execute(sa.delete(refs))
        connection.execute(
            sa.insert(refs).values(repo_id=1, name=MAIN, target=target, updated_at=people.START, peeled=None)
        )
        if tell:
            connection.execute(sa.update(repos).values(refs_version=repos.c.refs_version + 1))


def add_pack(database: Database, name: str, ordinal: int) -> None:
    """Give repo 1 a pack."""
    numbers = dict.fromkeys(("bytes", "objects", "commits", "idx_bytes", "intro_bytes"), 1)
    row = {"id": name * 64, "git_sha1": "0" * 40, "idx_oid": "1" * 64, "intro_oid": "2" * 64, "why": "push"}
    with database.write() as connection:
        connection.execute(sa.insert(packs).values(row | numbers | {"state": "live", "created_at": people.START}))
        given = {"repo_id": 1, "pack_id": name * 64, "ordinal": ordinal, "added_at": people.START}
        connection.execute(sa.insert(repo_packs).values(given))
        connection.execute(sa.update(repos).values(manifest_version=repos.c.manifest_version + 1))


def test_a_snapshot_follows_every_move(repo: Database) -> None:
    repositories = Repositories(repo)
    assert repositories.snapshot(1).refs == {}
    for target in ("a" * 40, "b" * 40):
        move(repo, target)
        assert repositories.snapshot(1).refs[MAIN].target == target


def test_an_unchanged_repo_is_read_from_memory(repo: Database) -> None:
    repositories = Repositories(repo)
    move(repo, "a" * 40)
    first = repositories.snapshot(1)
    assert repositories.snapshot(1).refs is first.refs
    assert repositories.snapshot(1).packs is first.packs


def test_packs_come_newest_first(repo: Database) -> None:
    repositories = Repositories(repo)
    for ordinal, name in enumerate("abc"):
        add_pack(repo, name, ordinal)
    assert [pack.id[0] for pack in repositories.snapshot(1).packs] == ["c", "b", "a"]
    assert repositories.packs(1, 3) == repositories.snapshot(1).packs


def test_memory_is_bounded_by_entries_and_answers_stay_right(repo: Database) -> None:
    people.add_repo(repo, "ann", "two")
    repositories = Repositories(repo, keep=1)
    move(repo, "a" * 40)
    for _ in range(2):
        assert repositories.snapshot(1).refs[MAIN].target == "a" * 40
        assert repositories.snapshot(2).refs == {}


def test_a_deleted_repo_is_gone(repo: Database) -> None:
    repositories = Repositories(repo)
    repositories.snapshot(1)
    with repo.write() as connection:
        connection.execute(sa.update(repos).values(deleted_at=people.START))
    for repo_id in (1, 99):
        with pytest.raises(RepoAbsent):
            repositories.snapshot(repo_id)
