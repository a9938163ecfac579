"""Ref rows move only from where the caller saw them."""

from __future__ import annotations

import threading

import pytest

from registry.db import Database, lock_repo
from registry.git import refs
from registry.git.refs import Update
from registry.git.snapshot import ZERO, Ref
from tests.registry import people

A, B, C = "a" * 40, "b" * 40, "c" * 40
MAIN = b"refs/heads/main"


@pytest.fixture
def repo(database: Database) -> Database:
    """A database with repo 1."""
    people.add_user(database, "ann")
    people.add_repo(database, "ann", "one")
    return database


def _swap(database: Database, old: str, new: str, name: bytes = MAIN) -> bool:
    with database.write() as connection:
        lock_repo(connection, 1)
        return refs.swap(connection, 1, Update(name, old, new), None, people.START)


def _refs(database: Database) -> dict[bytes, str]:
    with database.read() as connection:
        return {name: ref.target for name, ref in refs.current(connection, 1).items()}


def test_a_ref_is_made_moved_and_removed(repo: Database) -> None:
    assert _swap(repo, ZERO, A)
    assert _swap(repo, A, B)
    assert _refs(repo) == {MAIN: B}
    assert _swap(repo, B, ZERO)
    assert _refs(repo) == {}


@pytest.mark.parametrize(("old", "new"), [(ZERO, B), (B, C), (B, ZERO)])
def test_a_stale_old_value_changes_nothing(repo: Database, old: str, new: str) -> None:
    assert _swap(repo, ZERO, A)
    assert not _swap(repo, old, new)
    assert _refs(repo) == {MAIN: A}


def test_of_eight_who_race_one_wins(repo: Database) -> None:
    assert _swap(repo, ZERO, A)
    won: list[bool] = []
    racers = [threading.Thread(target=lambda n=n: won.append(_swap(repo, A, f"{n:040x}"))) for n in range(1, 9)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    assert sorted(won) == [False] * 7 + [True]


@pytest.mark.parametrize(
    ("name", "clash"),
    [
        (b"refs/heads/a/b", b"refs/heads/a"),
        (b"refs/heads/x", b"refs/heads/x/y"),
        (b"refs/heads/ab", None),
        (b"refs/heads/a", None),
        (b"refs/heads/x/z", None),
    ],
)
def test_a_ref_cannot_be_a_folder_of_another(repo: Database, name: bytes, clash: bytes | None) -> None:
    for there in (b"refs/heads/a", b"refs/heads/x/y"):
        assert _swap(repo, ZERO, A, there)
    with repo.read() as connection:
        assert refs.clash(connection, 1, name) == clash


def test_refs_are_read_in_byte_order(repo: Database) -> None:
    for name in (b"refs/tags/v1", b"refs/heads/b", b"refs/heads/a"):
        assert _swap(repo, ZERO, A, name)
    with repo.read() as connection:
        assert list(refs.current(connection, 1)) == [b"refs/heads/a", b"refs/heads/b", b"refs/tags/v1"]
        assert refs.current(connection, 1)[b"refs/tags/v1"] == Ref(b"refs/tags/v1", A, None)
