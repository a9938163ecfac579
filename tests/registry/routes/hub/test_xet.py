"""Who may have which Xet token, and what the Hub's answers say of files that can be had by their chunks."""

from __future__ import annotations

import hashlib
import re
import time
from pathlib import Path

import pytest
import sqlalchemy as sa
from httpx import Response

from lfs.xet import hashes
from lfs.xet.index import Leave, Part, packed
from registry.db import Database, now
from registry.tables.identity import namespaces
from registry.tables.repos import moves, repos
from registry.tables.xet import xet_domains, xet_file_xorbs, xet_files, xet_links, xet_xorb_domains, xet_xorbs
from tests.registry import people
from tests.registry.routes.hub.reader import Reader

WEIGHTS = bytes(range(256)) * 2_000
OID = hashlib.sha256(WEIGHTS).hexdigest()
HASH, XORB = bytes(range(32)), bytes(range(1, 33))
TOKEN = "/api/models/ann/one/xet-{}-token/{}"
INFO = {"accept": "application/vnd.xet-fileinfo+json, */*", "range": "bytes=0-0"}


@pytest.fixture
def reader(database: Database, tmp_path: Path) -> Reader:
    return Reader(database, tmp_path, xet=True)


@pytest.fixture
def lone(sqlite_database: Database, tmp_path: Path) -> Reader:
    return Reader(sqlite_database, tmp_path, xet=True)


def chunked(reader: Reader, state: str = "proven") -> None:
    """Note that `ann/one` has the weights by their chunks as well."""
    moment = now()
    with reader.database.write() as connection:
        row = {"hash": XORB, "key": "xet/xorbs/a", "table_key": "xet/tables/a", "size": 1, "raw_size": 1, "chunks": 1}
        times = dict.fromkeys(("promised_until", "verified_at", "scrubbed_at"), moment)
        connection.execute(sa.insert(xet_xorbs).values(row | times | {"state": "live"}))
        terms = packed([Part(XORB, 0, 1, 0)])
        file = {"hash": HASH, "size": len(WEIGHTS), "terms": terms, "created_at": moment}
        connection.execute(sa.insert(xet_files).values(file))
        connection.execute(sa.insert(xet_file_xorbs).values(file=HASH, xorb=XORB))
        link = {"repo_id": 1, "file": HASH, "sha256": OID, "size": len(WEIGHTS), "state": state, "created_at": moment}
        connection.execute(sa.insert(xet_links).values(link))


def turn(reader: Reader, table: sa.Table, **values: object) -> None:
    with reader.database.write() as connection:
        connection.execute(sa.update(table).values(values))


def test_a_token_comes_in_json_and_in_headers_with_the_address_of_its_domain(reader: Reader) -> None:
    sha = reader.push({"a.txt": b"a"})
    for scope, revision in (("read", "main"), ("read", sha), ("read", "None"), ("write", "main"), ("write", "None")):
        answer = reader.client("ann").get(TOKEN.format(scope, revision))
        assert answer.status_code == 200, answer.text
        found = answer.json()
        assert (answer.headers["x-xet-cas-url"], answer.headers["x-xet-access-token"]) == (
            found["casUrl"],
            found["accessToken"],
        )
        assert answer.headers["x-xet-token-expiration"] == str(found["exp"])
        assert answer.headers["cache-control"] == "no-store"
        assert 600 < found["exp"] - time.time() <= 900
        leave = reader.xet_tokens.read(found["accessToken"])
        assert leave == Leave(1, 1, leave.domain, scope, found["exp"], token_id=1)
        assert found["casUrl"] == f"http://hub.test/xet/{leave.domain}/g0"


def test_readers_get_leave_to_read_and_writers_to_write(lone: Reader) -> None:
    lone.push({"a.txt": b"a"})
    assert lone.client("bob").get(TOKEN.format("read", "main")).status_code == 200
    nobody = lone.client().get(TOKEN.format("read", "main"))
    assert lone.xet_tokens.read(nobody.json()["accessToken"]).actor_id == 0
    for name, status in (("bob", 403), (None, 401)):
        refused = lone.client(name).get(TOKEN.format("write", "main"))
        assert refused.status_code == status
        assert "x-xet-access-token" not in refused.headers
    lone.tokens["ann"] = people.add_token(lone.database, 1, role="read")
    assert lone.client("ann").get(TOKEN.format("read", "main")).status_code == 200
    assert lone.client("ann").get(TOKEN.format("write", "main")).status_code == 403


def test_a_private_repo_looks_absent_and_a_gated_one_says_so(lone: Reader) -> None:
    lone.push({"a.txt": b"a"})
    public = lone.client("ann").get(TOKEN.format("read", "main")).json()["casUrl"]
    turn(lone, repos, visibility="private")
    for scope in ("read", "write"):
        hidden = lone.client("bob").get(TOKEN.format(scope, "main"))
        absent = lone.client("bob").get(TOKEN.format(scope, "main").replace("ann/one", "ann/none"))
        assert (hidden.status_code, hidden.headers["x-error-code"]) == (404, "RepoNotFound")
        assert hidden.text.replace("ann/one", "ann/none") == absent.text
        nobody = lone.client().get(TOKEN.format(scope, "main"))
        assert (nobody.status_code, nobody.headers["x-error-code"]) == (401, "RepoNotFound")
    assert lone.client("ann").get(TOKEN.format("read", "main")).json()["casUrl"] != public
    turn(lone, repos, visibility="public", gated="manual")
    gated = lone.client("bob").get(TOKEN.format("read", "main"))
    assert (gated.status_code, gated.headers["x-error-code"]) == (403, "GatedRepo")
    assert lone.client("ann").get(TOKEN.format("read", "main")).status_code == 200


def test_a_revision_to_read_must_exist_and_one_to_write_may_be_new(lone: Reader) -> None:
    first = lone.push({"a.txt": b"a"})
    lone.push({"a.txt": b"b"}, on=first, ref=b"refs/pr/1")
    for revision in ("refs%2Fpr%2F1", "refs/pr/1", first[:9]):
        assert lone.client().get(TOKEN.format("read", revision)).status_code == 200, revision
    for revision in ("nowhere", "1" * 40):
        absent = lone.client("ann").get(TOKEN.format("read", revision))
        assert (absent.status_code, absent.headers["x-error-code"]) == (404, "RevisionNotFound")
        assert lone.client("ann").get(TOKEN.format("write", revision)).status_code == 200


def test_a_pull_request_is_refused_in_the_words_of_a_commit(lone: Reader) -> None:
    refused = lone.client("bob").get(TOKEN.format("write", "None") + "?create_pr=1")
    assert refused.status_code == 501
    assert refused.json()["error"] == "This server has no pull requests yet; commit to a branch instead."


def test_an_old_name_leads_to_the_same_chunks(lone: Reader) -> None:
    lone.push({"m.bin": lone.large(WEIGHTS)})
    chunked(lone)
    before = lone.client().get(TOKEN.format("read", "main")).json()["casUrl"]
    with lone.database.write() as connection:
        connection.execute(sa.update(repos).values(name="two", name_fold="two"))
        connection.execute(sa.insert(moves).values(type="model", old_fold="ann/one", repo_id=1))
    assert lone.client().get(TOKEN.format("read", "main")).json()["casUrl"] == before
    link = lone.client().head("/ann/one/resolve/main/m.bin").headers["link"]
    assert "/api/models/ann/two/xet-read-token/" in link


def test_a_new_generation_has_a_new_address(lone: Reader) -> None:
    lone.push({"a.txt": b"a"})
    before = lone.client().get(TOKEN.format("read", "main")).json()["casUrl"]
    turn(lone, xet_domains, generation=3)
    after = lone.client().get(TOKEN.format("read", "main")).json()["casUrl"]
    assert (before, after) == (before.removesuffix("g0") + "g0", before.removesuffix("g0") + "g3")


def test_a_file_that_can_be_had_by_chunks_says_how(reader: Reader) -> None:
    sha = reader.push({"a.txt": b"a", "m.bin": reader.large(WEIGHTS)})
    url = "/ann/one/resolve/main/m.bin"
    assert "x-xet-hash" not in reader.client().head(url).headers
    chunked(reader)
    address = reader.client().get(TOKEN.format("read", "main")).json()["casUrl"]
    for method, more in (("HEAD", {}), ("GET", {}), ("GET", {"range": "bytes=0-0"})):
        answer = reader.client().request(method, url, headers=more)
        assert answer.status_code == (206 if more else 200)
        assert answer.headers["x-xet-hash"] == hashes.text(HASH)
        assert answer.headers["x-linked-etag"] == f'"{OID}"'
        assert answer.headers["x-linked-size"] == str(len(WEIGHTS))
        assert answer.headers["x-repo-commit"] == sha
        links = dict(re.findall(r'<([^>]+)>; rel="([^"]+)"', answer.headers["link"]))
        assert {rel: link for link, rel in links.items()} == {
            "xet-auth": f"http://hub.test/api/models/ann/one/xet-read-token/{sha}",
            "xet-reconstruction-info": f"{address}/v1/reconstructions/{hashes.text(HASH)}",
        }
        assert "location" not in answer.headers
    for other in ("resolve/main/a.txt", "raw/main/m.bin"):
        assert "x-xet-hash" not in reader.client().head(f"/ann/one/{other}").headers


@pytest.mark.parametrize("state", ["declared", "refuted"])
def test_what_is_not_proven_is_not_offered(lone: Reader, state: str) -> None:
    lone.push({"m.bin": lone.large(WEIGHTS)})
    chunked(lone, state)
    assert "x-xet-hash" not in lone.client().head("/ann/one/resolve/main/m.bin").headers
    assert all("xetHash" not in item for item in lone.client().get("/api/models/ann/one/tree/main").json())


def test_what_changes_is_seen_at_once_though_the_commit_is_pinned(lone: Reader) -> None:
    sha = lone.push({"m.bin": lone.large(WEIGHTS)})
    resolve, tree = f"/ann/one/resolve/{sha}/m.bin", f"/api/models/ann/one/tree/{sha}"

    def offered() -> tuple[bool, bool]:
        head = "x-xet-hash" in lone.client().head(resolve).headers
        return head, "xetHash" in lone.client().get(tree).json()[0]

    assert offered() == (False, False)
    chunked(lone, "declared")
    assert offered() == (False, False)
    turn(lone, xet_links, state="proven")
    assert offered() == (True, True)
    turn(lone, xet_xorbs, state="quarantined")
    assert offered() == (False, False)


def test_javascript_may_ask_for_the_way_in_place_of_the_first_byte(lone: Reader) -> None:
    sha = lone.push({"a.txt": b"abc", "m.bin": lone.large(WEIGHTS)})
    plain = lone.client().get("/ann/one/resolve/main/m.bin", headers=INFO)
    assert (plain.status_code, plain.content) == (206, WEIGHTS[:1])
    chunked(lone)
    told = lone.client().get("/ann/one/resolve/main/m.bin", headers=INFO)
    assert (told.status_code, told.headers["content-type"]) == (200, "application/vnd.xet-fileinfo+json")
    assert told.json() == {
        "hash": hashes.text(HASH),
        "refreshUrl": f"http://hub.test/api/models/ann/one/xet-read-token/{sha}",
        "casUrl": lone.client().get(TOKEN.format("read", "main")).json()["casUrl"],
        "size": len(WEIGHTS),
        "etag": f'"{OID}"',
    }
    assert told.headers["content-length"] == str(len(told.content))
    assert "xet-auth" in told.headers["link"]
    small = lone.client().get("/ann/one/resolve/main/a.txt", headers=INFO)
    assert (small.status_code, small.content) == (206, b"a")
    other = lone.client().get("/ann/one/resolve/main/m.bin", headers=INFO | {"range": "bytes=0-1"})
    assert (other.status_code, other.content) == (206, WEIGHTS[:2])


def test_listings_name_the_hash_of_each_file_that_has_one(reader: Reader) -> None:
    other = reader.large(b"other" * 1000)
    reader.push({"a.txt": b"a", "d/m.bin": reader.large(WEIGHTS), "d/é.bin": reader.large(WEIGHTS), "z.bin": other})
    tree = "/api/models/ann/one/tree/main?recursive=true"
    before = reader.client().get(tree).json()
    chunked(reader)
    for expand in ("", "&expand=true"):
        found = reader.client().get(tree + expand).json()
        hashed = {item["path"]: item.pop("xetHash") for item in found if "xetHash" in item}
        assert hashed == dict.fromkeys(("d/m.bin", "d/é.bin"), hashes.text(HASH))
        assert [{name: item[name] for name in item if name != "lastCommit"} for item in found] == before
    pages = [reader.client().get(f"{tree}&limit=2").json(), reader.client().get(f"{tree}&limit=4").json()]
    assert [sum("xetHash" in item for item in page) for page in pages] == [0, 2]
    named = reader.client().post("/api/models/ann/one/paths-info/main", json={"paths": ["d/m.bin", "z.bin", "no"]})
    assert [item.get("xetHash") for item in named.json()] == [hashes.text(HASH), None]
    empty = reader.client().post("/api/models/ann/one/paths-info/main", json={"paths": []})
    assert empty.json() == []


def copied(reader: Reader, name: str | None, target: str, *files: tuple[str, str]) -> Response:
    wanted = [{"xetHash": hash, "sha256": oid, "filename": "m.bin"} for hash, oid in files]
    body = {"target": {"type": "model", "name": target}, "files": wanted}
    return reader.client(name).post("/api/models/ann/one/lfs-files/duplicate", json=body)


def test_a_proven_file_is_given_to_another_repo_with_its_chunks(reader: Reader) -> None:
    reader.large(WEIGHTS)
    chunked(reader)
    wanted = (hashes.text(HASH), OID)
    for name, visibility in (("near", "public"), ("far", "private")):
        repo_id = people.add_repo(reader.database, "ann", name, visibility=visibility)
        for _ in range(2):
            answer = copied(reader, "ann", f"ann/{name}", wanted)
            assert (answer.status_code, answer.json()) == (200, {"failed": []}), answer.text
        assert reader.gate.links.held(repo_id, [OID]) == {OID: len(WEIGHTS)}
        assert reader.cas.hashes(repo_id, [OID]) == {OID: wanted[0]}
        with reader.database.read() as connection:
            sizes = connection.execute(sa.select(repos.c.lfs_bytes).where(repos.c.id == repo_id)).scalars().all()
        assert sizes == [len(WEIGHTS)]
    with reader.database.read() as connection:
        domains = connection.execute(sa.select(xet_xorb_domains.c.domain_id)).scalars().all()
    assert len(domains) == 2, "one for what is public, one for what is not"


def test_what_cannot_be_copied_is_listed_and_the_rest_is_copied(lone: Reader) -> None:
    lone.large(WEIGHTS)
    chunked(lone)
    repo_id = people.add_repo(lone.database, "ann", "two")
    other = "ab" * 32
    for files in ([(hashes.text(XORB), OID)], [(hashes.text(HASH), other), (hashes.text(HASH), OID)]):
        answer = copied(lone, "ann", "ann/two", *files)
        (failed,) = answer.json()["failed"]
        assert (answer.status_code, failed["sha256"]) == (200, files[0][1])
        assert "no such file" in failed["error"]
    assert lone.gate.links.held(repo_id, [OID, other]) == {OID: len(WEIGHTS)}
    turn(lone, xet_links, state="declared")
    third = people.add_repo(lone.database, "ann", "three")
    assert len(copied(lone, "ann", "ann/three", (hashes.text(HASH), OID)).json()["failed"]) == 1
    assert lone.gate.links.held(third, [OID]) == {}


def test_a_copy_takes_a_reader_here_a_writer_there_and_room(lone: Reader) -> None:
    lone.large(WEIGHTS)
    chunked(lone)
    wanted = (hashes.text(HASH), OID)
    people.add_repo(lone.database, "ann", "two")
    mine = people.add_repo(lone.database, "bob", "mine")
    assert copied(lone, "bob", "ann/two", wanted).status_code == 403
    assert copied(lone, None, "ann/two", wanted).status_code == 401
    assert copied(lone, "bob", "bob/nowhere", wanted).status_code == 404
    turn(lone, repos, gated="auto")
    assert copied(lone, "bob", "bob/mine", wanted).headers["x-error-code"] == "GatedRepo"
    turn(lone, repos, gated="")
    turn(lone, namespaces, quota=len(WEIGHTS) - 1)
    full = copied(lone, "bob", "bob/mine", wanted)
    assert full.status_code == 403
    assert "quota" in full.json()["error"]
    turn(lone, namespaces, quota=len(WEIGHTS))
    assert copied(lone, "bob", "bob/mine", wanted).json() == {"failed": []}
    assert lone.gate.links.held(mine, [OID]) == {OID: len(WEIGHTS)}


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"target": "ann/two", "files": []},
        {"target": {"name": "ann/two"}, "files": {}},
        {"target": {"name": "ann/two"}, "files": ["x"]},
        {"target": {"name": "ann/two"}, "files": [{"xetHash": "x", "sha256": OID}]},
        {"target": {"name": "ann/two"}, "files": [{"xetHash": "0" * 64, "sha256": "x"}]},
        {"target": {"name": "ann/two", "type": "thing"}, "files": []},
    ],
)
def test_a_misshapen_copy_is_a_bad_request(lone: Reader, body: dict[str, object]) -> None:
    people.add_repo(lone.database, "ann", "two")
    assert lone.client("ann").post("/api/models/ann/one/lfs-files/duplicate", json=body).status_code == 400


def test_switched_off_it_says_what_writers_do_and_offers_nothing(sqlite_database: Database, tmp_path: Path) -> None:
    off = Reader(sqlite_database, tmp_path)
    off.push({"m.bin": off.large(WEIGHTS)})
    chunked(off)
    for scope in ("read", "write"):
        refused = off.client("ann").get(TOKEN.format(scope, "main"))
        assert refused.status_code == 404
        assert "set HF_HUB_DISABLE_XET=1" in refused.headers["x-error-message"]
        assert "x-error-code" not in refused.headers
    assert "x-xet-hash" not in off.client().head("/ann/one/resolve/main/m.bin").headers
    assert "xetHash" not in off.client().get("/api/models/ann/one/tree/main").text
    assert off.client().get("/api/models/ann/one?expand=xetEnabled").json()["xetEnabled"] is False


def test_former_clients_ask_of_a_repo_whether_it_takes_files_by_xet(lone: Reader) -> None:
    """huggingface_hub 0.30 to 0.35 does before each upload, and gave up when the name was refused."""
    sha = lone.push({"a.txt": b"abc"})
    for at in ("", f"/revision/{sha}"):
        found = lone.client().get(f"/api/models/ann/one{at}?expand=xetEnabled").json()
        assert found == {"_id": found["_id"], "id": "ann/one", "modelId": "ann/one", "xetEnabled": True}
