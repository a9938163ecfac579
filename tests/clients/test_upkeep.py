"""doctor and fsck beside a running server, on both kinds of house."""

from __future__ import annotations

import hashlib
import json
import urllib.request
from pathlib import Path

import pytest

from tests.services.house import House
from tests.services.programs import Git, need

pytestmark = pytest.mark.clients


def test_a_house_in_use_has_no_findings(house: House, git: Git, tmp_path: Path) -> None:
    need("git-lfs")
    name = f"kept-{hashlib.sha256(str(tmp_path).encode()).hexdigest()[:12]}"
    headers = {"Authorization": f"Bearer {house.token}", "Content-Type": "application/json"}
    body = json.dumps({"name": name}).encode()
    urllib.request.urlopen(urllib.request.Request(f"{house.url}/api/repos/create", body, headers)).close()
    work = tmp_path / "work"
    git("lfs", "install", "--skip-repo")
    git("clone", "-q", house.remote(f"ann/{name}"), str(work))
    (work / "w.bin").write_bytes(b"weights" * 100_000)
    git.commit(work, {"README.md": "# Kept\n"}, "weights")
    git("push", "-q", at=work)
    for command in (["fsck", "--read-data", "--json"], ["doctor", "--json"]):
        done = house.cli(*command, check=False)
        assert (done.returncode, done.stdout) == (0, "")
