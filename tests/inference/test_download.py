"""What is asked of a registry over a socket: names, rights, listings, and what comes back when it misbehaves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from inference.checkout import Checkouts
from inference.errors import ModelAbsent, ModelRefused, SidecarError, Unavailable
from tests.inference.hub import FILES, REPO, WEIGHTS, Hub, git_id, serving
from tests.inference.listening import listening


@pytest.fixture
def hub() -> Hub:
    return Hub()


@pytest.fixture
def url(hub: Hub) -> Iterator[str]:
    with serving(hub) as url:
        yield url


@pytest.fixture
def checkouts(url: str, tmp_path: Path) -> Iterator[Checkouts]:
    checkouts = Checkouts(tmp_path / "checkouts", url)
    yield checkouts
    checkouts.close()


def test_names_resolve_to_commits(hub: Hub, checkouts: Checkouts) -> None:
    first, second = hub.push(REPO, FILES), hub.push(REPO, {"a.json": b"1"}, "refs/pr/1")
    assert checkouts.resolve(REPO).sha == first
    assert checkouts.resolve(f"{REPO}@main").sha == first
    assert checkouts.resolve(f"{REPO}@refs/pr/1").sha == second
    assert checkouts.resolve(f"{REPO}@{first}").sha == first


def test_what_is_absent_or_hidden_looks_the_same(hub: Hub, checkouts: Checkouts) -> None:
    hub.push("acme/private", FILES)
    hub.readers["acme/private"] = {"secret"}
    for name, token in (
        ("acme/none", None),
        ("acme/private", None),
        ("acme/private", "wrong"),
        ("acme/private@x", "y"),
    ):
        with pytest.raises(ModelAbsent):
            checkouts.resolve(name, token)
    assert checkouts.resolve("acme/private", "secret").repo == "acme/private"


def test_a_registry_that_is_away_or_unwell_is_unavailable(hub: Hub, checkouts: Checkouts, tmp_path: Path) -> None:
    nowhere = Checkouts(tmp_path / "other", "http://127.0.0.1:9")
    with pytest.raises(Unavailable) as away:
        nowhere.resolve(REPO)
    assert away.value.code == "registry_unavailable"
    nowhere.close()
    hub.status = 503
    with pytest.raises(Unavailable) as unwell:
        checkouts.resolve(REPO)
    assert (unwell.value.code, unwell.value.retry_after) == ("registry_unavailable", 7)


def test_a_token_goes_to_the_registry_and_not_to_the_bucket(hub: Hub, url: str, tmp_path: Path) -> None:
    bucket = Hub()
    with serving(bucket) as elsewhere:
        sha = hub.push(REPO, FILES)
        bucket.commits = hub.commits
        hub.readers[REPO], hub.redirect_to = {"secret"}, elsewhere.replace("127.0.0.1", "localhost")
        checkouts = Checkouts(tmp_path / "checkouts", url)
        folder = checkouts.pin(REPO, sha, "secret")
        checkouts.close()
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert all(token == "Bearer secret" for _, token in hub.tokens_seen)
    assert bucket.asked
    assert all(token is None for _, token in bucket.tokens_seen)


BAD_LISTS: dict[str, list[dict[str, object]]] = {
    "no path": [{"type": "file", "size": 2, "oid": git_id(b"{}")}],
    "no size": [{"type": "file", "path": "a.json", "oid": git_id(b"{}")}],
    "a negative size": [{"type": "file", "path": "a.json", "size": -1, "oid": git_id(b"{}")}],
    "a true size": [{"type": "file", "path": "a.json", "size": True, "oid": git_id(b"{}")}],
    "no id": [{"type": "file", "path": "a.json", "size": 2}],
    "an id that is a path": [{"type": "file", "path": "a.json", "size": 2, "oid": "../" * 13 + "x"}],
    "LFS without an id": [{"type": "file", "path": "a.json", "size": 2, "oid": git_id(b"{}"), "lfs": {}}],
    "LFS with a path for an id": [
        {"type": "file", "path": "a.json", "size": 2, "oid": git_id(b"{}"), "lfs": {"oid": "../../../etc/passwd"}}
    ],
}


@pytest.mark.parametrize("listed", BAD_LISTS.values(), ids=BAD_LISTS)
def test_broken_listings_are_refused(hub: Hub, checkouts: Checkouts, listed: list[dict[str, object]]) -> None:
    sha = hub.push(REPO, {"a.json": b"{}"})
    hub.listed[sha] = listed
    with pytest.raises(ModelRefused):
        checkouts.pin(REPO, sha)


def test_garbage_instead_of_json_is_our_error(hub: Hub, tmp_path: Path) -> None:
    answers = [b"", b"<html>", b"[" * 5000, b'{"sha": 5}', b"[]", b"null", b'{"sha": "../../x"}', b"\xff"]
    left = list(answers)

    def answer(_: Request) -> Response:
        return Response(left.pop(0))

    with listening(Starlette(routes=[Route("/{path:path}", answer)])) as url:
        checkouts = Checkouts(tmp_path / "checkouts", url)
        for _ in answers:
            with pytest.raises(SidecarError):
                checkouts.resolve(REPO)
        checkouts.close()
