"""Uploads as clients send them: cards are checked, files sorted, operations committed."""

import base64
import hashlib

import pytest

from registry.draft import DraftLimits
from tests.registry import people
from tests.registry.writing import BY_ANN, Writing

HEADER = {"key": "header", "value": {"summary": "Add", "description": ""}}
ONE = "/api/models/ann/one"


@pytest.fixture
def hub(database, tmp_path):
    made = Writing(database, tmp_path)
    yield made
    made.gate.heavy.close()


def put(path, content):
    value = {"path": path, "content": base64.b64encode(content).decode(), "encoding": "base64"}
    return {"key": "file", "value": value}


def announce(path, size=10, sample=b"text"):
    return {"path": path, "size": size, "sample": base64.b64encode(sample).decode()}


def test_a_commit_answers_what_clients_read(hub):
    answer = hub.send(f"{ONE}/commit/main", [HEADER, put("a.txt", b"hello")])
    assert answer.status_code == 200
    sha = hub.tip()
    assert answer.json() == {
        "success": True,
        "commitOid": sha,
        "commitUrl": f"http://testserver/ann/one/commit/{sha}",
        "hookOutput": "",
    }
    assert hub.files() == {"a.txt": b"hello"}
    assert hub.leftovers() == []


def test_the_answer_spells_the_repo_as_it_is(hub):
    answer = hub.send("/api/models/ANN/One/commit/main", [HEADER, put("a.txt", b"hello")])
    assert answer.json()["commitUrl"].startswith("http://testserver/ann/one/commit/")


def test_a_branch_with_a_slash_is_named_quoted_or_not(hub):
    hub.commit(("put", "a", b"1"))
    hub.ask("POST", f"{ONE}/branch/dev%2Fx", {})
    for number, path in enumerate(("dev%2Fx", "dev/x", "refs%2Fheads%2Fdev%2Fx")):
        answer = hub.send(f"{ONE}/commit/{path}", [HEADER, put(f"f{number}", b"")])
        assert answer.status_code == 200, answer.text
    assert set(hub.files("dev/x")) == {"a", "f0", "f1", "f2"}
    assert set(hub.files()) == {"a"}


def test_every_refusal_has_the_status_that_clients_expect(hub):
    hub.commit(("put", "a", b"1"))
    seen = hub.tip()
    hub.commit(("put", "a", b"2"))
    hub.branches.create_tag(1, BY_ANN, "v1", "main")
    stale = {"key": "header", "value": {"summary": "s", "parentCommit": seen}}
    gone = {"key": "deletedFile", "value": {"path": "nothing"}}
    lfs = {"key": "lfsFile", "value": {"path": "w.bin", "algo": "sha256", "oid": "a" * 64, "size": 3}}
    for where, lines, status, code in (
        ("main", [stale, put("a", b"3")], 412, None),
        ("main", [HEADER, gone], 404, "EntryNotFound"),
        ("main", [HEADER, put("../a", b"3")], 422, None),
        ("main", [HEADER, lfs], 400, None),
        ("main", [HEADER, {"key": "file", "value": {}}], 400, None),
        ("main", [], 400, None),
        ("v1", [HEADER, put("a", b"3")], 400, None),
        (seen, [HEADER, put("a", b"3")], 400, None),
        ("nothing", [HEADER, put("a", b"3")], 404, "RevisionNotFound"),
        ("main?create_pr=1", [HEADER, put("a", b"3")], 501, None),
    ):
        answer = hub.send(f"{ONE}/commit/{where}", lines)
        assert (answer.status_code, answer.headers.get("X-Error-Code")) == (status, code), answer.text
        assert answer.headers["X-Error-Message"] == answer.json()["error"]
    answer = hub.send(f"{ONE}/commit/main", [HEADER, gone])
    assert answer.headers["X-Repo-Commit"] == hub.tip()
    assert answer.json()["error"] == 'A file with the name "nothing" does not exist'
    assert hub.leftovers() == []


def test_only_writers_commit_and_ask(hub):
    people.add_repo(hub.database, "ann", "secret", visibility="private")
    lines, ask = [HEADER, put("a", b"1")], {"files": [announce("a")]}
    for who, repo, status in ((None, "one", 401), ("bob", "one", 403), ("bob", "secret", 404), ("ann", "none", 404)):
        assert hub.send(f"/api/models/ann/{repo}/commit/main", lines, who=who).status_code == status
        assert hub.ask("POST", f"/api/models/ann/{repo}/preupload/main", ask, who=who).status_code == status
    assert hub.tip() is None


def test_a_body_over_a_limit_is_refused_and_leaves_nothing(database, tmp_path):
    hub = Writing(database, tmp_path, DraftLimits(inline=100))
    answer = hub.send(f"{ONE}/commit/main", [HEADER, put("a", b"x" * 60), put("b", b"x" * 60)])
    assert answer.status_code == 413
    assert hub.leftovers() == []
    assert hub.tip() is None


def test_files_are_sorted_by_the_first_rule_that_fits(hub):
    rules = b"*.bin filter=lfs\n*.json -filter\n"
    hub.commit(("put", ".gitattributes", rules), ("put", "sub/.gitattributes", b"*.bin !filter\n"))
    big, binary = 10 << 20, 256 << 10
    asked = {
        "regular": [
            announce("empty.bin", 0),
            announce("big.json", big + 1),
            announce("sub/a.bin", big + 1),
            announce("a.txt", big),
            announce("small.dat", binary - 1, b"\0"),
            announce("cut.txt", binary, "é".encode()[:1]),
        ],
        "lfs": [
            announce("a.bin", 1),
            announce("a.dat", big + 1),
            announce("b.dat", binary, b"a\0"),
            announce("c.dat", binary, b"\xff\xfe"),
        ],
    }
    answer = hub.ask("POST", f"{ONE}/preupload/main", {"files": asked["regular"] + asked["lfs"]}).json()
    assert answer["commitOid"] == hub.tip()
    found = {one["path"]: one["uploadMode"] for one in answer["files"]}
    assert found == {one["path"]: mode for mode, files in asked.items() for one in files}


def test_preupload_tells_what_a_path_holds_now(hub):
    oid = "ab" * 32
    hub.gate.link(oid, 9)
    hub.commit(("put", "a.txt", b"hello"), ("large", "w.bin", oid, 9), ("put", "sub/x", b""))
    paths = ("a.txt", "w.bin", "sub", "new")
    answer = hub.ask("POST", f"{ONE}/preupload/main", {"files": [announce(path) for path in paths]}).json()
    blob = hashlib.sha1(b"blob 5\0hello").hexdigest()
    assert [one["oid"] for one in answer["files"]] == [blob, oid, None, None]
    assert all(one["shouldIgnore"] is False for one in answer["files"])


def test_ignored_files_are_told_by_the_repo_or_by_what_comes_with_the_commit(hub):
    hub.commit(("put", ".gitignore", b"*.log\n"))
    body = {"files": [announce("a.log"), announce("a.tmp")]}
    answer = hub.ask("POST", f"{ONE}/preupload/main", body).json()
    assert [one["shouldIgnore"] for one in answer["files"]] == [True, False]
    answer = hub.ask("POST", f"{ONE}/preupload/main", body | {"gitIgnore": "*.tmp\n"}).json()
    assert [one["shouldIgnore"] for one in answer["files"]] == [False, True]


def test_preupload_to_a_repo_without_commits_sorts_by_size(hub):
    answer = hub.ask("POST", f"{ONE}/preupload/main", {"files": [announce("a.bin", 5)]})
    assert answer.json() == {
        "commitOid": "",
        "files": [{"path": "a.bin", "uploadMode": "regular", "shouldIgnore": False, "oid": None}],
    }
    answer = hub.ask("POST", f"{ONE}/preupload/nothing", {"files": []})
    assert (answer.status_code, answer.headers["X-Error-Code"]) == (404, "RevisionNotFound")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 400),
        ({"files": {}}, 400),
        ({"files": [1]}, 400),
        ({"files": [{"size": 1}]}, 400),
        ({"files": [{"path": "a", "sample": "!", "size": 1}]}, 400),
        ({"files": [{"path": "a", "size": -1}]}, 400),
        ({"files": [{"path": "a", "size": "1"}]}, 400),
        ({"files": [{"path": "a\ud800", "size": 1}]}, 400),
        ({"files": [{"path": "a", "size": 1}] * 1001}, 413),
        ({"files": [], "gitIgnore": 3}, 400),
    ],
)
def test_what_cannot_be_sorted_is_refused(hub, body, status):
    assert hub.ask("POST", f"{ONE}/preupload/main", body).status_code == status


def test_cards_are_judged_before_they_are_committed(hub):
    path = "/api/validate-yaml"
    good = hub.ask("POST", path, {"content": "---\nlicense: mit\n---\n# x", "repoType": "model"}, who=None)
    assert (good.status_code, good.json()) == (200, {"errors": [], "warnings": []})
    bare = hub.ask("POST", path, {"content": "# x", "repoType": "model"}, who=None).json()
    assert bare["errors"] == []
    assert len(bare["warnings"]) == 1
    bad = hub.ask("POST", path, {"content": "---\nlicense: [mit\n---\n", "repoType": "dataset"}, who=None)
    assert bad.status_code == 400
    assert [list(one) for one in bad.json()["errors"]] == [["message"]]
    text = hub.client.post(path, json={"content": "---\na: [\n---\n"}, headers={"Accept": "text/plain"})
    assert (text.status_code, text.headers["content-type"]) == (400, "text/plain; charset=utf-8")
    assert text.text
    assert hub.ask("POST", path, {"repoType": "model"}, who=None).status_code == 400
