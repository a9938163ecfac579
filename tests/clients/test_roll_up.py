"""Many commits leave few packs, and a clone has them all: on both kinds of house, through the running server."""

from __future__ import annotations

import base64
import hashlib
import json
import time
import urllib.request
from pathlib import Path

import pytest
import sqlalchemy as sa

from registry.config import Config
from registry.db import Database
from registry.tables.objects import packs
from registry.tables.objects import repo_packs as listed
from registry.tables.repos import repos
from registry.upkeep.repack import MOST_PACKS
from tests.services.house import House
from tests.services.programs import Git

pytestmark = pytest.mark.clients

COMMITS = 60
PATIENCE = 30.0


def post(house: House, path: str, body: bytes, kind: str = "application/json") -> None:
    headers = {"Authorization": f"Bearer {house.token}", "Content-Type": kind}
    urllib.request.urlopen(urllib.request.Request(house.url + path, body, headers), timeout=60).close()


def commit(house: House, repo: str, number: int) -> None:
    """Make one commit through the Hub's API."""
    text = b"".join(b"step %d of %d\n" % (step, number) for step in range(50))
    value = {"path": f"runs/{number % 5}.txt", "encoding": "base64", "content": base64.b64encode(text).decode()}
    lines = [{"key": "header", "value": {"summary": f"run {number}"}}, {"key": "file", "value": value}]
    body = "\n".join(map(json.dumps, lines)).encode()
    post(house, f"/api/models/{repo}/commit/main", body, "application/x-ndjson")


def count(house: House, name: str) -> tuple[int, set[str]]:
    """Count the packs that a repo lists, and name their states."""
    database = Database(Config.from_environ(house.environment).database_url)
    chosen = (
        sa.select(packs.c.state)
        .select_from(listed.join(packs, packs.c.id == listed.c.pack_id).join(repos, repos.c.id == listed.c.repo_id))
        .where(repos.c.name == name)
    )
    with database.read() as connection:
        found = list(connection.execute(chosen).scalars())
    database.dispose()
    return len(found), set(found)


def test_sixty_commits_are_few_packs_and_one_history(house: House, git: Git, tmp_path: Path) -> None:
    name = f"rolled-{hashlib.sha256(str(tmp_path).encode()).hexdigest()[:12]}"
    post(house, "/api/repos/create", json.dumps({"name": name}).encode())
    mirror = tmp_path / "mirror.git"
    git("clone", "-q", "--mirror", house.remote(f"ann/{name}"), str(mirror))
    for number in range(COMMITS):
        commit(house, f"ann/{name}", number)
        if number % 20 == 10:
            # A reader that follows along meets lists of packs of every age.
            git("fetch", "-q", at=mirror)
    deadline = time.monotonic() + PATIENCE
    while (found := count(house, name))[0] > MOST_PACKS:
        assert time.monotonic() < deadline, f"{found[0]} packs are left"
    assert found[1] == {"live"}
    git("fetch", "-q", at=mirror)
    clone = tmp_path / "clone.git"
    git("clone", "-q", "--mirror", house.remote(f"ann/{name}"), str(clone))
    for one in (mirror, clone):
        git("fsck", "--full", "--strict", "--no-dangling", at=one)
        assert int(git("rev-list", "--count", "main", at=one)) >= COMMITS
    assert git("rev-list", "--objects", "--all", at=mirror) == git("rev-list", "--objects", "--all", at=clone)
    done = house.cli("fsck", "--json", check=False)
    assert (done.returncode, done.stdout) == (0, "")
