"""The whole application, wired: each door answers in its own dialect, and nothing is left open when it ends."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.testclient import TestClient

from registry import schema
from registry.accounts import Accounts
from registry.app import build
from registry.config import Config
from registry.db import Database
from registry.routes.problems import InDialect
from registry.settings import OWN_PATHS
from registry.tables.repos import repos
from tests.registry import people


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """A migrated house."""
    made = Config(data=tmp_path / "data", min_free=0, heavy=1)
    made.data.mkdir()
    database = Database(made.database_url)
    schema.migrate(database)
    database.dispose()
    return made


@pytest.fixture
def client(config: Config) -> Iterator[TestClient]:
    """Somebody without a token."""
    with TestClient(build(config), base_url="http://hub.example", follow_redirects=False) as client:
        yield client


@pytest.mark.parametrize(
    ("path", "header"),
    [
        ("/api/models/ann/absent", "x-error-code"),
        ("/ann/absent/resolve/main/config.json", "x-error-code"),
        ("/ann/absent.git/info/refs?service=git-upload-pack", "www-authenticate"),
        ("/ann/absent.git/info/lfs/locks", "lfs-authenticate"),
    ],
)
def test_each_door_refuses_in_its_own_dialect(client: TestClient, path: str, header: str) -> None:
    answer = client.get(path, headers={"Accept": "application/vnd.git-lfs+json"})
    assert answer.status_code == 401, answer.text
    assert header in answer.headers
    assert "x-request-id" in answer.headers


def test_a_wrong_verb_is_refused_in_the_doors_own_dialect(client: TestClient) -> None:
    hub, git = client.post("/api/models/ann/m/tree/main"), client.get("/ann/m/git-upload-pack")
    assert (hub.status_code, git.status_code) == (405, 405)
    assert "use GET" in hub.json()["error"]
    assert git.headers["content-type"].startswith("text/plain")
    assert git.headers["cache-control"] == "no-cache, max-age=0, must-revalidate"
    assert git.headers["allow"] == "POST"
    assert client.post("/health").status_code == 405


def test_an_unknown_route_is_a_plain_404(client: TestClient) -> None:
    answer = client.get("/some/where/else/entirely")
    assert (answer.status_code, answer.text) == (404, "Not Found")
    assert "x-error-code" not in answer.headers


def test_a_trailing_slash_is_not_redirected_away(client: TestClient) -> None:
    assert client.get("/health/").status_code == 404


def test_every_route_but_those_of_operations_has_a_dialect(client: TestClient) -> None:
    app = client.app
    assert isinstance(app, Starlette)
    routes = [route for route in app.routes if isinstance(route, Route)]
    bare = [route.path for route in routes if not isinstance(route.app, InDialect)]
    assert bare == ["/health", "/ready", "/metrics", "/version"]
    assert len(routes) == len(app.routes)


def test_no_prefix_may_hide_a_route(client: TestClient) -> None:
    app = client.app
    assert isinstance(app, Starlette)
    firsts = {route.path.split("/")[1] for route in app.routes if isinstance(route, Route)}
    assert {first for first in firsts if not first.startswith("{")} <= OWN_PATHS


def test_a_known_user_has_the_limits_of_a_user(config: Config) -> None:
    database = Database(config.database_url)
    accounts = Accounts(database)
    accounts.create_user("ann")
    headers = {"Authorization": f"Bearer {accounts.create_token('ann')}"}
    database.dispose()
    with TestClient(build(config), base_url="http://hub.example") as client:
        policies = [client.get("/api/whoami-v2", headers=headers).headers["ratelimit-policy"] for _ in range(2)]
    # The first request shows whose token it is; it counts for its address.
    assert [policy.split(";")[2] for policy in policies] == ["q=1000", "q=10000"]


def test_scripts_of_other_origins_read_only_where_allowed(config: Config, client: TestClient) -> None:
    asked = {"Origin": "https://app.example"}
    assert "access-control-allow-origin" not in client.get("/api/models", headers=asked).headers
    open_house = replace(config, cors_origins=("https://app.example",))
    with TestClient(build(open_house)) as allowed:
        answer = allowed.get("/api/models", headers=asked)
        assert answer.headers["access-control-allow-origin"] == "https://app.example"
        exposed = answer.headers["access-control-expose-headers"].split(", ")
        assert {"X-Repo-Commit", "X-Xet-Hash", "Link"} <= set(exposed)
        assert "access-control-allow-credentials" not in answer.headers
        stranger = allowed.get("/api/models", headers={"Origin": "https://evil.example"})
        assert "access-control-allow-origin" not in stranger.headers
        preflight = asked | {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
        assert allowed.options("/api/repos/create", headers=preflight).status_code == 200


def test_a_house_closes_and_opens_again(config: Config) -> None:
    for _ in range(2):
        with TestClient(build(config)) as client:
            assert client.get("/ready").json()["ready"]
    assert [path.name for path in (config.data / "slots").iterdir()] == ["0"]


def test_a_gated_repo_is_shut_at_every_door_that_gives_bytes(config: Config) -> None:
    database = Database(config.database_url)
    ann, bob = people.add_user(database, "ann"), people.add_user(database, "bob")
    people.add_repo(database, "ann", "shut")
    with database.write() as connection:
        connection.execute(sa.update(repos).values(gated="manual"))
    keys = {"nobody": None, "bob": people.add_token(database, bob), "ann": people.add_token(database, ann, "read")}
    database.dispose()
    lfs = {"Accept": "application/vnd.git-lfs+json", "Content-Type": "application/vnd.git-lfs+json"}
    batch = {"operation": "download", "objects": [{"oid": "0" * 64, "size": 1}]}
    wanted = {"nobody": 401, "bob": 403, "ann": 200}
    with TestClient(build(config), base_url="http://hub.example") as client:
        for name, key in keys.items():
            token = {} if key is None else {"Authorization": f"Bearer {key}"}
            git = client.get("/ann/shut.git/info/refs?service=git-upload-pack", headers=token)
            fetch = client.post(
                "/ann/shut.git/git-upload-pack",
                content=b"0000",
                headers={"Content-Type": "application/x-git-upload-pack-request", **token},
            )
            large = client.post("/ann/shut.git/info/lfs/objects/batch", json=batch, headers={**lfs, **token})
            files = client.get("/api/models/ann/shut/auth-check", headers=token)
            assert [answer.status_code for answer in (git, fetch, large, files)] == [wanted[name]] * 4, name
            assert client.get("/api/models/ann/shut", headers=token).status_code == 200
            if name == "nobody":
                assert "www-authenticate" in git.headers
            if name != "ann":
                assert files.headers["x-error-code"] == "GatedRepo"


@pytest.mark.parametrize(
    ("settings", "runs"),
    [
        ({}, {"ingest", "wholes"}),
        ({"xet_ingest": "keep"}, {"ingest"}),
        ({"xet_ingest": "off"}, set()),
        ({"xet": False}, set()),
    ],
    ids=str,
)
def test_files_that_came_whole_are_cut_and_given_up_only_where_that_is_wanted(
    config: Config, settings: dict[str, object], runs: set[str]
) -> None:
    with TestClient(build(replace(config, **settings))):  # type: ignore[arg-type]  # each names a field of its type
        assert {"ingest", "wholes"} & {thread.name for thread in threading.enumerate()} == runs
