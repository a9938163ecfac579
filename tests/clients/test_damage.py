"""A disk loses a byte: the repair finds it, clients are told and never given it, and a push brings it back."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import QUIET
from tests.services.house import House, open_house
from tests.services.programs import Git, need

pytestmark = pytest.mark.clients

WEIGHTS = random.Random(5).randbytes(300_000)
DOWNLOAD = "import sys; from huggingface_hub import hf_hub_download as get; print(get(sys.argv[1], 'w.bin'))"


@pytest.fixture(scope="module")
def broken_house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A house of these tests' own: they break it."""
    with open_house(tmp_path_factory.mktemp("broken"), **QUIET) as house:
        yield house


def api(house: House, verb: str, path: str, name: str) -> None:
    headers = {"Authorization": f"Bearer {house.token}", "Content-Type": "application/json"}
    body = json.dumps({"name": name}).encode()
    urllib.request.urlopen(urllib.request.Request(f"{house.url}/api/repos/{path}", body, headers, method=verb)).close()


def filled(house: House, git: Git, work: Path, name: str) -> None:
    """Make a repo with one LFS file."""
    need("git-lfs")
    api(house, "POST", "create", name)
    git("lfs", "install", "--skip-repo")
    git("clone", "-q", house.remote(f"ann/{name}"), str(work))
    attributes = "*.bin filter=lfs diff=lfs merge=lfs -text\n"
    git.commit(work, {"README.md": "# Kept\n", "w.bin": WEIGHTS, ".gitattributes": attributes}, "weights")
    git("push", "-q", at=work)


def rot(path: Path) -> None:
    """Flip a bit of a file, as a bad disk does."""
    body = bytearray(path.read_bytes())
    body[len(body) // 2] ^= 4
    path.chmod(0o644)
    path.write_bytes(body)


def repair(house: House) -> tuple[int, list[dict[str, object]]]:
    done = house.cli("fsck", "--read-data", "--repair", "--json", check=False)
    assert done.returncode in (0, 1), done.stderr
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


def by_hub(house: House, repo: str, home: Path) -> subprocess.CompletedProcess[str]:
    more = {"HF_ENDPOINT": house.url, "HF_TOKEN": house.token, "HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
    command = [sys.executable, "-c", DOWNLOAD, repo]
    environment = {"PATH": os.environ["PATH"]} | more
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)


def test_a_byte_that_the_disk_lost_is_told_and_healed_by_a_push(broken_house: House, git: Git, tmp_path: Path) -> None:
    house, work = broken_house, tmp_path / "work"
    filled(house, git, work, "bytes")
    (stored,) = (path for path in (house.folder / "data/objects/lfs").rglob("*") if path.is_file())
    rot(stored)
    status, (told,) = repair(house)
    assert (status, told["repaired"]) == (1, False)
    assert "push it again" in str(told["done"])

    refused = git.attempt("clone", "-q", house.remote("ann/bytes"), str(tmp_path / "early"))
    assert refused.returncode != 0
    assert "damaged" in refused.stderr
    with pytest.raises(urllib.error.HTTPError) as answer:
        urllib.request.urlopen(f"{house.url}/ann/bytes/resolve/main/w.bin")
    assert 400 <= answer.value.code < 600
    answer.value.close()
    assert by_hub(house, "ann/bytes", tmp_path / "first").returncode != 0

    git("lfs", "push", "--all", "origin", at=work)
    clone = tmp_path / "clone"
    git("clone", "-q", house.remote("ann/bytes"), str(clone))
    assert (clone / "w.bin").read_bytes() == WEIGHTS
    git("lfs", "fsck", at=clone)
    found = by_hub(house, "ann/bytes", tmp_path / "second")
    assert Path(found.stdout.strip()).read_bytes() == WEIGHTS, found.stderr
    assert repair(house) == (0, [])


def test_what_follows_from_a_pack_is_made_again_and_a_lost_pack_comes_from_a_clone(
    broken_house: House, git: Git, tmp_path: Path
) -> None:
    house, work = broken_house, tmp_path / "work"
    filled(house, git, work, "packs")
    # Their own names tell the three kinds of files apart: by what they begin with.
    files = {path.read_bytes()[:4]: path for path in newest(house, 3)}
    rot(files[b"\xfftOc"])
    files[b"WRIN"].unlink()
    status, done = repair(house)
    assert (status, [one["repaired"] for one in done]) == (0, [True, True])
    git("clone", "-q", house.remote("ann/packs"), str(tmp_path / "clone"))

    rot(files[b"PACK"])
    status, done = repair(house)
    assert status == 1
    advice = next(str(one["done"]) for one in done if one["kind"] == "pack")
    assert "ann/packs" in advice
    assert "git push --force origin --all" in advice
    api(house, "DELETE", "delete", "packs")
    api(house, "POST", "create", "packs")
    git("lfs", "push", "--all", "origin", at=work)
    git("push", "-q", "--force", "origin", "--all", at=work)
    git("clone", "-q", house.remote("ann/packs"), str(tmp_path / "after"))
    assert (tmp_path / "after" / "w.bin").read_bytes() == WEIGHTS
    assert repair(house) == (0, [])


def newest(house: House, count: int) -> list[Path]:
    """The files under `git/` that were stored last."""
    found = [path for path in (house.folder / "data/objects/git").rglob("*") if path.is_file()]
    return sorted(found, key=lambda path: path.stat().st_mtime_ns)[-count:]
