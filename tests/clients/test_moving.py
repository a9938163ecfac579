"""A house moves from a disk to a bucket and back while people push, clone and download; no byte is lost or other."""

from __future__ import annotations

import contextlib
import itertools
import json
import random
import shutil
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.conftest import QUIET, bucket
from tests.services import s3
from tests.services.house import House, open_house
from tests.services.programs import Git, need

pytestmark = [pytest.mark.clients, pytest.mark.s3, pytest.mark.xdist_group("s3")]

REPO = "ann/moved"


@dataclass
class People:
    """A writer and readers of one repo, who never stop; `files` is what was pushed and acknowledged."""

    house: House
    git: Git
    folder: Path
    files: dict[str, bytes] = field(default_factory=dict)
    told: list[BaseException] = field(default_factory=list)
    rounds: dict[str, int] = field(default_factory=dict)
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def settle(self) -> None:
        """Make the repo, and push a few commits into it."""
        headers = {"Authorization": f"Bearer {self.house.token}", "Content-Type": "application/json"}
        body = json.dumps({"name": REPO.partition("/")[2]}).encode()
        request = urllib.request.Request(f"{self.house.url}/api/repos/create", body, headers)
        urllib.request.urlopen(request).close()
        self.git("lfs", "install", "--skip-repo")
        self.git("clone", "-q", self.house.remote(REPO), str(self.folder / "work"))
        for _ in range(2):
            self.push()

    def push(self) -> None:
        """Push a commit with two large files and a small one."""
        number = next(self.numbers)
        chance = random.Random(number)
        new = {f"{number}-{at}.bin": chance.randbytes(chance.choice((1, 70_000, 700_000))) for at in range(2)}
        new[f"{number}.txt"] = b"commit %d\n" % number
        (self.folder / "work" / ".gitattributes").write_text("*.bin filter=lfs diff=lfs merge=lfs -text\n")
        self.git.commit(self.folder / "work", dict(new), f"commit {number}")
        self.git("push", "-q", at=self.folder / "work")
        self.files |= new

    def clone(self) -> None:
        """Clone all, and compare every byte that was acknowledged before."""
        expected, target = dict(self.files), self.folder / f"clone-{next(self.numbers)}"
        self.git("clone", "-q", self.house.remote(REPO), str(target))
        assert {name: (target / name).read_bytes() for name in expected} == expected
        self.git("lfs", "fsck", at=target)
        shutil.rmtree(target)

    def download(self) -> None:
        """Download one file by the Hub's address."""
        name = random.choice(list(self.files))
        headers = {"Authorization": f"Bearer {self.house.token}"}
        request = urllib.request.Request(f"{self.house.url}/{REPO}/resolve/main/{name}", headers=headers)
        with urllib.request.urlopen(request, timeout=30) as answer:
            assert answer.read() == self.files[name]

    @contextlib.contextmanager
    def busy(self) -> Iterator[None]:
        """Do all of it over and over while the block runs; what failed for anybody fails the test."""
        done = threading.Event()

        def repeat(name: str, act: Callable[[], None]) -> None:
            try:
                while not done.is_set():
                    act()
                    self.rounds[name] = self.rounds.get(name, 0) + 1
                    # People breathe, or the copy would have no processor left to run on.
                    done.wait(0.5)
            except BaseException as error:
                self.told.append(error)

        acts = {"push": self.push, "clone": self.clone, "download": self.download}
        threads = [threading.Thread(target=repeat, args=pair) for pair in acts.items()]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            done.set()
            for thread in threads:
                thread.join(60)
        assert self.told == []
        assert set(self.rounds) == set(acts)
        self.rounds.clear()


def restart(house: House, **settings: str) -> None:
    """Stop, and start with other settings of the storage."""
    house.stop()
    kept = {name: value for name, value in house.settings.items() if "STORAGE" not in name}
    house.settings = kept | {f"WEIGHTROOM_{name}": value for name, value in settings.items()}
    house.start()


def killed(house: House, seconds: float) -> int:
    """Run the copy and kill it after a while; return how it ended."""
    command = [sys.executable, "-m", "registry.cli", "storage", "copy", "--jobs", "2"]
    copy = subprocess.Popen(command, env=house.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        return copy.wait(seconds)
    except subprocess.TimeoutExpired:
        copy.send_signal(signal.SIGKILL)
        return copy.wait(10)


def move(people: People, *, kills: int) -> None:
    """Copy while people go on."""
    with people.busy():
        # Beginning takes a command about a second; then it is in the middle of something.
        ends = [killed(people.house, random.uniform(1.0, 2.0)) for _ in range(kills)]
        assert set(ends) <= {0, -signal.SIGKILL}
        done = people.house.cli("storage", "copy", "--verify", "--json")
        assert json.loads(done.stdout.splitlines()[-1])["bad"] == 0


def test_a_house_moves_to_a_bucket_and_back_while_it_serves(tmp_path: Path) -> None:
    need("git-lfs")
    with s3.moto() as endpoint:
        s3.make_bucket(endpoint, "weights")
        shelf = bucket(endpoint)
        keys = {name: value for name, value in shelf.items() if name != "STORAGE"}
        with open_house(tmp_path / "house", **QUIET, **keys) as house:
            people = People(house, Git(tmp_path / "home"), tmp_path)
            people.settle()
            first, second = f"file:{tmp_path}/house/data/objects", f"file:{tmp_path}/second"
            restart(house, STORAGE=shelf["STORAGE"], STORAGE_FROM=first)
            move(people, kills=1)
            # From here on nobody looks into the first folder: all is in the bucket, or was lost.
            restart(house, STORAGE=second, STORAGE_FROM=shelf["STORAGE"])
            move(people, kills=0)
            assert "can be unset" in house.cli("storage", "status").stdout
            restart(house, STORAGE=second)
            people.push()
            people.clone()
            assert house.cli("fsck", "--read-data", check=False).stdout == ""
