"""Info, refs and commits are told in the Hub's shapes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from registry.db import Database
from registry.tables.repos import repos
from tests.registry import people
from tests.registry.routes.hub.reader import Reader

CARD = b"---\nlicense: mit\nbase_model: org/base\nmodel-index:\n- name: x\n---\n# hi\n"
CONFIG = json.dumps({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}).encode()
HEAD = json.dumps({"t": {"dtype": "F16", "shape": [8], "data_offsets": [0, 16]}}).encode()
WEIGHTS = len(HEAD).to_bytes(8, "little") + HEAD + bytes(16)
FILES = {"README.md": CARD, "config.json": CONFIG}


@pytest.fixture
def reader(sqlite_database: Database, tmp_path: Path) -> Reader:
    return Reader(sqlite_database, tmp_path)


def _info(reader: Reader, rest: str = "", name: str | None = None, kind: str = "models") -> dict[str, Any]:
    answer = reader.client(name).get(f"/api/{kind}/ann/one{rest}")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_info_has_everything_that_clients_read(reader: Reader) -> None:
    sha = reader.push({**FILES, "model.safetensors": reader.large(WEIGHTS)})
    found = _info(reader)
    assert found == {
        "_id": "000000000000000000000001",
        "id": "ann/one",
        "modelId": "ann/one",
        "author": "ann",
        "sha": sha,
        "lastModified": found["lastModified"],
        "private": False,
        "gated": False,
        "disabled": False,
        "createdAt": "2026-01-02T03:04:05.000Z",
        "downloads": 0,
        "likes": 0,
        "tags": ["transformers", "safetensors", "llama", "text-generation", "base_model:org/base", "license:mit"],
        "usedStorage": found["usedStorage"],
        "pipeline_tag": "text-generation",
        "library_name": "transformers",
        "cardData": {"license": "mit", "base_model": "org/base", "model-index": [{"name": "x"}]},
        "config": {"architectures": ["LlamaForCausalLM"], "model_type": "llama"},
        "transformersInfo": {"auto_model": "AutoModelForCausalLM", "pipeline_tag": "text-generation"},
        "safetensors": {"parameters": {"F16": 8}, "total": 8},
        "model-index": [{"name": "x"}],
        "baseModels": {"relation": "finetune", "models": [{"id": "org/base"}]},
        "spaces": [],
        "siblings": [{"rfilename": "README.md"}, {"rfilename": "config.json"}, {"rfilename": "model.safetensors"}],
    }
    assert found["usedStorage"] >= len(WEIGHTS)


def test_blobs_adds_sizes_and_hashes_to_siblings(reader: Reader) -> None:
    pointer = reader.large(WEIGHTS)
    sha = reader.push({"a.txt": b"abc", "d/m.bin": pointer})
    oid = {path: reader.gate.git("rev-parse", f"{sha}:{path}") for path in ("a.txt", "d/m.bin")}
    lfs = {"sha256": hashlib.sha256(WEIGHTS).hexdigest(), "size": len(WEIGHTS), "pointerSize": len(pointer)}
    assert _info(reader, "?blobs=true")["siblings"] == [
        {"rfilename": "a.txt", "size": 3, "blobId": oid["a.txt"]},
        {"rfilename": "d/m.bin", "size": len(WEIGHTS), "blobId": oid["d/m.bin"], "lfs": lfs},
    ]


def test_a_revision_has_its_own_sha_card_and_files(reader: Reader) -> None:
    first = reader.push(FILES)
    second = reader.push({"new.txt": b"x"}, on=first)
    for name in (first, first[:8]):
        found = _info(reader, f"/revision/{name}")
        assert (found["sha"], found["pipeline_tag"], len(found["siblings"])) == (first, "text-generation", 2)
    for name in ("main", "refs%2Fheads%2Fmain", "refs/heads/main", "HEAD"):
        found = _info(reader, f"/revision/{name}")
        assert (found["sha"], found["tags"]) == (second, [])
    missing = reader.client().get("/api/models/ann/one/revision/nope")
    assert (missing.status_code, missing.headers["x-error-code"]) == (404, "RevisionNotFound")


def test_expand_gives_the_named_properties_only(reader: Reader) -> None:
    sha = reader.push(FILES)
    found = _info(reader, "?expand=sha&expand=tags&expand=gguf")
    assert set(found) == {"_id", "id", "modelId", "sha", "tags"}
    assert _info(reader, "?expand=siblings,sha") == {
        "_id": "000000000000000000000001",
        "id": "ann/one",
        "modelId": "ann/one",
        "sha": sha,
        "siblings": [{"rfilename": "README.md"}, {"rfilename": "config.json"}],
    }
    refused = reader.client().get("/api/models/ann/one?expand=nonsense")
    assert refused.status_code == 400
    assert "nonsense" in refused.json()["error"]


def test_a_repo_without_commits_has_info_and_no_sha(reader: Reader) -> None:
    found = _info(reader)
    assert ("sha" in found, found["siblings"], found["tags"]) == (False, [], [])


def test_private_and_gated_show_as_the_hub_writes_them(reader: Reader) -> None:
    reader.push(FILES)
    with reader.database.write() as connection:
        connection.execute(sa.update(repos).values(gated="manual"))
    assert (_info(reader)["gated"], _info(reader)["private"]) == ("manual", False)
    with reader.database.write() as connection:
        connection.execute(sa.update(repos).values(visibility="private"))
    assert _info(reader, name="ann")["private"] is True
    for name, status in (("bob", 404), (None, 401)):
        answer = reader.client(name).get("/api/models/ann/one")
        assert (answer.status_code, answer.headers["x-error-code"]) == (status, "RepoNotFound")


def test_datasets_and_spaces_have_their_own_properties(reader: Reader) -> None:
    people.add_repo(reader.database, "ann", "one", kind="dataset")
    people.add_repo(reader.database, "ann", "one", kind="space")
    data, space = _info(reader, kind="datasets"), _info(reader, kind="spaces")
    assert {"mainSize", "description"} <= set(data)
    assert "modelId" not in data
    assert (space["subdomain"], space["runtime"]) == ("ann-one", {"stage": "NO_APP_FILE", "hardware": {}})


def test_security_status_claims_nothing(reader: Reader) -> None:
    assert _info(reader, "?securityStatus=true")["securityRepoStatus"] == {"scansDone": False, "filesWithIssues": []}


def test_refs_come_in_four_lists(reader: Reader) -> None:
    first = reader.push(FILES)
    second = reader.push({"b": b"2"}, on=first, ref=b"refs/heads/dev/x")
    reader.gate.git("tag", "-a", "-m", "v1", "v1", first)
    tag = reader.gate.git("rev-parse", "v1")
    assert reader.gate.push((b"refs/tags/v1", "0" * 40, tag)).error is None
    reader.push({"c": b"3"}, on=first, ref=b"refs/pr/1")
    found = _info(reader, "/refs")
    assert found == {
        "branches": [
            {"name": "dev/x", "ref": "refs/heads/dev/x", "targetCommit": second},
            {"name": "main", "ref": "refs/heads/main", "targetCommit": first},
        ],
        "tags": [{"name": "v1", "ref": "refs/tags/v1", "targetCommit": first}],
        "converts": [],
        "pullRequests": [],
    }
    assert [pull["name"] for pull in _info(reader, "/refs?include_prs=1")["pullRequests"]] == ["1"]


def test_commits_come_newest_first_in_counted_pages(reader: Reader) -> None:
    shas = [reader.push({"a": b"0"}, message="<one> & only\n\nbody\nmore")]
    shas += [reader.push({"a": b"%d" % n}, on=shas[-1], message=f"change {n}") for n in (1,)]
    shas += [reader.push({"a": b"2"}, on=shas[-1])]
    client, url = reader.client(), "/api/models/ann/one/commits/main?limit=2&expand%5B%5D=formatted"
    first = client.get(url)
    link = first.headers["link"][1:].partition(">")[0]
    second = client.get(link)
    assert [item["id"] for item in [*first.json(), *second.json()]] == shas[::-1]
    assert (first.headers["x-total-count"], "link" in second.headers) == ("3", False)
    assert second.json()[0] == {
        "id": shas[0],
        "title": "<one> & only",
        "message": "body\nmore",
        "date": "2023-11-14T22:13:20.000Z",
        "authors": [{"user": "Ada", "avatar": ""}],
        "formatted": {"title": "&lt;one&gt; &amp; only", "message": "body\nmore"},
    }
    assert client.get("/api/models/ann/one/commits/main?p=9").json() == []
    assert client.get("/api/models/ann/one/commits/nope").headers["x-error-code"] == "RevisionNotFound"


def test_auth_check_says_what_one_may(reader: Reader) -> None:
    def status(name: str | None, rest: str = "") -> int:
        return reader.client(name).get(f"/api/models/ann/one/auth-check{rest}").status_code

    assert (status("ann"), status("bob"), status(None)) == (200, 200, 200)
    assert (status("ann", "/write"), status("bob", "/write"), status(None, "/write")) == (200, 403, 401)
    with reader.database.write() as connection:
        connection.execute(sa.update(repos).values(gated="auto"))
    gated = reader.client("bob").get("/api/models/ann/one/auth-check")
    assert (gated.status_code, gated.headers["x-error-code"], status("ann")) == (403, "GatedRepo", 200)
    with reader.database.write() as connection:
        connection.execute(sa.update(repos).values(visibility="private"))
    assert (status("ann"), status("bob"), status(None)) == (200, 404, 401)
    bad = reader.client().get("/api/models/ann/one/auth-check", headers={"authorization": "Bearer hf_bad"})
    assert (bad.status_code, "x-error-code" in bad.headers) == (401, False)
