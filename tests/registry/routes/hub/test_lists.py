"""Lists of repos: every filter that the Hub's clients send, pages by Link, nothing that one may not read."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from registry.db import Database
from registry.tables.repos import repos
from tests.registry import people
from tests.registry.routes.hub.reader import Reader


@pytest.fixture
def reader(sqlite_database: Database, tmp_path: Path) -> Reader:
    """`ann/one` with a card, `ann/two` and `bob/three` empty, `bob/hidden` private."""
    found = Reader(sqlite_database, tmp_path)
    card = b"---\nlicense: mit\nlanguage: en\ntags: [chat]\npipeline_tag: text-generation\n---\n"
    found.push({"README.md": card, "config.json": b'{"model_type": "llama"}'})
    found.catalog.refresh(1)
    people.add_repo(sqlite_database, "ann", "two")
    people.add_repo(sqlite_database, "bob", "three")
    people.add_repo(sqlite_database, "bob", "hidden", visibility="private")
    people.add_repo(sqlite_database, "bob", "data", kind="dataset")
    return found


def _ids(reader: Reader, query: str = "", name: str | None = None, kind: str = "models") -> list[str]:
    answer = reader.client(name).get(f"/api/{kind}?{query}")
    assert answer.status_code == 200, answer.text
    return [item["id"] for item in answer.json()]


def test_a_list_shows_what_one_may_read(reader: Reader) -> None:
    assert set(_ids(reader)) == {"ann/one", "ann/two", "bob/three"}
    assert set(_ids(reader, name="bob")) == {"ann/one", "ann/two", "bob/three", "bob/hidden"}
    assert _ids(reader, kind="datasets") == ["bob/data"]
    assert _ids(reader, kind="spaces") == []


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("filter=chat", {"ann/one"}),
        ("filter=license:mit&filter=language:en", {"ann/one"}),
        ("filter=license:mit&filter=de", set()),
        ("author=BOB", {"bob/three"}),
        ("search=TWO", {"ann/two"}),
        ("search=ann&search=one", {"ann/one"}),
        ("search=ann+two", {"ann/two"}),
        ("pipeline_tag=text-generation", {"ann/one"}),
        ("gated=true", set()),
        ("gated=false", {"ann/one", "ann/two", "bob/three"}),
        ("num_parameters=min:1K,max:6.5B", set()),
        ("apps=vllm", set()),
        ("inference=warm", set()),
        ("gated=maybe", set()),
        (
            "sort=downloads&direction=-1&limit=1000&full=True&cardData=True&config=True",
            {"ann/one", "ann/two", "bob/three"},
        ),
    ],
)
def test_filters_narrow_and_unknown_ones_find_nothing(reader: Reader, query: str, expected: set[str]) -> None:
    assert set(_ids(reader, query)) == expected


@pytest.mark.parametrize(
    "query",
    [
        "expand=nonsense",
        "sort=beauty",
        "limit=many",
        "cursor=x",
        "num_parameters=6B",
        "search=%00",
        "search=" + "+".join("abcdefghijklmnopqrstuvwxyz"),
    ],
)
def test_a_query_that_makes_no_sense_is_400(reader: Reader, query: str) -> None:
    answer = reader.client().get(f"/api/models?{query}")
    assert (answer.status_code, bool(answer.json()["error"])) == (400, True)


def test_pages_are_connected_by_link_with_all_parameters(reader: Reader) -> None:
    answer = reader.client().get("/api/models?sort=createdAt&limit=1&filter=")
    found, pages = [item["id"] for item in answer.json()], 1
    while "link" in answer.headers:
        url = answer.headers["link"][1:].partition(">")[0]
        assert url.startswith("http://hub.test/api/models?")
        assert "sort=createdAt" in url
        answer = reader.client().get(url)
        found += [item["id"] for item in answer.json()]
        pages += 1
    assert (sorted(found), pages) == (["ann/one", "ann/two", "bob/three"], 3)


def test_items_carry_what_was_asked_for(reader: Reader) -> None:
    def item(query: str) -> dict[str, object]:
        found: dict[str, object] = reader.client().get(f"/api/models?search=one&{query}").json()[0]
        return found

    plain, full = item(""), item("full=true&config=true")
    assert plain["tags"] == ["transformers", "llama", "text-generation", "chat", "en", "license:mit"]
    assert {"cardData", "siblings", "config"}.isdisjoint(plain)
    assert full["siblings"] == [{"rfilename": "README.md"}, {"rfilename": "config.json"}]
    assert full["config"] == {"model_type": "llama"}
    assert set(item("expand=downloads&expand[]=likes")) == {"_id", "id", "modelId", "downloads", "likes"}


def test_a_bad_token_is_refused_even_here(reader: Reader) -> None:
    answer = reader.client().get("/api/models", headers={"authorization": "Bearer hf_no"})
    assert answer.status_code == 401


def test_sorting_by_downloads_puts_the_largest_first(reader: Reader) -> None:
    with reader.database.write() as connection:
        connection.execute(sa.update(repos).values(downloads=repos.c.id % 3))
    assert _ids(reader, "sort=downloads") == ["ann/two", "ann/one", "bob/three"]
