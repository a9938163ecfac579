"""A server that dies at any durable step of a write loses nothing that it acknowledged, and needs no repair."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults import dying
from tests.services.forked import Forked
from tests.services.house import House
from tests.services.programs import Git, need

pytestmark = pytest.mark.faults
NEVER = 10**9
REPO = "ann/m"


class Victim(House):
    """A house whose server can be told when to die."""

    def start_to_die(self, step: int) -> None:
        """Start the server; it dies before its `step`-th durable step from now on."""
        self.steps = self.folder / "steps"
        self.steps.write_text("")
        serve = ["serve", "--no-sidecar", "--port", str(self.port)]
        self.process = Forked(dying.main, [str(step), str(self.steps), *serve], self.environment, self.log)
        while not self.answers():
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.02)
        self.process.send_signal(signal.SIGUSR1)


@pytest.fixture(scope="module")
def furnished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A data folder with one repo of one commit, and a clone of it, to be copied; and its token."""
    need("git", "git-lfs")
    folder = tmp_path_factory.mktemp("template")
    house = Victim(folder)
    house.furnish()
    house.start()
    call(house, "POST", "/api/repos/create", {"name": "m", "type": "model"})
    git = Git(folder / "home")
    git("clone", "-q", house.remote(REPO), str(folder / "clone"))
    house.stop()
    return folder, house.token


def call(house: House, method: str, path: str, body: object, kind: str = "application/json") -> bytes:
    """Call the API as the admin."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"Authorization": f"Bearer {house.token}", "Content-Type": kind}
    with urllib.request.urlopen(urllib.request.Request(house.url + path, data, headers, method=method)) as answer:
        return bytes(answer.read())


def copy_of(furnished: tuple[Path, str], folder: Path) -> Victim:
    """A house of its own with the same content."""
    template, token = furnished
    shutil.copytree(template / "data", folder / "data")
    shutil.copytree(template / "clone", folder / "clone")
    return Victim(folder, token=token)


Operation = Callable[[Victim, Git], bool]


def push(house: Victim, git: Git) -> bool:
    """Push one commit; True if git says that it is there."""
    clone = house.folder / "clone"
    if not (clone / "new.txt").exists():
        git.commit(clone, {"new.txt": "new\n"})
    return git.attempt("push", "-q", house.remote(REPO), "HEAD:main", at=clone).returncode == 0


def push_weights(house: Victim, git: Git) -> bool:
    """Push a commit with an LFS object."""
    clone = house.folder / "clone"
    if not (clone / "w.safetensors").exists():
        git("lfs", "install", "--local", at=clone)
        git.commit(clone, {"w.safetensors": WEIGHTS})
    # One try: git-lfs would otherwise wait half a minute for a server that is gone.
    settings = ["-c", "lfs.transfer.maxretries=1", "-c", "lfs.locksverify=false"]
    return git.attempt(*settings, "push", "-q", house.remote(REPO), "HEAD:main", at=clone).returncode == 0


def hub_commit(house: Victim, git: Git) -> bool:
    """Commit through the API."""
    lines = [
        {"key": "header", "value": {"summary": "by the API"}},
        {"key": "file", "value": {"path": "new.txt", "content": "new\n", "encoding": "utf-8"}},
    ]
    body = "\n".join(json.dumps(line) for line in lines).encode()
    try:
        call(house, "POST", f"/api/models/{REPO}/commit/main", body, "application/x-ndjson")
    except OSError:
        return False
    return True


WEIGHTS = hashlib.sha256(b"weights").digest() * 4096


def steps_of(operation: Operation, furnished: tuple[Path, str], folder: Path) -> int:
    """Count the durable steps of an operation."""
    house = copy_of(furnished, folder)
    house.start_to_die(NEVER)
    assert operation(house, Git(folder / "home"))
    assert house.stop() == 0
    return len(house.steps.read_text().splitlines())


@pytest.mark.parametrize("operation", [push, push_weights, hub_commit], ids=lambda operation: operation.__name__)
@pytest.mark.timeout(900)
def test_death_at_every_durable_step(furnished: tuple[Path, str], tmp_path: Path, operation: Operation) -> None:
    steps = steps_of(operation, furnished, tmp_path / "count")
    assert steps >= 4
    for step in range(1, steps + 1):
        survive(operation, furnished, tmp_path / f"step{step}", step)


def survive(operation: Operation, furnished: tuple[Path, str], folder: Path, step: int) -> None:
    """Die at one step, come back, and find everything as promised."""
    house, git = copy_of(furnished, folder), Git(folder / "home")
    house.start_to_die(step)
    said_yes = operation(house, git)
    assert house.process is not None
    assert house.process.wait(timeout=60) == -signal.SIGKILL, f"step {step} was not reached"
    house.process = None

    assert house.findings() == [], f"step {step}"
    start = time.monotonic()
    house.start()
    assert time.monotonic() - start < 15
    if said_yes:
        assert has_change(house, git, folder / "acknowledged"), f"step {step}: acknowledged and lost"
    assert operation(house, git), f"step {step}: the retry fails"
    assert has_change(house, git, folder / "retried")
    house.stop()
    shutil.rmtree(folder)


def has_change(house: Victim, git: Git, target: Path) -> bool:
    """True if a fresh clone is whole and holds the change."""
    git("clone", "-q", house.remote(REPO), str(target))
    git("fsck", "--full", "--strict", at=target)
    git("lfs", "install", "--local", at=target)
    git("lfs", "pull", at=target)
    weights = target / "w.safetensors"
    return (target / "new.txt").exists() or (weights.exists() and weights.read_bytes() == WEIGHTS)
