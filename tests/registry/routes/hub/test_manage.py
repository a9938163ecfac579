"""Repos are made, removed, moved and set up by people who may, with the answers that clients read."""

import pytest

from tests.registry import people
from tests.registry.writing import Writing


@pytest.fixture
def hub(database, tmp_path):
    made = Writing(database, tmp_path)
    yield made
    made.gate.heavy.close()


def test_creating_answers_place_name_and_id(hub):
    answer = hub.ask("POST", "/api/repos/create", {"name": "new", "organization": None, "type": "dataset", "extra": 1})
    assert answer.status_code == 200
    found = answer.json()
    assert (found["url"], found["name"]) == ("http://testserver/datasets/ann/new", "ann/new")
    assert len(found["id"]) == 24
    assert hub.visit("new", kind="dataset").repo.private is False


@pytest.mark.parametrize(
    ("body", "private"),
    [
        ({"visibility": "private"}, True),
        ({"visibility": "public", "private": True}, False),
        ({"private": True}, True),
        ({"private": None}, False),
        ({"organization": "ann"}, False),
    ],
)
def test_visibility_is_read_from_old_and_new_clients(hub, body, private):
    assert hub.ask("POST", "/api/repos/create", {"name": "new"} | body).status_code == 200
    assert hub.visit("new").repo.private is private


def test_an_existing_repo_is_409_with_its_url(hub):
    answer = hub.ask("POST", "/api/repos/create", {"name": "One"})
    assert answer.status_code == 409
    assert answer.json() == {
        "error": "You already created this model repo: ann/one",
        "url": "http://testserver/ann/one",
    }


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 400),
        ({"name": "a b"}, 400),
        ({"name": 5}, 400),
        ({"name": "new", "type": "kernel"}, 400),
        ({"name": "new", "visibility": "protected"}, 400),
        ({"name": "new", "type": "space"}, 400),
        ({"name": "new", "organization": "bob"}, 403),
        ({"name": "bob/new"}, 403),
        ({"name": "new", "private": "yes"}, 400),
        ([], 400),
    ],
)
def test_what_cannot_be_created_is_refused(hub, body, status):
    assert hub.ask("POST", "/api/repos/create", body).status_code == status


def test_strangers_and_read_tokens_create_nothing(hub):
    answer = hub.ask("POST", "/api/repos/create", {"name": "new"}, who=None)
    assert answer.status_code == 401
    hub.tokens["reader"] = people.add_token(hub.database, 1, "read")
    assert hub.ask("POST", "/api/repos/create", {"name": "new"}, who="reader").status_code == 403


def test_deleting_needs_an_admin_of_the_repo(hub):
    body = {"name": "one", "organization": "ann", "type": "model"}
    assert hub.ask("DELETE", "/api/repos/delete", body, who="bob").status_code == 403
    assert hub.ask("DELETE", "/api/repos/delete", body, who=None).status_code == 401
    assert hub.ask("DELETE", "/api/repos/delete", {"name": "ann/one"}).status_code == 200
    answer = hub.ask("DELETE", "/api/repos/delete", body)
    assert (answer.status_code, answer.headers["X-Error-Code"]) == (404, "RepoNotFound")


def test_an_old_name_deletes_nothing(hub):
    move = {"fromRepo": "ann/one", "toRepo": "ann/two", "type": "model"}
    assert hub.ask("POST", "/api/repos/move", move).json() == {"url": "http://testserver/ann/two"}
    answer = hub.ask("DELETE", "/api/repos/delete", {"name": "one"})
    assert answer.status_code == 404
    assert "ann/two" in answer.json()["error"]
    assert hub.visit("two").repo.id == 1


def test_moving_to_a_taken_name_is_409(hub):
    hub.ask("POST", "/api/repos/create", {"name": "two"})
    answer = hub.ask("POST", "/api/repos/move", {"fromRepo": "ann/one", "toRepo": "ann/two", "type": "model"})
    assert (answer.status_code, answer.json()["error"]) == (409, "A model repository called ann/two already exists")
    assert hub.ask("POST", "/api/repos/move", {"fromRepo": "ann/one", "toRepo": "bob/one"}).status_code == 403
    assert hub.ask("POST", "/api/repos/move", {"fromRepo": "ann/one", "toRepo": "two"}).status_code == 400
    assert hub.ask("POST", "/api/repos/move", {"fromRepo": "ann/none", "toRepo": "ann/x"}).status_code == 404


def test_settings_are_changed_and_told(hub):
    path = "/api/models/ann/one/settings"
    answer = hub.ask("PUT", path, {"gated": "auto", "visibility": "private", "discussionsDisabled": True, "other": 1})
    assert answer.json() == {"gated": "auto", "private": True, "discussionsDisabled": True}
    assert hub.ask("PUT", path, {"gated": False, "private": False}).json() == {"gated": False, "private": False}
    assert hub.visit().repo.gated == ""
    for body in ({"gated": True}, {"gated": "open"}, {"visibility": 1}, {"discussionsDisabled": "no"}):
        assert hub.ask("PUT", path, body).status_code == 400
    assert hub.ask("PUT", path, {"private": True}, who="bob").status_code == 403
    assert hub.ask("PUT", "/api/datasets/ann/one/settings", {"private": True}).status_code == 404


def test_files_sent_along_are_in_the_first_commit(hub):
    files = [
        {"path": "README.md", "content": "aGk=", "encoding": "base64"},
        {"path": ".gitattributes", "content": "*.bin filter=lfs\n"},
    ]
    assert hub.ask("POST", "/api/repos/create", {"name": "new", "files": files}).status_code == 200
    row_id = hub.visit("new").repo.id
    at = hub.revisions.resolve_in(hub.gate.repositories.snapshot(row_id), "main")
    entries = hub.revisions.tree(at, "", recursive=True, limit=10).entries
    assert {one.path.decode(): hub.revisions.blob(at, one, 99) for one in entries} == {
        "README.md": b"hi",
        ".gitattributes": b"*.bin filter=lfs\n",
    }


def test_files_that_cannot_be_committed_make_no_repo(hub):
    for files, status in (({}, 400), ([{"path": "a"}], 400), ([{"path": "../a", "content": ""}], 422)):
        assert hub.ask("POST", "/api/repos/create", {"name": "new", "files": files}).status_code == status
    assert hub.ask("POST", "/api/repos/create", {"name": "new"}).status_code == 200
