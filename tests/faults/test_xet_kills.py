"""A server killed before durable steps of an upload by chunks: the same command, given again, succeeds.

The client is the one that users have. Bytes go through the server to a folder, or straight to a bucket by grants.
`WEIGHTROOM_TEST_SCALE=full` dies before every step, not before every third.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from registry import cli
from tests.clients.visitor import surroundings
from tests.faults.test_upload_kills import Steps
from tests.services.forked import Forked
from tests.services.house import House
from tests.services.programs import need
from tests.services.s3 import make_bucket, moto

pytestmark = [pytest.mark.faults, pytest.mark.clients, pytest.mark.timeout(900)]
NEVER = 10**9
EVERY = 1 if os.environ.get("WEIGHTROOM_TEST_SCALE") == "full" else 3
SIZE = 3_000_000
S3 = [pytest.mark.s3, pytest.mark.xdist_group("s3")]

CLIENT = """
import hashlib, json, random, sys
from huggingface_hub import HfApi
api = HfApi()
api.create_repo("ann/m")
for line in sys.stdin:
    seed, size = json.loads(line)
    try:
        data = random.Random(seed).randbytes(size)
        api.upload_file(repo_id="ann/m", path_in_repo=f"{seed}.bin", path_or_fileobj=data)
        said = ""
    except Exception as error:
        said = repr(error)[:500] or "it failed"
    print(json.dumps(said), flush=True)
"""


class Uploader:
    """A client that stays for many uploads; it gives up on a dead server at once, as its user would."""

    def __init__(self, house: House, home: Path) -> None:
        environment = surroundings(endpoint=house.url, token=house.token, home=home, xet=True)
        environment |= {"HF_XET_CLIENT_RETRY_MAX_ATTEMPTS": "1", "HF_XET_CLIENT_RETRY_BASE_DELAY": "100ms"}
        self._process = subprocess.Popen(
            [sys.executable, "-c", CLIENT],
            env=environment,
            cwd=home,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )

    def upload(self, seed: int) -> str:
        """Upload `content(seed)` as `{seed}.bin`; return why it failed, or nothing."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([seed, SIZE]) + "\n")
        self._process.stdin.flush()
        return str(json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        """Send the client home."""
        self._process.communicate(timeout=60)


class Victim(House):
    """A house whose server can be told when to die; `steps` logs what it did since it was armed."""

    def start_to_die(self, step: int) -> None:
        """Start the server; it dies before its `step`-th durable step from now on."""
        self.steps = self.folder / "steps"
        self.steps.write_text("")
        serve = ["serve", "--no-sidecar", "--port", str(self.port)]
        self.process = Forked(doomed, [str(step), str(self.steps), *serve], self.environment, self.log)
        while not self.answers():
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.02)
        self.process.send_signal(signal.SIGUSR1)

    def has(self, seed: int) -> bool:
        """True if the file is served whole; what is served otherwise is nothing."""
        url = f"{self.url}/ann/m/resolve/main/{seed}.bin"
        command = ["curl", "-sS", "-o", str(self.folder / "got"), "-w", "%{http_code}"]
        command += ["-H", f"Authorization: Bearer {self.token}", url]
        status = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
        if status == "404":
            return False
        assert status == "200"
        assert hashlib.sha256((self.folder / "got").read_bytes()).digest() == hashlib.sha256(content(seed)).digest()
        return True


def doomed(arguments: Sequence[str]) -> int:
    """Run the command line, counting steps: `arguments` are the step, the log, and those of `weightroom`."""
    steps = Steps(int(arguments[0]), arguments[1])
    signal.signal(signal.SIGUSR1, steps.arm)
    for name in ("rename", "replace", "link", "unlink"):
        steps.watch(name)
    steps.watch_commits()
    steps.watch_bucket()
    return cli.main(arguments[2:])


def content(seed: int) -> bytes:
    """Make what is uploaded."""
    return random.Random(seed).randbytes(SIZE)


@pytest.fixture(params=["folder", pytest.param("bucket", marks=S3)])
def house(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Victim]:
    """A house that nobody else uses."""
    if request.param == "folder":
        yield from furnished(tmp_path / "house", {})
        return
    with moto() as endpoint:
        make_bucket(endpoint, "kills")
        keys = {"WEIGHTROOM_S3_ACCESS_KEY": endpoint.access_key, "WEIGHTROOM_S3_SECRET_KEY": endpoint.secret_key}
        url = f"s3://kills/xet?endpoint={endpoint.url}&region={endpoint.region}&style=path"
        yield from furnished(tmp_path / "house", {"WEIGHTROOM_STORAGE": url, **keys})


def furnished(folder: Path, settings: dict[str, Any]) -> Iterator[Victim]:
    need("curl")
    folder.mkdir()
    house = Victim(folder, settings)
    house.furnish()
    yield house
    if house.process is not None:
        house.stop(signal.SIGKILL)


def test_the_same_command_succeeds_after_any_death(house: Victim, tmp_path: Path) -> None:
    house.start_to_die(NEVER)
    client = Uploader(house, tmp_path / "client")
    try:
        assert client.upload(0) == ""
        house.steps.write_text("")
        assert client.upload(NEVER) == ""
        count = len(house.steps.read_text().splitlines())
        assert count > 4, house.steps.read_text()
        house.stop()
        died = [survive(house, client, step) for step in range(count, 0, -EVERY)]
        assert sum(died) > len(died) // 2, "hardly any step was reached"
    finally:
        client.close()


def survive(house: Victim, client: Uploader, step: int) -> bool:
    """Die at a step, come back, find everything as promised; False if the upload took fewer steps this time."""
    house.start_to_die(step)
    refusal = client.upload(step)
    assert house.process is not None
    died = house.process.poll() is not None or bool(refusal)
    if died:
        assert house.process.wait(timeout=60) == -signal.SIGKILL, f"step {step}: {refusal}"
        house.process = None
    else:
        house.stop()
    assert house.findings() == [], f"step {step}"
    house.start()
    if not refusal:
        assert house.has(step), f"step {step}: acknowledged and lost"
    assert client.upload(step) == "", f"step {step}: the retry fails"
    assert house.has(step)
    assert house.has(0)
    house.stop()
    return died
