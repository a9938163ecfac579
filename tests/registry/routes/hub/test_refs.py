"""Branch, tag and squash calls with the exact statuses and texts that scripts match."""

import pytest

from tests.registry.gate import MAIN
from tests.registry.writing import Writing

ONE = "/api/models/ann/one"


@pytest.fixture
def hub(database, tmp_path):
    made = Writing(database, tmp_path)
    made.commit(("put", "a", b"1"))
    yield made
    made.gate.heavy.close()


def test_branches_are_made_and_removed(hub):
    assert hub.ask("POST", f"{ONE}/branch/dev%2Fx", {}).status_code == 200
    assert hub.ask("POST", f"{ONE}/branch/copy", {"startingPoint": "dev/x"}).status_code == 200
    assert hub.ask("POST", f"{ONE}/branch/blank", {"emptyBranch": True}).status_code == 200
    assert hub.ask("POST", f"{ONE}/branch/blank", {"overwrite": True}).status_code == 200
    targets = hub.gate.targets()
    assert targets.keys() == {MAIN, b"refs/heads/dev/x", b"refs/heads/copy", b"refs/heads/blank"}
    assert len(set(targets.values())) == 1
    assert hub.ask("DELETE", f"{ONE}/branch/dev%2Fx").status_code == 200
    assert b"refs/heads/dev/x" not in hub.gate.targets()


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code", "text"),
    [
        ("POST", "branch/main", {}, 409, None, "Reference refs/heads/main already exists"),
        ("POST", "branch/refs%2Fpr%2F5", {}, 400, None, "Invalid reference for a branch"),
        ("POST", "branch/new", {"startingPoint": "none"}, 404, "RevisionNotFound", "Invalid rev id: none"),
        ("POST", "branch/new", {"startingPoint": 1}, 400, None, '"startingPoint" must be a string of valid Unicode.'),
        ("DELETE", "branch/main", None, 403, None, "Cannot delete refs/heads/main"),
        ("DELETE", "branch/none", None, 404, "RevisionNotFound", "Invalid rev id: none"),
        ("POST", "tag/none", {"tag": "v1"}, 404, "RevisionNotFound", "Invalid rev id: none"),
        ("POST", "tag/main", {}, 400, None, '"tag" is missing.'),
        ("DELETE", "tag/none", None, 404, "RevisionNotFound", "Invalid rev id: none"),
        ("POST", "super-squash/none", {}, 404, "RevisionNotFound", "Invalid rev id: none"),
    ],
)
def test_refusals_have_their_words(hub, method, path, body, status, code, text):
    answer = hub.ask(method, f"{ONE}/{path}", body)
    assert (answer.status_code, answer.headers.get("X-Error-Code"), answer.json()["error"]) == (status, code, text)


def test_tags_are_made_and_removed(hub):
    assert hub.ask("POST", f"{ONE}/tag/main", {"tag": "v1"}).status_code == 200
    assert hub.ask("POST", f"{ONE}/tag/{hub.tip()}", {"tag": "v/2", "message": "Two"}).status_code == 200
    assert hub.ask("POST", f"{ONE}/tag/main", {"tag": "v1"}).status_code == 409
    assert hub.gate.refs()[b"refs/tags/v/2"].peeled == hub.tip()
    assert hub.ask("DELETE", f"{ONE}/tag/v%2F2").status_code == 200
    assert hub.gate.targets().keys() == {MAIN, b"refs/tags/v1"}


def test_a_branch_is_squashed(hub):
    hub.commit(("put", "b", b"2"))
    assert hub.ask("POST", f"{ONE}/super-squash/main", {"message": "One"}).status_code == 200
    assert hub.parents(hub.tip()) == []
    assert hub.files() == {"a": b"1", "b": b"2"}


def test_only_writers_move_refs(hub):
    calls = (("POST", "branch/x", {}), ("DELETE", "branch/main", None), ("POST", "tag/main", {"tag": "v1"}))
    for method, path, body in (*calls, ("DELETE", "tag/v1", None), ("POST", "super-squash/main", {})):
        assert hub.ask(method, f"{ONE}/{path}", body, who="bob").status_code == 403
        assert hub.ask(method, f"{ONE}/{path}", body, who=None).status_code == 401
