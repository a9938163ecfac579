"""Resolve and raw answer with the headers and bytes that the Hub's clients rely on."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
import sqlalchemy as sa

from registry.db import Database
from registry.tables.repos import moves, repos
from tests.registry import people
from tests.registry.routes.hub.reader import Reader

WEIGHTS = bytes(range(256)) * 20_000
OID = hashlib.sha256(WEIGHTS).hexdigest()


@pytest.fixture
def reader(database: Database, tmp_path: Path) -> Reader:
    return Reader(database, tmp_path)


@pytest.fixture
def lone(sqlite_database: Database, tmp_path: Path) -> Reader:
    return Reader(sqlite_database, tmp_path)


def test_head_tells_everything_and_never_redirects(reader: Reader) -> None:
    sha = reader.push({"config.json": b"{}", "model.safetensors": reader.large(WEIGHTS)})
    small = reader.client().head("/ann/one/resolve/main/config.json")
    large = reader.client().head(f"/ann/one/resolve/{sha}/model.safetensors")
    blob = reader.gate.git("rev-parse", f"{sha}:config.json")
    assert (small.status_code, small.headers["etag"], small.headers["content-length"]) == (200, f'"{blob}"', "2")
    assert "x-linked-etag" not in small.headers
    assert (large.status_code, large.headers["etag"]) == (200, f'"{OID}"')
    assert (large.headers["x-linked-etag"], large.headers["x-linked-size"]) == (f'"{OID}"', str(len(WEIGHTS)))
    assert large.headers["content-length"] == str(len(WEIGHTS))
    for answer in (small, large):
        assert answer.headers["x-repo-commit"] == sha
        assert answer.headers["accept-ranges"] == "bytes"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-security-policy"] == "sandbox; default-src 'none'"
        assert "location" not in answer.headers
        assert "x-xet-hash" not in answer.headers
        assert answer.content == b""


def test_get_gives_the_bytes_and_the_same_headers(reader: Reader) -> None:
    reader.push({"config.json": b"{}", "big.txt": b"x" * 200_000, "model.safetensors": reader.large(WEIGHTS)})
    for path, data in (("config.json", b"{}"), ("big.txt", b"x" * 200_000), ("model.safetensors", WEIGHTS)):
        head = reader.client().head(f"/ann/one/resolve/main/{path}")
        for _ in range(2):
            got = reader.client().get(f"/ann/one/resolve/main/{path}")
            assert (got.status_code, got.content) == (200, data)
            assert dict(got.headers) == dict(head.headers)


def test_a_large_file_of_git_is_sent_in_pieces_like_any_object(lone: Reader) -> None:
    data = b"0123456789" * 50_000
    sha = lone.push({"big.txt": data})
    blob = lone.gate.git("rev-parse", f"{sha}:big.txt")
    url = f"/ann/one/resolve/{sha}/big.txt"
    head, got = lone.client().head(url), lone.client().get(url)
    assert (got.status_code, got.content, got.headers["etag"]) == (200, data, f'"{blob}"')
    assert dict(got.headers) == dict(head.headers)
    assert lone.gate.store.stat(f"derived/{blob}/blob").size == len(data)
    part = lone.client().get(url, headers={"range": "bytes=-4"})
    assert (part.status_code, part.content) == (206, b"6789")
    assert lone.client().get(url, headers={"range": "bytes=500000-"}).status_code == 416
    lone.gate.store.delete(f"derived/{blob}/blob")
    assert lone.client().get(url).content == data


def test_a_pinned_commit_may_be_kept_for_ever_and_a_branch_may_not(lone: Reader) -> None:
    sha = lone.push({"a.txt": b"a", "b": lone.large(WEIGHTS)})
    for path in ("a.txt", "b"):
        kept = {name: lone.client().get(f"/ann/one/resolve/{name}/{path}") for name in (sha, sha[:9], "main", "HEAD")}
        caching = {name: answer.headers["cache-control"] for name, answer in kept.items()}
        assert caching.pop(sha) == "private, max-age=31536000, immutable"
        assert set(caching.values()) == {"no-cache"}


def test_raw_gives_what_git_holds(lone: Reader) -> None:
    pointer = lone.large(WEIGHTS)
    sha = lone.push({"m.bin": pointer})
    got = lone.client().get("/ann/one/raw/main/m.bin")
    assert (got.content, got.headers["etag"]) == (pointer, f'"{lone.gate.git("rev-parse", f"{sha}:m.bin")}"')
    assert "x-linked-etag" not in got.headers
    assert lone.client().head("/ann/one/raw/main/m.bin").headers["content-length"] == str(len(pointer))


@pytest.mark.parametrize(
    ("asked", "status", "part"),
    [
        ("bytes=0-0", 206, slice(0, 1)),
        ("bytes=5-", 206, slice(5, None)),
        ("bytes=-3", 206, slice(-3, None)),
        ("bytes=2-1000000000", 206, slice(2, None)),
        ("bytes=0-1,4-5", 200, slice(None)),
        ("lines=1-2", 200, slice(None)),
    ],
)
def test_one_range_is_served_and_more_are_the_whole(lone: Reader, asked: str, status: int, part: slice) -> None:
    text = b"0123456789" * 10
    lone.push({"a.txt": text, "b.bin": lone.large(WEIGHTS)})
    for path, data in (("a.txt", text), ("b.bin", WEIGHTS)):
        got = lone.client().get(f"/ann/one/resolve/main/{path}", headers={"range": asked})
        assert (got.status_code, got.content) == (status, data[part])
        if status == 206:
            start = range(len(data))[part].start
            assert got.headers["content-range"] == f"bytes {start}-{start + len(got.content) - 1}/{len(data)}"
        assert got.headers["content-length"] == str(len(got.content))


def test_a_range_outside_the_file_is_416_with_its_size(lone: Reader) -> None:
    lone.push({"a.txt": b"12345", "b.bin": lone.large(WEIGHTS)})
    for path, size in (("a.txt", 5), ("b.bin", len(WEIGHTS))):
        got = lone.client().get(f"/ann/one/resolve/main/{path}", headers={"range": f"bytes={size}-"})
        assert (got.status_code, got.headers["content-range"], got.content) == (416, f"bytes */{size}", b"")


def test_conditions_compare_the_tag(lone: Reader) -> None:
    lone.push({"a.txt": b"12345", "b.bin": lone.large(WEIGHTS)})
    for path in ("a.txt", "b.bin"):
        url = f"/ann/one/resolve/main/{path}"
        etag = lone.client().head(url).headers["etag"]
        for condition in (etag, f"W/{etag}", f'"x", {etag}', "*"):
            for method in ("GET", "HEAD"):
                got = lone.client().request(method, url, headers={"if-none-match": condition})
                assert (got.status_code, got.content, got.headers["etag"]) == (304, b"", etag)
        assert lone.client().get(url, headers={"if-none-match": '"x"'}).status_code == 200
        for condition, status in ((etag, 206), ('"x"', 200)):
            got = lone.client().get(url, headers={"range": "bytes=0-0", "if-range": condition})
            assert got.status_code == status


def test_absence_is_told_with_the_commit_so_that_it_can_be_remembered(lone: Reader) -> None:
    sha = lone.push({"d/a.txt": b"a"})
    for path in ("nope", "d", "d/", "d/a.txt/x", ""):
        for method in ("GET", "HEAD"):
            got = lone.client().request(method, f"/ann/one/resolve/main/{path}")
            assert (got.status_code, got.headers["x-error-code"]) == (404, "EntryNotFound"), path
            assert got.headers["x-repo-commit"] == sha
    for revision in ("nope", "1" * 40, "refs%2Fpr%2F1"):
        got = lone.client().get(f"/ann/one/resolve/{revision}/d/a.txt")
        assert (got.status_code, got.headers["x-error-code"]) == (404, "RevisionNotFound")


def test_revisions_with_slashes_come_quoted_or_bare(lone: Reader) -> None:
    first = lone.push({"a/b.txt": b"main"})
    lone.push({"a/b.txt": b"dev"}, on=first, ref=b"refs/heads/dev/x")
    lone.push({"a/b.txt": b"pr"}, on=first, ref=b"refs/pr/1")
    for revpath, data in (
        ("dev%2Fx/a/b.txt", b"dev"),
        ("dev%2fx/a%2Fb.txt", b"dev"),
        ("refs%2Fpr%2F1/a/b.txt", b"pr"),
        ("refs/pr/1/a/b.txt", b"pr"),
        ("refs/heads/dev/x/a/b.txt", b"dev"),
        ("refs%2Fheads%2Fmain/a/b.txt", b"main"),
    ):
        assert lone.client().get(f"/ann/one/resolve/{revpath}").content == data, revpath


@pytest.mark.parametrize("name", ["é ☃.txt", "a%2Fb.txt", "a#b&c=d.txt", "100% real.txt", "a;b+c'd.md"])
def test_any_file_name_travels(lone: Reader, name: str) -> None:
    lone.push({f"d/{name}": b"here"})
    got = lone.client().get(f"/ann/one/resolve/main/d/{quote(name)}")
    assert (got.status_code, got.content) == (200, b"here")
    assert f"filename*=UTF-8''{quote(name, safe='')}" in got.headers["content-disposition"]


def test_a_browser_shows_nothing_that_can_act(lone: Reader) -> None:
    names = {
        "a.html": "attachment",
        "a.svg": "attachment",
        "a.xml": "attachment",
        "a.pdf": "attachment",
        "a.js": "attachment",
        "model.bin": "attachment",
        "noending": "attachment",
        "a.png": "inline",
        "a.txt": "inline",
        "config.json": "inline",
        "README.md": "inline",
    }
    lone.push(dict.fromkeys(names, b"<script>"))
    for name, how in names.items():
        got = lone.client().head(f"/ann/one/resolve/main/{name}")
        assert got.headers["content-disposition"].startswith(how + ";"), name
        assert "html" not in got.headers["content-type"]
        assert "svg" not in got.headers["content-type"]
        download = lone.client().head(f"/ann/one/resolve/main/{name}?download=true")
        assert download.headers["content-disposition"].startswith("attachment;")


def test_access_is_decided_before_anything_kept_is_given(reader: Reader, database: Database) -> None:
    sha = reader.push({"a.txt": b"secret"})
    url = f"/ann/one/resolve/{sha}/a.txt"
    assert reader.client().get(url).status_code == 200
    with database.write() as connection:
        connection.execute(sa.update(repos).values(visibility="private"))
    assert reader.client("ann").get(url).content == b"secret"
    stranger, nobody = reader.client("bob").get(url), reader.client().get(url)
    assert (stranger.status_code, stranger.headers["x-error-code"]) == (404, "RepoNotFound")
    assert (nobody.status_code, nobody.headers["x-error-code"]) == (401, "RepoNotFound")
    for name in ("missing", "one"):
        answer = reader.client("bob").get(f"/ann/{name}/resolve/main/a.txt")
        assert b"secret" not in answer.content
        assert "x-repo-commit" not in answer.headers


def test_a_gated_repo_gives_files_to_its_writers_only(lone: Reader) -> None:
    lone.push({"a.txt": b"a"})
    with lone.database.write() as connection:
        connection.execute(sa.update(repos).values(gated="manual"))
    refused = lone.client("bob").get("/ann/one/resolve/main/a.txt")
    assert (refused.status_code, refused.headers["x-error-code"]) == (403, "GatedRepo")
    assert refused.json()["error"] == (
        "Access to model ann/one is restricted and you are not in the authorized list. "
        "Visit http://hub.test/ann/one to ask for access."
    )
    assert lone.client("ann").get("/ann/one/resolve/main/a.txt").status_code == 200


def test_other_spellings_and_old_names_answer_directly(lone: Reader) -> None:
    lone.push({"a.txt": b"a"})
    with lone.database.write() as connection:
        connection.execute(sa.insert(moves).values(type="model", old_fold="ann/before", repo_id=1))
    for name in ("ANN/One", "ann/before", "Ann/Before"):
        assert lone.client().get(f"/{name}/resolve/main/a.txt").status_code == 200


def test_datasets_and_spaces_have_their_own_addresses(lone: Reader) -> None:
    lone.push({"a.txt": b"model"})
    people.add_repo(lone.database, "ann", "one", kind="dataset")
    for prefix, status in (("", 200), ("datasets/", 404), ("spaces/", 401)):
        assert lone.client().get(f"/{prefix}ann/one/resolve/main/a.txt").status_code == status


def test_bytes_of_another_repo_are_not_served(lone: Reader) -> None:
    pointer = lone.large(WEIGHTS)
    lone.push({"m.bin": pointer})
    with lone.database.write() as connection:
        connection.execute(sa.text("DELETE FROM lfs_links"))
    got = lone.client().get("/ann/one/resolve/main/m.bin")
    assert (got.status_code, got.headers["x-error-code"]) == (404, "EntryNotFound")


def test_a_bad_address_is_refused_in_words(lone: Reader) -> None:
    lone.push({"a.txt": b"a"})
    for path, status in (("main/%FF", 422), ("%FF/a.txt", 422), ("main%00/a.txt", 404), ("main/a.txt%00", 404)):
        got = lone.client().get(f"/ann/one/resolve/{path}")
        assert (got.status_code, bool(got.json()["error"])) == (status, True), path


def test_one_statement_decides_access_and_revision(lone: Reader) -> None:
    sha = lone.push({"a.txt": b"a"})
    client, statements = lone.client("ann"), []
    for _ in _twice(f"/ann/one/resolve/{sha}/a.txt", "/ann/one/resolve/main/a.txt", client):
        pass

    # Counted by the driver: the look-up of every request goes past SQLAlchemy's own events.
    @sa.event.listens_for(lone.database.engine, "checkout")
    def count(connection: sqlite3.Connection, record: object, proxy: object) -> None:
        connection.set_trace_callback(lambda text: None if text.startswith("BEGIN") else statements.append(text))

    answers = list(_twice(f"/ann/one/resolve/{sha}/a.txt", "/ann/one/resolve/main/a.txt", client))
    assert answers == [200] * 4
    assert len(statements) == 4


def _twice(pinned: str, named: str, client: object) -> Iterator[int]:
    for url in (pinned, named):
        for method in ("HEAD", "GET"):
            yield client.request(method, url).status_code  # type: ignore[attr-defined]
