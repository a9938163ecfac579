"""Stock git with git-lfs against a whole registry: large files travel whole, and only to those who may have them."""

from __future__ import annotations

import hashlib
import itertools
import json
import random
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.clients.test_git import create
from tests.services.house import House
from tests.services.programs import Git, need

pytestmark = pytest.mark.clients
MIB = 1 << 20
_numbers = itertools.count()


@pytest.fixture
def work(house: House, git: Git, tmp_path: Path) -> Path:
    """A clone of a new repo, with git-lfs ready."""
    need("git-lfs")
    name = create(house, f"lfs-{tmp_path.name[-20:].strip('-_.').replace('--', '-')}-{next(_numbers)}")
    git("lfs", "install", "--skip-repo")
    git("clone", "-q", house.remote(name), str(tmp_path / "work"))
    return tmp_path / "work"


def noise(size: int, seed: int = 1) -> bytes:
    """Bytes that do not compress, the same for the same seed."""
    return random.Random(seed).randbytes(size)


def batch(house: House, repo: str, operation: str, oid: str, size: int, token: str | None = None) -> dict[str, object]:
    """Ask the batch route; return its one object."""
    body = {"operation": operation, "transfers": ["basic"], "objects": [{"oid": oid, "size": size}]}
    media = "application/vnd.git-lfs+json"
    headers = {"Accept": media, "Content-Type": media, "Authorization": f"Bearer {token or house.token}"}
    url = f"{house.url}/{repo}.git/info/lfs/objects/batch"
    with urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode(), headers)) as answer:
        found: dict[str, object] = json.load(answer)["objects"][0]
        return found


def repo_of(git: Git, work: Path) -> str:
    """Full name of the repo that a clone came from."""
    return "/".join(git("remote", "get-url", "origin", at=work).rsplit("/", 2)[1:])


def test_weights_come_back_as_they_went(house: House, git: Git, work: Path, tmp_path: Path) -> None:
    files = {"model.safetensors": noise(3 * MIB), "sub/empty.bin": b"", "sub/two.bin": noise(100, 2)}
    git.commit(work, files)
    git("push", "-q", at=work)
    git("clone", "-q", house.remote(repo_of(git, work)), "again", at=tmp_path)
    again = tmp_path / "again"
    for name, content in files.items():
        assert (again / name).read_bytes() == content
    git("lfs", "fsck", at=again)
    assert "model.safetensors" in git("lfs", "ls-files", at=again)


def test_200_mb_pass_through_without_growing_the_server(small_house: House, git: Git, tmp_path: Path) -> None:
    need("git-lfs")
    name = create(small_house, f"big-{next(_numbers)}")
    git("lfs", "install", "--skip-repo")
    git("clone", "-q", small_house.remote(name), "work", at=tmp_path)
    content = noise(200 * MIB)
    before = small_house.resident()
    git.commit(tmp_path / "work", {"model.safetensors": content})
    git("push", "-q", at=tmp_path / "work")
    git("clone", "-q", small_house.remote(name), "again", at=tmp_path)
    assert small_house.resident() - before < 100 * MIB
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == content


def test_a_push_whose_weights_never_came_is_refused(house: House, git: Git, work: Path) -> None:
    git.commit(work, {"model.safetensors": noise(MIB)})
    # Without the hook nothing uploads the object.
    done = git.attempt("push", "--no-verify", "origin", "HEAD", at=work)
    assert done.returncode != 0
    assert "(model.safetensors) was not uploaded" in done.stderr
    git("push", "-q", "origin", "HEAD", at=work)


def test_knowing_an_oid_opens_nothing(house: House, git: Git, work: Path) -> None:
    content = noise(MIB, 7)
    oid = hashlib.sha256(content).hexdigest()
    git.commit(work, {"model.safetensors": content})
    git("push", "-q", at=work)
    other = create(house, f"thief-{next(_numbers)}")
    assert "actions" not in batch(house, repo_of(git, work), "upload", oid, MIB)
    asked = batch(house, other, "download", oid, MIB)
    assert asked["error"]["code"] == 404  # type: ignore[index]
    offered = batch(house, other, "upload", oid, MIB)["actions"]["upload"]  # type: ignore[index]
    put = urllib.request.Request(offered["href"], b"x" * MIB, offered.get("header", {}), method="PUT")
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(put)
    assert refused.value.code == 400
    refused.value.close()
    assert batch(house, other, "download", oid, MIB)["error"]["code"] == 404  # type: ignore[index]
