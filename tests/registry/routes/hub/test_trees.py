"""Trees and named paths are told in the Hub's shapes, in pages that a Link connects."""

from __future__ import annotations

import hashlib
from pathlib import Path
from urllib.parse import quote

import pytest
from httpx import Response

from registry.db import Database
from tests.registry.routes.hub.reader import Reader

WEIGHTS = b"w" * 5000
OID = hashlib.sha256(WEIGHTS).hexdigest()


@pytest.fixture
def reader(sqlite_database: Database, tmp_path: Path) -> Reader:
    return Reader(sqlite_database, tmp_path)


def _paths(answer: Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [item["path"] for item in answer.json()]


def _next(answer: Response) -> str:
    link = answer.headers.get("link", "")
    assert not link or (link.startswith("<http://hub.test/") and link.endswith('>; rel="next"'))
    return link[1:].partition(">")[0]


def test_entries_have_the_shape_of_the_hub(reader: Reader) -> None:
    pointer = reader.large(WEIGHTS)
    sha = reader.push({"a.txt": b"abc", "d/m.bin": pointer})
    found = reader.client().get("/api/models/ann/one/tree/main?recursive=true")
    oid = {path: reader.gate.git("rev-parse", f"{sha}:{path}") for path in ("a.txt", "d", "d/m.bin")}
    assert found.json() == [
        {"type": "file", "oid": oid["a.txt"], "size": 3, "path": "a.txt"},
        {"type": "directory", "oid": oid["d"], "size": 0, "path": "d"},
        {
            "type": "file",
            "oid": oid["d/m.bin"],
            "size": 5000,
            "lfs": {"oid": OID, "size": 5000, "pointerSize": len(pointer)},
            "path": "d/m.bin",
        },
    ]
    assert found.headers["x-repo-commit"] == sha


def test_a_folder_is_listed_flat_or_whole(reader: Reader) -> None:
    reader.push({"a/b/c.txt": b"1", "a/d.txt": b"2", "é é/x": b"3"})
    client, tree = reader.client(), "/api/models/ann/one/tree"
    assert _paths(client.get(f"{tree}/main")) == ["a", "é é"]
    assert _paths(client.get(f"{tree}/main/a")) == ["a/b", "a/d.txt"]
    assert _paths(client.get(f"{tree}/main/a%2Fb?recursive=false")) == ["a/b/c.txt"]
    assert _paths(client.get(f"{tree}/main/a/?recursive=True")) == ["a/b", "a/b/c.txt", "a/d.txt"]
    assert _paths(client.get(f"{tree}/main/{quote('é é')}")) == ["é é/x"]


def test_pages_are_connected_by_link_and_hold_their_commit(reader: Reader) -> None:
    first = reader.push({f"d/{n:03}.txt": b"x" for n in range(25)})
    client = reader.client()
    page = client.get("/api/models/ann/one/tree/main?recursive=true&limit=10")
    found = _paths(page)
    reader.push({"other.txt": b"y"}, on=first)
    while url := _next(page):
        page = client.get(url)
        found += _paths(page)
    assert found == ["d", *(f"d/{n:03}.txt" for n in range(25))]


def test_expand_adds_the_last_commit_in_pages_of_fifty(reader: Reader) -> None:
    files = {f"{n:03}.txt": b"x" for n in range(60)}
    first = reader.push(files, message="first\n\nbody")
    second = reader.push({**files, "003.txt": b"new"}, on=first, message="second")
    page = reader.client().get("/api/models/ann/one/tree/main?expand=true")
    items = page.json()
    assert (len(items), bool(_next(page))) == (50, True)
    assert {item["path"]: item["lastCommit"]["id"] for item in items} == {
        path: second if path == "003.txt" else first for path in list(files)[:50]
    }
    assert items[0]["lastCommit"] == {"id": first, "title": "first", "date": "2023-11-14T22:13:20.000Z"}
    assert len(reader.client().get(_next(page)).json()) == 10


def test_llama_cpp_gets_everything_in_one_page(reader: Reader) -> None:
    reader.push({f"{n:04}.txt": b"x" for n in range(1100)})
    url = "/api/models/ann/one/tree/main?recursive=true"
    assert len(reader.client().get(url).json()) == 1000
    whole = reader.client().get(url, headers={"user-agent": "llama-cpp/b1"})
    assert (len(whole.json()), _next(whole)) == (1100, "")


def test_what_is_not_there_is_404_with_its_code(reader: Reader) -> None:
    sha = reader.push({"a.txt": b"1"})
    for rest, code in (("main/nope", "EntryNotFound"), ("main/a.txt", "EntryNotFound"), ("nope", "RevisionNotFound")):
        answer = reader.client().get(f"/api/models/ann/one/tree/{rest}")
        assert (answer.status_code, answer.headers["x-error-code"]) == (404, code)
        assert answer.headers.get("x-repo-commit", sha) == sha
    for query in ("limit=x", "cursor=nope", "cursor=é", "limit=-1"):
        assert reader.client().get(f"/api/models/ann/one/tree/main?{query}").status_code == 400


def test_paths_are_asked_for_by_form_and_by_json(reader: Reader) -> None:
    sha = reader.push({"a.txt": b"1", "d/b c.txt": b"22"})
    client, url = reader.client(), "/api/models/ann/one/paths-info/main"
    form = client.post(url, data={"paths": ["a.txt", "nope", "d", "d/b c.txt"], "expand": "true"})
    named = client.post(url, json={"paths": ["a.txt", "nope", "d", "d/b c.txt"], "expand": True})
    assert _paths(form) == ["a.txt", "d", "d/b c.txt"]
    assert form.json() == named.json()
    assert {item["lastCommit"]["id"] for item in form.json()} == {sha}
    assert "lastCommit" not in client.post(url, data={"paths": "a.txt"}).json()[0]
    assert (
        client.post(url, data={"paths": "a.txt", "expand": "False"}).json()
        == client.post(url, json={"paths": "a.txt"}).json()
    )
    assert client.post(url, json={}).json() == []


def test_paths_info_refuses_what_it_cannot_read(reader: Reader) -> None:
    reader.push({"a.txt": b"1"})
    client, url = reader.client(), "/api/models/ann/one/paths-info/main"
    assert client.post(url, json={"paths": [1]}).status_code == 400
    assert client.post(url, json={"paths": {"a": 1}}).status_code == 400
    assert client.post(url, content=b"{", headers={"content-type": "application/json"}).status_code == 400
    assert client.post(url, content=b"paths=%FF").status_code == 400
    assert client.post(url, json={"paths": ["x"] * 10_001}).status_code == 413
    assert client.post(url, content=b"p" * (9 << 20)).status_code == 413
    assert client.post("/api/models/ann/nope/paths-info/main", json={}).status_code == 401
