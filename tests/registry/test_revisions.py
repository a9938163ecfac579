"""Names lead to the commit that the Hub's rules say, and only to commits that a shown ref reaches."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from registry.access import Access, Visit
from registry.db import Database
from registry.errors import EntryAbsent, RevisionAbsent, TooLarge
from registry.git.snapshot import ZERO
from registry.git.view import Views
from registry.names import RepoId
from registry.revisions import Revisions, asked
from registry.tables.repos import repos
from tests.registry.gate import MAIN, Gate

ONE = RepoId("model", "ann", "one")


class World:
    """The repo `ann/one` with two commits on main, one on a branch, a light and an annotated tag, and a PR ref."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.gate = Gate(database, folder)
        self.access = Access(database)
        self.revisions = Revisions(
            repositories=self.gate.repositories, manifests=self.gate.manifests, views=Views(self.gate.manifests)
        )
        self.first = self.gate.commit({"a.txt": b"one", "same.txt": b"same"}, message="first")
        self.second = self.gate.commit({"a.txt": b"two", "same.txt": b"same"}, on=self.first, message="second")
        self.side = self.gate.commit({"d/b.txt": b"side"}, on=self.first, message="side")
        self.push(MAIN, self.second)
        self.push(b"refs/heads/dev/x", self.side)
        self.push(b"refs/tags/light", self.first)
        self.gate.git("tag", "-a", "-m", "v1", "v1", self.first)
        self.push(b"refs/tags/v1", self.gate.git("rev-parse", "v1"))

    def push(self, ref: bytes, sha: str) -> None:
        outcome = self.gate.push((ref, self.gate.targets().get(ref, ZERO), sha))
        assert outcome.results == {ref: None}

    def visit(self, revision: str | None = None) -> Visit:
        return self.access.visit(None, ONE, ref=asked(revision))

    def resolve(self, revision: str | None) -> str:
        return self.revisions.resolve(self.visit(revision), revision).commit


@pytest.fixture
def world(database: Database, tmp_path: Path) -> World:
    return World(database, tmp_path)


def test_names_resolve_in_the_order_of_the_hub(world: World) -> None:
    expected = {
        None: world.second,
        "main": world.second,
        "HEAD": world.second,
        "dev/x": world.side,
        "light": world.first,
        "v1": world.first,
        "refs/heads/main": world.second,
        "refs/tags/v1": world.first,
        world.side: world.side,
        world.first[:7]: world.first,
        world.second[:39]: world.second,
    }
    assert {name: world.resolve(name) for name in expected} == expected


@pytest.mark.parametrize(
    "name", ["nope", "refs/heads/nope", "refs/", "", "main/x", "0" * 40, "0" * 7, "abcdef", "MAIN"]
)
def test_an_unknown_name_is_absent(world: World, name: str) -> None:
    with pytest.raises(RevisionAbsent):
        world.resolve(name)


def test_a_branch_wins_over_a_tag_of_its_name(world: World) -> None:
    world.push(b"refs/heads/v1", world.side)
    assert world.resolve("v1") == world.side
    assert world.resolve("refs/tags/v1") == world.first


def test_a_full_sha_wins_over_a_branch_of_its_name(world: World) -> None:
    world.push(b"refs/heads/" + world.first[:12].encode(), world.side)
    assert world.resolve(world.first[:12]) == world.side
    assert world.resolve(world.first) == world.first


def test_a_commit_that_no_ref_reaches_any_more_is_absent(world: World) -> None:
    assert world.resolve(world.side) == world.side
    outcome = world.gate.push((b"refs/heads/dev/x", world.side, ZERO))
    assert outcome.results == {b"refs/heads/dev/x": None}
    for name in (world.side, world.side[:10], "dev/x"):
        with pytest.raises(RevisionAbsent):
            world.resolve(name)
    assert world.resolve(world.first) == world.first


def test_the_sha_of_a_tag_tree_or_blob_is_no_revision(world: World) -> None:
    for name in ("v1", "v1^{tree}", f"{world.first}:a.txt"):
        with pytest.raises(RevisionAbsent):
            world.resolve(world.gate.git("rev-parse", name))


def test_hidden_refs_cannot_be_named(world: World, database: Database) -> None:
    with database.write() as connection:
        connection.execute(
            sa.text(
                "INSERT INTO refs (repo_id, name, target, updated_at) SELECT repo_id, :name, target, updated_at"
                " FROM refs WHERE name = :old"
            ),
            {"name": b"refs/internal/x", "old": b"refs/heads/dev/x"},
        )
        connection.execute(sa.text("DELETE FROM refs WHERE name = :old"), {"old": b"refs/heads/dev/x"})
        connection.execute(sa.update(repos).values(refs_version=repos.c.refs_version + 1))
    for name in ("refs/internal/x", world.side):
        with pytest.raises(RevisionAbsent):
            world.resolve(name)


def test_another_default_branch_is_followed(world: World, database: Database) -> None:
    with database.write() as connection:
        connection.execute(sa.update(repos).values(default_branch=b"refs/heads/dev/x"))
    assert world.resolve(None) == world.side
    assert world.resolve("HEAD") == world.side
    assert world.resolve("main") == world.second


def test_an_empty_repo_has_no_revisions(database: Database, tmp_path: Path) -> None:
    gate = Gate(database, tmp_path)
    revisions = Revisions(repositories=gate.repositories, manifests=gate.manifests, views=Views(gate.manifests))
    for name in (None, "main", "HEAD", "1234567", "1" * 40):
        visit = Access(database).visit(None, ONE, ref=asked(name))
        with pytest.raises(RevisionAbsent):
            revisions.resolve(visit, name)


def test_a_known_name_and_a_known_sha_cost_no_statement(world: World, database: Database) -> None:
    statements = []
    named, pinned = world.visit("main"), world.visit(world.first)
    world.resolve(world.first)

    @sa.event.listens_for(database.engine, "before_cursor_execute")
    def count(connection: object, cursor: object, statement: str, *rest: object) -> None:
        statements.append(statement)

    assert world.revisions.resolve(named, "main").commit == world.second
    assert world.revisions.resolve(pinned, world.first).commit == world.first
    assert statements == []


def test_files_of_a_commit_stay_what_they_were(world: World) -> None:
    old, new = (world.revisions.resolve(world.visit(name), name) for name in (world.first, "main"))
    for at, data in ((old, b"one"), (new, b"two")):
        assert world.revisions.blob(at, world.revisions.entry(at, "a.txt"), 100) == data
        assert world.revisions.names(at) == ["a.txt", "same.txt"]
    assert [entry.path for entry in world.revisions.find(new, ["nope", "/a.txt/", "a.txt", "", "\udcff"])] == [b"a.txt"]
    with pytest.raises(EntryAbsent):
        world.revisions.entry(new, "d/b.txt")
    with pytest.raises(TooLarge):
        world.revisions.blob(new, world.revisions.entry(new, "a.txt"), 2)


def test_listings_come_in_pages(world: World) -> None:
    at = world.revisions.resolve(world.visit("dev/x"), "dev/x")
    page = world.revisions.tree(at, "", recursive=True, limit=1)
    assert ([entry.path for entry in page.entries], page.more) == ([b"d"], True)
    rest = world.revisions.tree(at, "", recursive=True, limit=1, after=b"d")
    assert ([entry.path for entry in rest.entries], rest.more) == ([b"d/b.txt"], False)


def test_history_and_last_changes_are_read_at_a_commit(world: World) -> None:
    at = world.revisions.resolve(world.visit("main"), "main")
    commits, total = world.revisions.log(at, 0, 1)
    assert ([commit.title for commit in commits], total) == (["second"], 2)
    assert [commit.sha for commit in world.revisions.log(at, 1, 10)[0]] == [world.first]
    for _ in range(2):
        last = world.revisions.last_changes(at, [b"a.txt", b"same.txt"])
        assert {path: commit.title for path, commit in last.items()} == {b"a.txt": "second", b"same.txt": "first"}
    assert world.revisions.commit(at).title == "second"
