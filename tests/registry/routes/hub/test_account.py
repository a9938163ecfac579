"""Clients learn who they are, and are told cheaply what is not here."""

import pytest

from tests.registry import people
from tests.registry.writing import Writing


@pytest.fixture
def hub(database, tmp_path):
    return Writing(database, tmp_path)


def test_whoami_tells_name_orgs_and_token(hub):
    org = people.add_namespace(hub.database, "Lab", "org")
    people.add_member(hub.database, org, 1, "write")
    found = hub.ask("GET", "/api/whoami-v2").json()
    assert (found["type"], found["name"], found["fullname"], found["isPro"]) == ("user", "ann", "ann", False)
    assert len(found["id"]) == 24
    assert [(one["name"], one["roleInOrg"]) for one in found["orgs"]] == [("Lab", "write")]
    assert found["auth"]["accessToken"] == {"displayName": "", "role": "write"}
    assert {"email", "avatarUrl"} <= found.keys()


@pytest.mark.parametrize("header", [None, "Bearer hf_nothing", "Digest x"])
def test_nobody_and_bad_tokens_are_401_without_a_code(hub, header):
    answer = hub.client.get("/api/whoami-v2", headers={"Authorization": header} if header else {})
    assert answer.status_code == 401
    assert "X-Error-Code" not in answer.headers
    assert answer.json()["error"] == "Invalid credentials in Authorization header"


def test_what_this_server_does_not_have_is_a_plain_404(hub):
    assert hub.client.get("/api/agent-harnesses").status_code == 404
    assert hub.client.head("/api/telemetry/huggingface_hub/cli").status_code == 404


def test_accounts_are_told_to_people_with_a_token(hub):
    org = people.add_namespace(hub.database, "Lab", "org")
    people.add_member(hub.database, org, 1, "admin")
    people.add_repo(hub.database, "ann", "secret", visibility="private")
    people.add_repo(hub.database, "ann", "data", kind="dataset")
    ann = hub.ask("GET", "/api/users/ANN/overview", who="bob").json()
    assert (ann["user"], ann["numModels"], ann["numDatasets"], ann["numSpaces"]) == ("ann", 1, 1, 0)
    assert [one["name"] for one in ann["orgs"]] == ["Lab"]
    lab = hub.ask("GET", "/api/organizations/lab/overview").json()
    assert (lab["name"], lab["numUsers"], lab["numModels"]) == ("Lab", 1, 0)
    [member] = hub.ask("GET", "/api/organizations/lab/members").json()
    assert (member["user"], member["role"]) == ("ann", "admin")
    for path in ("/api/users/lab/overview", "/api/organizations/ann/overview", "/api/users/none/overview"):
        assert hub.ask("GET", path).status_code == 404
        assert hub.ask("GET", path, who=None).status_code == 401
