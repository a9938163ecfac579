"""Listings show what the actor may read, all of it and once, in the order asked for."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest
import sqlalchemy as sa

from registry.access import ANONYMOUS, Actor
from registry.cards import Facts
from registry.catalog import Catalog, Query
from registry.db import Database
from registry.errors import BadBody
from registry.names import RepoType
from registry.tables.repos import card_tags, cards, refs, repos
from tests.registry import people

ANN, BOB = Actor(1, "ann", 1, 1, "write"), Actor(2, "bob", 2, 2, "write")
MODELS = Query("model")
SHA = "a" * 40


class World:
    """Users ann (1) and bob (2), an org `lab`; what a commit says is looked up in `said`."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.said: dict[str, Facts] = {}
        self.read: list[str] = []
        self.catalog = Catalog(database, describe=self._describe)
        people.add_user(database, "ann")
        people.add_user(database, "bob")
        self.lab = people.add_namespace(database, "lab", "org")

    def _describe(self, kind: RepoType, repo_id: int, sha: str) -> Facts:
        self.read.append(sha)
        return self.said.get(sha, Facts())

    def add(self, name: str, facts: Facts | None = None, *, age: int = 0, **values: object) -> int:
        """Add a repo that was updated `age` seconds before the others, with a tip that says these facts."""
        namespace, _, rest = name.partition("/")
        kind = values.pop("kind", "model")
        repo_id = people.add_repo(self.database, namespace, rest, kind=str(kind))
        at = people.START - timedelta(seconds=age)
        with self.database.write() as connection:
            changed = sa.update(repos).where(repos.c.id == repo_id)
            connection.execute(changed.values({"updated_at": at, "created_at": at, **values}))
        if facts is not None:
            self.move(repo_id, format(repo_id, "040x"), facts)
        return repo_id

    def move(self, repo_id: int, sha: str, facts: Facts) -> None:
        """Move main to a commit that says these facts, as a push does."""
        self.said[sha] = facts
        main = {"repo_id": repo_id, "name": b"refs/heads/main", "target": sha, "updated_at": people.START}
        with self.database.write() as connection:
            connection.execute(sa.delete(refs).where(refs.c.repo_id == repo_id))
            connection.execute(sa.insert(refs).values(main))
        self.catalog.refresh(repo_id)

    def names(self, query: Query = MODELS, actor: Actor = ANN) -> list[str]:
        """List everything, page by page."""
        found: list[str] = []
        while True:
            page = self.catalog.list(actor, query)
            found += [listed.repo.repo_id.full for listed in page.repos]
            if not page.cursor:
                return found
            query = replace(query, cursor=page.cursor)


@pytest.fixture
def world(database: Database) -> World:
    return World(database)


def _tagged(*tags: str, **more: object) -> Facts:
    return replace(Facts(tags=tags), **more)


def test_private_repos_appear_only_to_their_readers(world: World, database: Database) -> None:
    world.add("ann/open")
    world.add("ann/closed", visibility="private")
    world.add("lab/closed", visibility="private")
    assert sorted(world.names(actor=ANONYMOUS)) == ["ann/open"]
    assert sorted(world.names(actor=BOB)) == ["ann/open"]
    assert sorted(world.names(actor=ANN)) == ["ann/closed", "ann/open"]
    people.add_member(database, world.lab, 2, "read")
    assert sorted(world.names(actor=BOB)) == ["ann/open", "lab/closed"]
    assert len(world.names(actor=replace(BOB, is_admin=True, token_role="admin"))) == 3
    assert len(world.names(actor=replace(BOB, is_admin=True))) == 2


def test_nobody_lists_without_a_token_where_reading_needs_one(world: World, database: Database) -> None:
    world.add("ann/open")
    closed = Catalog(database, describe=lambda *_: Facts(), anonymous_read=False)
    assert closed.list(ANONYMOUS, MODELS).repos == ()
    assert len(closed.list(BOB, MODELS).repos) == 1


def test_types_and_deleted_repos_stay_apart(world: World) -> None:
    world.add("ann/model")
    world.add("ann/data", kind="dataset")
    world.add("ann/gone", deleted_at=people.START)
    assert world.names() == ["ann/model"]
    assert world.names(Query("dataset")) == ["ann/data"]
    assert world.names(Query("space")) == []


def test_pages_neither_lose_nor_repeat_repos_of_one_moment(world: World) -> None:
    for number in range(7):
        world.add(f"ann/r{number}", age=number // 3, likes=number % 2, downloads=5)
    expected = ["ann/r2", "ann/r1", "ann/r0", "ann/r5", "ann/r4", "ann/r3", "ann/r6"]
    by_likes = [f"ann/r{n}" for n in (5, 3, 1, 6, 4, 2, 0)]
    for size in (1, 2, 3, 100):
        assert world.names(replace(MODELS, limit=size)) == expected
        assert world.names(replace(MODELS, limit=size, sort="created")) == expected
        assert world.names(replace(MODELS, limit=size, sort="likes")) == by_likes
        assert world.names(replace(MODELS, limit=size, sort="downloads")) == [f"ann/r{n}" for n in range(6, -1, -1)]


def test_a_new_repo_does_not_shift_later_pages(world: World) -> None:
    for number in range(4):
        world.add(f"ann/r{number}", age=number)
    first = world.catalog.list(ANN, replace(MODELS, limit=2))
    world.add("ann/new", age=-5)
    assert world.names(replace(MODELS, limit=2, cursor=first.cursor)) == ["ann/r2", "ann/r3"]


def test_every_filter_narrows(world: World) -> None:
    bert = _tagged("transformers", "en", "license:mit", "dataset:wiki", task="fill-mask", tensors={"F32": 100})
    llama = _tagged("en", "base_model:x/y", task="text-generation", tensors={"BF16": 7000})
    world.add("ann/bert", bert)
    world.add("ann/llama", llama, gated="auto")
    world.add("lab/plain", age=1)
    cases: list[tuple[dict[str, object], Sequence[str]]] = [
        ({"tags": ("license:mit",)}, ["ann/bert"]),
        ({"tags": ("en",)}, ["ann/llama", "ann/bert"]),
        ({"tags": ("language:en", "dataset:wiki")}, ["ann/bert"]),
        ({"tags": ("library:transformers",)}, ["ann/bert"]),
        ({"tags": ("en", "benchmark:official")}, []),
        ({"task": "text-generation"}, ["ann/llama"]),
        ({"gated": ("auto", "manual")}, ["ann/llama"]),
        ({"gated": ("",)}, ["ann/bert", "lab/plain"]),
        ({"author": "LAB"}, ["lab/plain"]),
        ({"author": "nobody"}, []),
        ({"least_parameters": 101}, ["ann/llama"]),
        ({"most_parameters": 100}, ["ann/bert"]),
        ({"least_parameters": 100, "most_parameters": 7000}, ["ann/llama", "ann/bert"]),
    ]
    for narrowed, expected in cases:
        assert world.names(replace(MODELS, **narrowed)) == expected, narrowed


def test_search_looks_at_names_titles_and_tags_letter_by_letter(world: World) -> None:
    world.add("ann/Bert-Base", _tagged("exbert", card={"title": "Größe"}))
    world.add("ann/100%_real", age=1)
    for term, expected in (
        ("BERT-b", ["ann/Bert-Base"]),
        ("ann/", ["ann/Bert-Base", "ann/100%_real"]),
        ("exb", ["ann/Bert-Base"]),
        ("größe", ["ann/Bert-Base"]),
        ("100%_", ["ann/100%_real"]),
        ("100__", []),
        ("'; --", []),
    ):
        assert world.names(replace(MODELS, search=(term,))) == expected, term
    assert world.names(replace(MODELS, search=("bert", "real"))) == []


def test_a_listed_repo_carries_its_tip_and_facts(world: World) -> None:
    facts = _tagged(
        "b", "a", library="transformers", card={"license": "mit"}, config={"model_type": "x"}, tensors={"F32": 3}
    )
    world.add("ann/one", facts)
    world.add("ann/empty", age=1)
    first, second = world.catalog.list(ANN, MODELS).repos
    assert (first.sha, first.facts) == (format(first.repo.id, "040x"), facts)
    assert (second.sha, second.facts) == (None, Facts())
    bare = world.catalog.list(ANN, replace(MODELS, cards=False)).repos[0]
    assert bare.facts == replace(facts, card={})


def test_a_refresh_follows_the_tip_and_rests_when_it_stands_still(world: World) -> None:
    repo_id = world.add("ann/one", _tagged("old"))
    world.catalog.refresh(repo_id)
    assert len(world.read) == 1
    world.move(repo_id, SHA, _tagged("new"))
    assert world.names(replace(MODELS, tags=("old",))) == []
    assert world.names(replace(MODELS, tags=("new",))) == ["ann/one"]


def test_a_refresh_forgets_a_branch_that_is_gone(world: World, database: Database) -> None:
    repo_id = world.add("ann/one", _tagged("old"))
    with database.write() as connection:
        connection.execute(sa.delete(refs))
    world.catalog.refresh(repo_id)
    with database.read() as connection:
        assert connection.execute(sa.select(cards)).all() == []
        assert connection.execute(sa.select(card_tags)).all() == []
    world.catalog.refresh(12345)


def test_a_refresh_that_was_overtaken_starts_over(world: World) -> None:
    repo_id = world.add("ann/one", _tagged("old"))
    original = world.catalog._describe

    def overtaken(kind: RepoType, repo_id: int, sha: str) -> Facts:
        found = original(kind, repo_id, sha)
        if sha == SHA:
            world.move(repo_id, "b" * 40, _tagged("newest"))
        return found

    world.catalog._describe = overtaken
    world.move(repo_id, SHA, _tagged("newer"))
    assert world.names(replace(MODELS, tags=("newest",))) == ["ann/one"]
    assert world.names(replace(MODELS, tags=("newer",))) == []


def test_a_cursor_of_another_making_is_refused(world: World) -> None:
    made = [
        b"[]",
        b"1",
        b'["updated", 3, 1]',
        b'["likes", 1, 1]',
        b'["updated", "2026-01-01", 1]',
        b'["updated", "2026-01-01T00:00:00+00:00", -1]',
        b'["updated", "2026-01-01T00:00:00+00:00", 99999999999999999999]',
        b'["updated", "0001-01-01T00:00:00+23:59", 1]',
        b'["updated", "x", 1]',
        b"\xff",
    ]
    for cursor in ("x", "é", "====", *(base64.urlsafe_b64encode(raw).decode() for raw in made)):
        with pytest.raises(BadBody):
            world.catalog.list(ANN, replace(MODELS, cursor=cursor))


def test_a_cursor_beyond_any_count_is_refused(world: World) -> None:
    for value in ("99999999999999999999", "-1", "true", '"3"'):
        cursor = base64.urlsafe_b64encode(f'["likes", {value}, 1]'.encode()).decode()
        with pytest.raises(BadBody):
            world.catalog.list(ANN, replace(MODELS, sort="likes", cursor=cursor))
