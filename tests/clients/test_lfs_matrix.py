"""Weights by every client to every kind of store and back: git-lfs old and new, huggingface_hub, its agent, curl.

`WEIGHTROOM_TEST_SCALE=full` moves files of the sizes that people have, which takes minutes.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.clients.test_git import create
from tests.clients.test_git_with_lfs import batch
from tests.clients.visitor import visit
from tests.services.house import House
from tests.services.programs import Git, need, newest_git_lfs

pytestmark = pytest.mark.clients
MIB = 1 << 20
FULL = os.environ.get("WEIGHTROOM_TEST_SCALE") == "full"
LARGE = (1024 if FULL else 24) * MIB
COUNT = 2000 if FULL else 150
_numbers = itertools.count()


@pytest.fixture(
    params=[
        "small",
        pytest.param("large", marks=[pytest.mark.postgres, pytest.mark.s3, pytest.mark.xdist_group("large")]),
        pytest.param("ceph", marks=[pytest.mark.s3, pytest.mark.xdist_group("ceph")]),
    ]
)
def house(request: pytest.FixtureRequest) -> House:
    """A registry on a folder, on a bucket that checks nothing, and on one that enforces hashes."""
    found: House = request.getfixturevalue(f"{request.param}_house")
    return found


def written(path: Path, size: int, seed: int) -> str:
    """Write a file that does not compress; return its SHA-256."""
    chosen, digest = random.Random(seed), hashlib.sha256()
    with path.open("wb") as file:
        for left in range(size, 0, -MIB):
            piece = chosen.randbytes(min(left, MIB))
            digest.update(piece)
            file.write(piece)
    return digest.hexdigest()


def sha(path: Path) -> str:
    """Hash a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def clone(git: Git, house: House, tmp_path: Path, what: str) -> Path:
    """Clone a new repo in which everything called `.bin` is a large file."""
    git.seconds = 900 if FULL else git.seconds
    repo = create(house, f"{what}-{next(_numbers)}")
    git("clone", "-q", house.remote(repo), "work", at=tmp_path)
    return tmp_path / "work"


def again(git: Git, work: Path, name: str = "again") -> Path:
    """Clone the same repo once more, into an empty cache, and let git-lfs check every file."""
    git("clone", "-q", git("remote", "get-url", "origin", at=work), name, at=work.parent)
    git("lfs", "fsck", at=work.parent / name)
    return work.parent / name


@pytest.mark.timeout(1200)
def test_one_large_and_many_small_files_go_and_come_back(house: House, lfs_git: Git, tmp_path: Path) -> None:
    work, before = clone(lfs_git, house, tmp_path, "matrix"), house.log.stat().st_size
    sums = {"large.bin": written(work / "large.bin", LARGE, 1)}
    for number in range(COUNT):
        sums[f"{number}.bin"] = written(work / f"{number}.bin", 64 << 10, 100 + number)
    lfs_git.commit(work, {"empty.bin": b""})
    lfs_git("push", "-q", at=work)
    fresh = again(lfs_git, work)
    assert {name: sha(fresh / name) for name in sums} == sums
    lfs_git.commit(fresh, {"0.bin": b"changed"})
    lfs_git("push", "-q", at=fresh)
    lfs_git("pull", "-q", at=work)
    assert (work / "0.bin").read_bytes() == b"changed"
    through_us = house.asked("PUT", "/lfs/o/", before), house.asked("GET", "/lfs/o/", before)
    if "ceph" in house.folder.name:
        assert through_us == (0, 0), "bytes went through the server"


def test_a_history_is_migrated_to_large_files_and_pushed(house: House, lfs_git: Git, tmp_path: Path) -> None:
    lfs_git("init", "-q", "-b", "main", "work")
    work = lfs_git.home / "work"
    for turn in range(3):
        lfs_git.commit(work, {"a.bin": bytes([turn]) * 20_000, "b.txt": f"{turn}"})
    lfs_git("lfs", "migrate", "import", "--everything", "--include=*.bin", at=work)
    repo = create(house, f"migrated-{next(_numbers)}")
    lfs_git("push", "-q", "--force", house.remote(repo), "main", at=work)
    lfs_git("clone", "-q", house.remote(repo), "again", at=tmp_path)
    for turn in range(3):
        lfs_git("checkout", "-q", f"HEAD~{2 - turn}" if turn < 2 else "main", at=tmp_path / "again")
        assert (tmp_path / "again/a.bin").read_bytes() == bytes([turn]) * 20_000
        lfs_git("checkout", "-q", "main", at=tmp_path / "again")
    lfs_git("lfs", "fetch", "--all", at=tmp_path / "again")
    lfs_git("lfs", "fsck", at=tmp_path / "again")


HUB = """
import hashlib, io, random
repo = api.create_repo("{repo}").repo_id
sizes = {{"one.bin": {one}, "parts.bin": {parts}, "exact.bin": 10 << 20, "object.bin": 6_000_000, "raw.bin": 9 << 20}}
sums = {{}}
os.makedirs("up")
for seed, (name, size) in enumerate(sizes.items()):
    chosen = random.Random(seed)
    data = b"".join(chosen.randbytes(min(left, 1 << 20)) for left in range(size, 0, -(1 << 20)))
    sums[name] = hashlib.sha256(data).hexdigest()
    open("up/" + name, "wb").write(data)
for name in ("one.bin", "parts.bin", "exact.bin"):
    api.upload_file(path_or_fileobj="up/" + name, path_in_repo=name, repo_id=repo)
api.upload_file(path_or_fileobj=open("up/object.bin", "rb"), path_in_repo="object.bin", repo_id=repo)
api.upload_file(path_or_fileobj=io.BytesIO(open("up/raw.bin", "rb").read()), path_in_repo="raw.bin", repo_id=repo)
got = api.snapshot_download(repo, local_dir="down")
out["same"] = all(hashlib.sha256(open("down/" + n, "rb").read()).hexdigest() == sums[n] for n in sums)
out["oids"] = {{f.path: f.lfs.sha256 == sums[f.path] for f in api.list_repo_tree(repo) if f.path in sums}}
os.makedirs("folder")
for n in range(20):
    open(f"folder/{{n}}.safetensors", "wb").write(random.Random(n).randbytes(70_000))
api.upload_folder(folder_path="folder", path_in_repo="many", repo_id=repo)
out["many"] = len(list(api.list_repo_tree(repo, "many")))
"""


@pytest.mark.timeout(1200)
def test_huggingface_hub_uploads_whole_and_in_parts(house: House, tmp_path: Path) -> None:
    parts, before = (LARGE if FULL else 12 * MIB + 5), house.log.stat().st_size
    code = HUB.format(repo=f"ann/hub-{next(_numbers)}", one=2 * MIB, parts=parts)
    out = visit(code, endpoint=house.url, token=house.token, home=tmp_path, seconds=900, xet=False)
    assert out == {"same": True, "oids": dict.fromkeys(out["oids"], True), "many": 20}  # type: ignore[call-overload]
    assert house.asked("POST", "/lfs/complete/", before) == 3
    if house.folder.name.startswith("small"):
        assert house.asked("PUT", "/lfs/part/", before) > 4
    else:
        assert house.asked("PUT", "/lfs/part/", before) == 0, "parts went through the server"


@pytest.mark.timeout(1200)
def test_the_agent_of_huggingface_hub_uploads_in_parts_for_git_lfs(house: House, tmp_path: Path) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "git-lfs").symlink_to(newest_git_lfs())
    (programs / "hf").symlink_to(Path(sys.executable).with_name("hf"))
    git = Git(tmp_path / "home", programs=programs)
    git("lfs", "install", "--skip-repo")
    work = clone(git, house, tmp_path, "agent")
    before = house.log.stat().st_size
    subprocess.run([programs / "hf", "lfs-enable-largefiles", work], env=dict(git.environment), check=True, timeout=60)
    total = written(work / "large.bin", LARGE if FULL else 57 * MIB + 3, 5)
    git.commit(work, {"small.bin": b"small"})
    git("push", "-q", at=work)
    assert sha(again(git, work) / "large.bin") == total
    assert house.asked("POST", "/lfs/complete/", before) == 2


def test_curl_goes_on_where_it_was_cut(house: House, git: Git, tmp_path: Path) -> None:
    need("git-lfs", "curl")
    git("lfs", "install", "--skip-repo")
    work = clone(git, house, tmp_path, "curl")
    oid = written(work / "large.bin", 6 * MIB, 9)
    git.commit(work, {})
    git("push", "-q", at=work)
    name = re.sub(r".*/(ann/[^/]+)$", r"\1", git("remote", "get-url", "origin", at=work))
    action = batch(house, name, "download", oid, 6 * MIB)["actions"]["download"]  # type: ignore[index]
    resolve = f"{house.url}/{name}/resolve/main/large.bin"
    for url, more in ((action["href"], []), (resolve, ["-H", f"Authorization: Bearer {house.token}"])):
        got = tmp_path / "got.bin"
        got.write_bytes((work / "large.bin").read_bytes()[: 2 * MIB + 7])
        curl = ["curl", "-sSfL", "-C", "-", *more, "-o", str(got), "-w", "%{http_code} %{size_download}", url]
        done = subprocess.run(curl, capture_output=True, text=True, check=True, timeout=60)
        assert done.stdout == f"206 {4 * MIB - 7}"
        assert sha(got) == oid
