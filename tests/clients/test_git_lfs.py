"""The real git-lfs against the LFS door alone: a memory host, a disk shelf, and a bare git repository on the disk."""

from __future__ import annotations

import hashlib
import os
import random
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from lfs.local import LocalStore
from tests.lfs.alone import application
from tests.lfs.conftest import serving
from tests.lfs.memory_host import MemoryHost
from tests.services.programs import need

pytestmark = pytest.mark.clients

MIB = 1 << 20


class Clone:
    """A work tree of one user, whose git-lfs speaks to `url`."""

    def __init__(self, folder: Path, user: str, url: str, remote: Path) -> None:
        self.folder = folder
        home = folder.with_name(folder.name + "-home")
        home.mkdir()
        self._env = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_TERMINAL_PROMPT": "0",
        }
        self.run("git", "init", "-q", "-b", "main", str(folder), cwd=folder.parent)
        self.git("lfs", "install", "--local")
        parts = urlsplit(url)
        self.git("config", "lfs.url", f"http://{user}:{user}@{parts.netloc}/org/model.git/info/lfs")
        self.git("config", "lfs.locksverify", "true")
        self.git("config", "user.name", user)
        self.git("config", "user.email", f"{user}@example.org")
        self.git("remote", "add", "origin", str(remote))

    def git(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.run("git", *words, check=check)

    def run(self, *words: str, check: bool = True, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(words, cwd=cwd or self.folder, env=self._env, capture_output=True, text=True, timeout=120)
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    def commit(self, name: str, body: bytes) -> None:
        (self.folder / name).write_bytes(body)
        self.git("lfs", "track", "*.bin")
        self.git("add", ".")
        self.git("commit", "-q", "-m", f"add {name}")


@pytest.fixture
def host() -> MemoryHost:
    return MemoryHost()


@pytest.fixture
def url(host: MemoryHost, tmp_path: Path) -> Iterator[str]:
    with serving(application(host, LocalStore(tmp_path / "shelf", min_free=0, fsync=False))) as address:
        yield address


@pytest.fixture
def remote(tmp_path: Path) -> Path:
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(tmp_path / "remote.git")], check=True)
    return tmp_path / "remote.git"


@pytest.fixture
def ann(tmp_path: Path, url: str, remote: Path) -> Clone:
    need("git", "git-lfs")
    return Clone(tmp_path / "ann", "ann", url, remote)


def test_what_one_clone_pushes_another_pulls(ann: Clone, tmp_path: Path, url: str, remote: Path) -> None:
    large, small = random.Random(1).randbytes(50 * MIB), random.Random(2).randbytes(10)
    ann.commit("large.bin", large)
    ann.commit("small.bin", small)
    ann.git("push", "-q", "origin", "main")
    bob = Clone(tmp_path / "bob", "bob", url, remote)
    bob.git("pull", "-q", "origin", "main")
    assert (bob.folder / "large.bin").read_bytes() == large
    assert (bob.folder / "small.bin").read_bytes() == small
    bob.git("lfs", "fsck")


def test_a_second_push_sends_no_bytes_again(ann: Clone, host: MemoryHost) -> None:
    ann.commit("a.bin", b"same" * 1000)
    ann.git("push", "-q", "origin", "main")
    uploads = len(host.uploads)
    ann.commit("b.bin", b"same" * 1000)
    ann.git("push", "-q", "origin", "main")
    assert len(host.uploads) == uploads


def test_three_hundred_files_go_through_in_batches(ann: Clone, tmp_path: Path, url: str, remote: Path) -> None:
    for number in range(300):
        (ann.folder / f"{number}.bin").write_bytes(b"weights %d" % number)
    ann.commit("last.bin", b"")
    ann.git("push", "-q", "origin", "main")
    bob = Clone(tmp_path / "bob", "bob", url, remote)
    bob.git("pull", "-q", "origin", "main")
    assert {path.name: path.read_bytes() for path in bob.folder.glob("*.bin")} == {
        path.name: path.read_bytes() for path in ann.folder.glob("*.bin")
    }


def test_a_download_is_resumed_by_range(ann: Clone, url: str) -> None:
    body = random.Random(3).randbytes(5 * MIB)
    ann.commit("model.bin", body)
    ann.git("push", "-q", "origin", "main")
    oid = re.search(r"[0-9a-f]{64}", ann.git("lfs", "ls-files", "-l").stdout)
    assert oid is not None
    # What git-lfs keeps of a download that broke off, and where it goes on.
    partial = ann.folder / ".git/lfs/incomplete" / f"{oid[0]}.part"
    stored = ann.folder / ".git/lfs/objects" / oid[0][:2] / oid[0][2:4] / oid[0]
    stored.unlink()
    partial.parent.mkdir(exist_ok=True)
    partial.write_bytes(body[: 2 * MIB])
    ann.git("lfs", "fetch", "origin", "main")
    assert stored.read_bytes() == body


def test_a_file_that_another_user_locked_cannot_be_pushed(ann: Clone, tmp_path: Path, url: str, remote: Path) -> None:
    ann.commit("model.bin", b"one")
    ann.git("push", "-q", "origin", "main")
    bob = Clone(tmp_path / "bob", "bob", url, remote)
    bob.git("pull", "-q", "origin", "main")
    ann.git("lfs", "lock", "model.bin")
    assert "model.bin" in bob.git("lfs", "locks").stdout
    bob.commit("model.bin", b"two")
    refused = bob.git("push", "origin", "main", check=False)
    assert refused.returncode != 0
    assert "model.bin" in refused.stdout
    assert bob.git("lfs", "unlock", "--force", "model.bin", check=False).returncode != 0
    ann.git("lfs", "unlock", "model.bin")
    assert ann.git("lfs", "locks").stdout == ""
    bob.git("push", "-q", "origin", "main")


def test_a_full_quota_ends_a_push_and_shows_the_reason(ann: Clone, host: MemoryHost) -> None:
    host.quota = 10
    ann.commit("model.bin", b"x" * 11)
    refused = ann.git("push", "origin", "main", check=False)
    assert refused.returncode != 0
    assert "The repo may hold 10 bytes" in refused.stderr


def test_who_may_only_read_cannot_push(tmp_path: Path, url: str, remote: Path) -> None:
    need("git", "git-lfs")
    eve = Clone(tmp_path / "eve", "eve", url, remote)
    eve.commit("model.bin", b"x")
    assert eve.git("push", "origin", "main", check=False).returncode != 0


def test_two_hundred_megabytes_pass_in_bounded_memory(tmp_path: Path) -> None:
    piece = random.Random(4).randbytes(MIB)
    wanted = {"oid": hashlib.sha256(piece * 200).hexdigest(), "size": 200 * MIB}
    with process(tmp_path) as (url, pid), httpx.Client(base_url=url, auth=("ann", "ann"), timeout=60) as ann:

        def href(operation: str) -> str:
            asked = {"operation": operation, "objects": [wanted]}
            (item,) = ann.post("/org/model.git/info/lfs/objects/batch", json=asked).json()["objects"]
            found: str = item["actions"][operation]["href"]
            return found

        into, before = href("upload"), peak(pid)
        assert httpx.put(into, content=(piece for _ in range(200)), timeout=60).status_code == 200
        with httpx.stream("GET", href("download")) as answer:
            assert sum(len(block) for block in answer.iter_raw()) == 200 * MIB
        assert peak(pid) - before < 100 * MIB


@contextmanager
def process(folder: Path) -> Iterator[tuple[str, int]]:
    """Serve from a process of its own, so that its memory can be read."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "tests.lfs.alone", str(port), str(folder / "shelf")]
    server = subprocess.Popen(command, cwd=Path(__file__).parents[2])
    try:
        end = time.monotonic() + 20
        while not _listens(port) and server.poll() is None and time.monotonic() < end:
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}", server.pid
    finally:
        server.terminate()
        server.wait(10)


def peak(pid: int) -> int:
    """Return the most memory a process ever had resident, in bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) << 10


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
