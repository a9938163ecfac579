"""git-lfs with an agent called `xet`, as git-xet sets itself up, pushes by chunks and pulls what it always did."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import sys
from pathlib import Path

import httpx
import pytest

from tests.clients import xet_agent
from tests.clients.test_git import create
from tests.faults.proxy import Proxy
from tests.services.house import House
from tests.services.programs import Git

pytestmark = pytest.mark.clients
_numbers = itertools.count()

SIZE = 3_000_000
BATCH = "application/vnd.git-lfs+json"


@pytest.fixture
def xet_git(lfs_git: Git) -> Git:
    """git with git-lfs and the agent, for pushes as well as for pulls."""
    for name, value in {"path": sys.executable, "args": xet_agent.__file__, "concurrent": "false"}.items():
        lfs_git("config", "--global", f"lfs.customtransfer.xet.{name}", value)
    return lfs_git


@pytest.mark.parametrize("late", [False, True], ids=["with the token given", "with one asked for"])
def test_a_push_sends_chunks_and_a_clone_gets_the_bytes(
    small_house: House, xet_git: Git, tmp_path: Path, *, late: bool
) -> None:
    repo = create(small_house, f"git-xet-{next(_numbers)}")
    files = {name: os.urandom(SIZE) for name in ("1.bin", "2.bin")}
    if late:
        xet_git.environment = {**xet_git.environment, "XET_AGENT_LATE": "1"}
    with Proxy(small_house.port) as proxy:
        remote = small_house.remote(repo).replace(f":{small_house.port}/", f":{proxy.port}/")
        xet_git("clone", "-q", remote, "work", at=tmp_path)
        work, pushed = tmp_path / "work", []
        for at in (0, SIZE // 2):
            since = len(proxy.seen)
            xet_git.commit(work, {path: data[:at] + b"a word" + data[at:] for path, data in files.items()})
            xet_git("push", "-q", at=work)
            pushed.append(sum(asked.up for asked in proxy.seen[since:] if "/xet/" in asked.target))
        assert not [asked for asked in proxy.seen if asked.method == "PUT"], "a file went whole"
        asked_again = [asked.status for asked in proxy.seen if "/xet-write-token/" in asked.target]
        assert set(asked_again) == ({200} if late else set())
        xet_git("clone", "-q", remote, "again", at=tmp_path)
    assert pushed[0] > 2 * SIZE
    assert pushed[1] < SIZE // 2, "an edit sends little more than itself"
    xet_git("lfs", "fsck", at=tmp_path / "again")
    for path, data in files.items():
        assert (tmp_path / "again" / path).read_bytes() == data[: SIZE // 2] + b"a word" + data[SIZE // 2 :]


@pytest.mark.parametrize(
    ("operation", "transfers", "chosen"),
    [
        ("upload", ["xet", "lfs-standalone-file", "basic", "ssh"], "xet"),
        ("upload", ["xet"], "xet"),
        ("upload", ["lfs-standalone-file", "basic", "ssh"], "basic"),
        ("download", ["xet", "lfs-standalone-file", "basic", "ssh"], "basic"),
        ("download", ["xet"], "basic"),
    ],
)
def test_only_uploads_that_offer_xet_are_sent_to_it(
    operation: str, transfers: list[str], chosen: str, small_house: House
) -> None:
    name, data = create(small_house, f"git-xet-{next(_numbers)}"), b"not here"
    oid = hashlib.sha256(data).hexdigest()
    body = {"operation": operation, "transfers": transfers, "objects": [{"oid": oid, "size": len(data)}]}
    answer = httpx.post(
        f"{small_house.remote(name)}.git/info/lfs/objects/batch",
        content=json.dumps(body),
        headers={"content-type": BATCH, "accept": BATCH},
    )
    assert (answer.status_code, answer.json()["transfer"]) == (200, chosen)
    action = answer.json()["objects"][0].get("actions", {}).get("upload", {})
    told = {word for word in action.get("header", {}) if word.startswith("X-Xet-")}
    wanted = {"X-Xet-Cas-Url", "X-Xet-Access-Token", "X-Xet-Token-Expiration", "X-Xet-Session-Id"}
    assert told == (wanted if chosen == "xet" else set())
