"""Tokens that are none, or too weak, at every door: a repo that one may not see is a repo that is not there."""

from __future__ import annotations

import base64
import json
import secrets

import pytest

from tests.clients.committing import HEAD, commit, file
from tests.clients.hostile import Site, bodies_alike, refused

pytestmark = pytest.mark.clients


WHO = {None: (401, "RepoNotFound"), "stranger": (404, "RepoNotFound")}


@pytest.mark.parametrize("who", [None, "unknown", "expired", "revoked", "stranger"])
def test_private_and_absent_repos_look_alike(site: Site, who: str | None) -> None:
    secret, nowhere = site.repo(private=True), f"ann/nowhere-{secrets.token_hex(4)}"
    status, code = WHO.get(who, (401, None))
    body = {"json": {}}
    for method, path, more in (
        ("GET", "/api/models/{}", {}),
        ("GET", "/api/models/{}/revision/main", {}),
        ("GET", "/api/models/{}/tree/main", {}),
        ("GET", "/api/models/{}/refs", {}),
        ("GET", "/api/models/{}/commits/main", {}),
        ("GET", "/api/models/{}/auth-check", {}),
        ("POST", "/api/models/{}/paths-info/main", {"json": {"paths": ["a"]}}),
        ("GET", "/{}/resolve/main/.gitattributes", {}),
        ("HEAD", "/{}/resolve/main/.gitattributes", {}),
        ("GET", "/{}/raw/main/.gitattributes", {}),
        ("POST", "/api/models/{}/preupload/main", {"json": {"files": []}}),
        ("POST", "/api/models/{}/commit/main", {"content": json.dumps(HEAD)}),
        ("POST", "/api/models/{}/branch/x", body),
        ("DELETE", "/api/models/{}/branch/main", {}),
        ("POST", "/api/models/{}/tag/main", {"json": {"tag": "v"}}),
        ("POST", "/api/models/{}/super-squash/main", body),
        ("PUT", "/api/models/{}/settings", body),
    ):
        answers = [site.ask(method, path.format(name), who, **more) for name in (secret, nowhere)]
        assert answers[0].status_code == status, (path, answers[0].status_code)
        if method != "HEAD":
            refused(answers[0], "hub", status, code)
        bodies_alike(answers[0], answers[1], names=(secret, nowhere))
    if who == "stranger":
        for route, fields in (("delete", {}), ("move", {"toRepo": "mal/mine"})):
            answers = []
            for name in (secret, nowhere):
                named = {"name": name.split("/")[1], "organization": "ann", "fromRepo": name}
                answers.append(
                    site.ask("DELETE" if route == "delete" else "POST", f"/api/repos/{route}", who, json=named | fields)
                )
            refused(answers[0], "hub", 404, "RepoNotFound")
            bodies_alike(answers[0], answers[1], names=(secret, nowhere))


JUNK = [
    "Basic",
    "Basic !!!",
    "Basic " + base64.b64encode(b"\xff\xfe").decode(),
    "Basic " + base64.b64encode(b"ann").decode(),
]
JUNK += [
    "Bearer",
    "bearer",
    "Digest x",
    "Negotiate " + "A" * 5000,
    "hf_x",
    "Bearer a b",
    "Basic " + base64.b64encode(b":").decode(),
]


def test_tokens_that_are_none_are_a_401_everywhere(site: Site, own: str) -> None:
    for junk in JUNK:
        headers = {"Authorization": junk}
        refused(site.ask("GET", f"/api/models/{own}", None, headers=headers), "hub", 401)
        refused(site.ask("GET", "/api/whoami-v2", None, headers=headers), "hub", 401)
        refused(site.ask("GET", f"/{own}/info/refs?service=git-upload-pack", None, headers=headers), "git", 401)
        refused(site.ask("GET", f"/{own}.git/info/lfs/locks", None, headers=headers), "lfs", 401)
    token = site.tokens["owner"]
    for query in (f"token={token}", f"access_token={token}"):
        refused(site.ask("GET", f"/api/whoami-v2?{query}", None), "hub", 401)
        refused(commit(site, own, HEAD, file("a"), at=f"main?{query}", who=None), "hub", 401, "RepoNotFound")
    for who in ("reader", "stranger"):
        refused(commit(site, own, HEAD, file("a"), who=who), "hub", 403)
        refused(site.ask("POST", f"/api/models/{own}/branch/x", who, json={}), "hub", 403)
        refused(site.ask("PUT", f"/api/models/{own}/settings", who, json={"private": True}), "hub", 403)


GIT_DOORS = [
    "info/refs?service=git-upload-pack",
    "info/refs?service=git-receive-pack",
    "git-upload-pack",
    "git-receive-pack",
]


@pytest.mark.parametrize("who", [None, "unknown", "expired", "revoked", "stranger"])
def test_private_and_absent_repos_look_alike_to_git(site: Site, who: str | None) -> None:
    secret, nowhere = site.repo(private=True), f"ann/nowhere-{secrets.token_hex(4)}"
    for door in GIT_DOORS:
        if door.startswith("info"):
            answers = [site.ask("GET", f"/{name}/{door}", who) for name in (secret, nowhere)]
        else:
            send = site.fetch if door == "git-upload-pack" else site.push
            answers = [send(name, b"0000", who) for name in (secret, nowhere)]
        refused(answers[0], "git", WHO.get(who, (401, None))[0])
        bodies_alike(answers[0], answers[1], names=(secret, nowhere))
    public = site.repo()
    for reader in ("reader", "stranger"):
        refused(site.push(public, b"0000", reader), "git", 403)
    refused(site.push(public, b"0000", None), "git", 401)
