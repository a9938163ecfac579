"""People see what their own namespaces hold, and nobody else does."""

import pytest

from registry.access import Actor
from registry.accounts import AccountAbsent
from registry.errors import NotAllowed
from registry.usage import Usages
from tests.registry import people
from tests.registry.writing import Writing

OID, OTHER = "a" * 64, "b" * 64


@pytest.fixture
def hub(database, tmp_path):
    made = Writing(database, tmp_path)
    yield made
    made.gate.heavy.close()


@pytest.fixture
def usages(hub):
    return Usages(hub.database, hub.gate.linked.quotas)


def test_people_see_what_they_hold_and_may_hold(hub, usages):
    two = people.add_repo(hub.database, "ann", "two", kind="dataset")
    hub.gate.link(OID, 900)
    hub.gate.link(OID, 900, two)
    hub.gate.linked.begin(1, OTHER, 50)
    usages.allow("ANN", 10_000)
    hub.commit(("put", "a", b"1"))
    git = hub.visit().repo.git_bytes
    answer = hub.ask("GET", "/api/usage/Ann")
    assert answer.json() == {
        "namespace": "ann",
        "quota": 10_000,
        "used": 1800 + git,
        "reserved": 50,
        "repos": [
            {"id": "ann/one", "type": "model", "git": git, "lfs": 900, "usedStorage": 900 + git},
            {"id": "ann/two", "type": "dataset", "git": 0, "lfs": 900, "usedStorage": 900},
        ],
    }
    assert "link" not in answer.headers


def test_many_repos_come_in_pages(hub):
    for number in range(4):
        people.add_repo(hub.database, "ann", f"more{number}")
    names, path = [], "/api/usage/ann?limit=2"
    while path:
        answer = hub.ask("GET", path)
        names += [repo["id"] for repo in answer.json()["repos"]]
        path = answer.links["next"]["url"] if "next" in answer.links else ""
    assert names == ["ann/one", *(f"ann/more{number}" for number in range(4))]


def test_strangers_learn_nothing_not_even_which_names_exist(hub):
    known = hub.ask("GET", "/api/usage/ann", who="bob")
    unknown = hub.ask("GET", "/api/usage/who", who="bob")
    assert (known.status_code, unknown.status_code) == (403, 403)
    assert known.json()["error"].replace("ann", "who") == unknown.json()["error"]
    assert hub.ask("GET", "/api/usage/ann", who=None).status_code == 401


def test_members_and_admins_may_look(hub, usages):
    org = people.add_namespace(hub.database, "lab", "org")
    with pytest.raises(NotAllowed):
        usages.page(Actor(2, "bob", 2, None, "read"), "lab")
    people.add_member(hub.database, org, 2, "read")
    assert usages.page(Actor(2, "bob", 2, None, "read"), "lab").usage.namespace == "lab"
    assert usages.page(Actor(9, "root", 9, None, "admin", is_admin=True), "ann").usage.namespace == "ann"
    with pytest.raises(NotAllowed):
        usages.page(Actor(9, "root", 9, None, "write", is_admin=True), "ann")


def test_a_quota_is_set_and_taken_away(hub, usages):
    assert usages.allow("bob", 5).quota == 5
    assert usages.allow("bob", None).quota is None
    assert [usage.namespace for usage in usages.all()] == ["ann", "bob"]
    with pytest.raises(AccountAbsent):
        usages.allow("nobody", 5)
