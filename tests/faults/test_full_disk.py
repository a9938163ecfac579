"""A disk that fills: whoever sends is told so in their program's own words, readers notice nothing, and it passes.

A real server on a file system of 64 MiB. Where nobody may mount one these tests run again in name spaces of their own,
by `unshare -rm`; where that is not allowed either they are skipped.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from registry.config import Config
from registry.db import Database
from tests.clients.test_git import create
from tests.clients.uploading import until
from tests.conftest import QUIET
from tests.services.house import House, open_house
from tests.services.programs import Git, absence, need

pytestmark = [pytest.mark.faults, pytest.mark.xdist_group("full disk")]
MIB = 1 << 20
TUS = {"Tus-Resumable": "1.0.0"}
LFS = "application/vnd.git-lfs+json"
INSIDE = "WEIGHTROOM_TEST_UNSHARED"
# As low as they go, so that a small object has several parts.
PART = 5 * MIB
SETTINGS = {"MIN_FREE": "0", "MULTIPART_THRESHOLD": "5MiB", "PART_SIZE": "5MiB"}


@dataclass(frozen=True)
class Volume:
    """A file system of 64 MiB, with a file that takes what room is wanted."""

    folder: Path

    def fill(self, leave: int = 0) -> None:
        """Leave `leave` bytes free."""
        with (self.folder / "ballast").open("ab", buffering=0) as file:
            # Again until nothing changes: the server writes its log meanwhile.
            while (left := self.free - leave) > 0:
                try:
                    file.write(bytes(min(left, MIB)))
                except OSError:
                    return

    @property
    def free(self) -> int:
        """Bytes that are left."""
        found = os.statvfs(self.folder)
        return found.f_bavail * found.f_frsize

    @contextmanager
    def full(self, leave: int = 0) -> Iterator[None]:
        """Be full while the block runs."""
        try:
            self.fill(leave)
            yield
        finally:
            (self.folder / "ballast").unlink(missing_ok=True)


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Volume]:
    need("git", "git-lfs", "mount")
    folder = tmp_path_factory.mktemp("volume")
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "none", str(folder)]
    if subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        _elsewhere(request.path)
    try:
        yield Volume(folder)
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def _elsewhere(tests: Path) -> None:
    """Run all of these tests where mounting is allowed, and skip the rest of this one."""
    if INSIDE in os.environ or subprocess.run(["unshare", "-rm", "true"], check=False).returncode != 0:
        absence("no file system may be mounted here, neither by us nor in name spaces of our own (unshare -rm)")
    again = ["unshare", "-rm", sys.executable, "-m", "pytest", "-q", "-n", "0", str(tests)]
    done = subprocess.run(
        again, check=False, capture_output=True, text=True, env=os.environ | {INSIDE: "1"}, timeout=250
    )
    assert done.returncode == 0, done.stdout
    pytest.skip("these passed in name spaces of their own, by unshare -rm")


@pytest.fixture(scope="module")
def house(volume: Volume) -> Iterator[House]:
    with open_house(volume.folder / "house", **QUIET, **SETTINGS) as found:
        yield found


@pytest.fixture
def repo(house: House, request: pytest.FixtureRequest) -> str:
    return create(house, request.node.name.removeprefix("test_")[:60].strip("_"))


@pytest.fixture
def work(house: House, repo: str, git: Git, tmp_path: Path) -> Path:
    """A clone of a repo that has one large file and one small one."""
    git("lfs", "install", "--skip-repo")
    git("clone", "-q", house.remote(repo), "work", at=tmp_path)
    git.commit(tmp_path / "work", {"first.safetensors": noise(MIB), "README.md": "# Kept\n"})
    git("push", "-q", "origin", "HEAD:main", at=tmp_path / "work")
    # The client would otherwise come back for half a minute.
    git("config", "lfs.transfer.maxretries", "1", at=tmp_path / "work")
    return tmp_path / "work"


def noise(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def cloned(house: House, repo: str, git: Git, target: Path) -> Path:
    """Clone everything, also large files, and have git and git-lfs check it."""
    git("clone", "-q", house.remote(repo), str(target))
    git("fsck", "--full", "--strict", at=target)
    git("lfs", "fsck", at=target)
    return target


def left_behind(house: House) -> list[str]:
    """Files of writes that did not end."""
    data = house.folder / "data"
    places = [data / "objects/tmp", *(data / "slots").glob("*/quarantine"), *(data / "slots").glob("*/work")]
    return [str(path) for place in places for path in place.rglob("*") if path.is_file() and path.name != "sent"]


def test_git_lfs_is_told_that_the_disk_is_full(
    house: House, volume: Volume, repo: str, work: Path, git: Git, tmp_path: Path
) -> None:
    git.commit(work, {"second.safetensors": noise(2 * MIB, 2)})
    with volume.full(leave=MIB):
        said = git.attempt("push", "origin", "HEAD:main", at=work)
        assert said.returncode != 0
        assert "free space, then send again" in said.stderr
        assert cloned(house, repo, git, tmp_path / "early").joinpath("first.safetensors").stat().st_size == MIB
    git("push", "-q", "origin", "HEAD:main", at=work)
    assert (cloned(house, repo, git, tmp_path / "late") / "second.safetensors").read_bytes() == noise(2 * MIB, 2)
    assert house.findings() == []


def test_git_is_told_that_the_disk_is_full(
    house: House, volume: Volume, repo: str, work: Path, git: Git, tmp_path: Path
) -> None:
    before = git("ls-remote", house.remote(repo))
    git.commit(work, {"large.txt": noise(MIB, 3).hex()})
    for leave in (300 << 10, 0):
        with volume.full(leave):
            said = git.attempt("push", "origin", "HEAD:main", at=work)
            assert said.returncode != 0
            assert "unpack" in said.stderr
            assert "disk is full" in said.stderr
            assert left_behind(house) == []
            assert git("ls-remote", house.remote(repo)) == before
            cloned(house, repo, git, tmp_path / f"early{leave}")
    git("push", "-q", "origin", "HEAD:main", at=work)
    assert (cloned(house, repo, git, tmp_path / "late") / "large.txt").stat().st_size == 2 * MIB
    assert house.findings() == []


def test_a_database_without_room_is_told_by_every_door(
    house: House, volume: Volume, repo: str, work: Path, git: Git, tmp_path: Path
) -> None:
    with httpx.Client(base_url=house.url, headers={"Authorization": f"Bearer {house.token}"}) as hub:
        with volume.full():
            refusals = [hub.post("/api/repos/create", json={"name": "more"}), commit(hub, repo)]
            refusals.append(batch(hub, repo, b"x", ["basic"]))
            assert [answer.status_code for answer in refusals] == [507, 507, 507]
            assert all("full" in answer.text for answer in refusals)
            for path in (
                f"/{repo}/resolve/main/first.safetensors",
                f"/api/models/{repo}",
                f"/{repo}/raw/main/README.md",
            ):
                hub.get(path).raise_for_status()
            assert (hub.get("/health").status_code, hub.get("/ready").status_code) == (200, 503)
            cloned(house, repo, git, tmp_path / "early")
        assert hub.get("/ready").status_code == 200
        assert commit(hub, repo).status_code == 200
        hub.post("/api/repos/create", json={"name": "more"}).raise_for_status()
    assert house.findings() == []
    # The log had no room either; it goes on.
    assert '"path": "/api/repos/create", "status": 200' in house.log.read_text().splitlines()[-1]


def commit(hub: httpx.Client, repo: str) -> httpx.Response:
    lines = [
        {"key": "header", "value": {"summary": "by the API"}},
        {"key": "file", "value": {"path": "new.txt", "content": "new\n", "encoding": "utf-8"}},
    ]
    body = "\n".join(map(json.dumps, lines))
    return hub.post(f"/api/models/{repo}/commit/main", content=body, headers={"Content-Type": "application/x-ndjson"})


def batch(hub: httpx.Client, repo: str, body: bytes, transfers: list[str]) -> httpx.Response:
    wanted = {"oid": hashlib.sha256(body).hexdigest(), "size": len(body)}
    sent = {"operation": "upload", "transfers": transfers, "objects": [wanted]}
    return hub.post(f"/{repo}.git/info/lfs/objects/batch", json=sent, headers={"Accept": LFS, "Content-Type": LFS})


def lapse(house: House) -> None:
    """Let half a minute pass: a writer's lease could not be given back in a database without room."""
    database = Database(Config.from_environ(house.environment).database_url)
    with database.write() as connection:
        connection.exec_driver_sql("UPDATE lfs_uploads SET lease_until = created_at WHERE lease <> ''")
    database.dispose()


@dataclass(frozen=True)
class Sending:
    """One object of some parts on its way in."""

    http: httpx.Client
    action: dict[str, object]
    way: str
    body: bytes

    def send(self, source: Iterator[bytes], offset: int = 0) -> httpx.Response:
        """Send what may meet the end of the disk: everything, or the first of the parts."""
        if self.way == "tus":
            told = TUS | {"Upload-Offset": str(offset), "Content-Type": "application/offset+octet-stream"}
            return self.http.patch(self.hrefs[0], content=source, headers=told)
        return self.http.put(self.hrefs[0], content=source)

    @property
    def first(self) -> bytes:
        """What goes in one request."""
        return self.body[:PART] if self.way == "multipart" else self.body

    @property
    def hrefs(self) -> list[str]:
        """Where bytes go."""
        header = dict(self.action.get("header", {}))  # type: ignore[call-overload]  # read from JSON
        return [header[name] for name in sorted(header) if name.isdigit()] or [str(self.action["href"])]

    def offset(self) -> int:
        """Say where to go on."""
        return int(self.http.head(self.hrefs[0], headers=TUS).headers["upload-offset"]) if self.way == "tus" else 0

    def go_on(self) -> None:
        """Send to the same addresses what is missing."""
        offset = self.offset()
        assert (offset > 0) == (self.way == "tus")
        sent = [self.send(iter([self.first[offset:]]), offset).raise_for_status()]
        if self.way == "multipart":
            for number, href in enumerate(self.hrefs[1:], 1):
                part = self.body[number * PART : (number + 1) * PART]
                sent.append(self.http.put(href, content=part).raise_for_status())
            parts = [{"partNumber": number, "etag": each.headers["etag"]} for number, each in enumerate(sent, 1)]
            told = {"oid": hashlib.sha256(self.body).hexdigest(), "parts": parts}
            self.http.post(str(self.action["href"]), json=told).raise_for_status()


@pytest.mark.parametrize("way", ["basic", "tus", "multipart"])
def test_a_disk_that_fills_in_the_middle_of_a_body(house: House, volume: Volume, way: str) -> None:
    repo, body = create(house, f"middle-{way}"), noise(12 * MIB, len(way))
    told = {"oid": hashlib.sha256(body).hexdigest(), "size": len(body)}
    with httpx.Client(headers={"Authorization": f"Bearer {house.token}"}, base_url=house.url, timeout=60) as http:
        answer = batch(http, repo, body, ["basic", way])
        sending = Sending(http, answer.json()["objects"][0]["actions"]["upload"], way, body)

        def filling() -> Iterator[bytes]:
            middle = len(sending.first) * 3 // 4
            yield sending.first[:middle]
            # The first part of a resumable upload is whole and durable by then.
            until(lambda: way != "tus" or sending.offset() == 8 * MIB)
            volume.fill()
            yield sending.first[middle:]

        with volume.full(leave=16 * MIB):
            refused = sending.send(filling())
            # Rows lie on the same disk: whichever of the two wanted more of it first says so, in advance or not.
            assert refused.status_code == 507, refused.text
            assert "full" in refused.text or "free space" in refused.text, refused.text
        assert way != "basic" or left_behind(house) == []
        down = http.post(f"/{repo}.git/info/lfs/objects/batch", json={"operation": "download", "objects": [told]})
        assert down.json()["objects"][0]["error"]["code"] == 404
        assert not list((house.folder / "data/objects/lfs").rglob(f"{told['oid']}*"))

        lapse(house)
        sending.go_on()
        until(lambda: http.post(f"/{repo}.git/info/lfs/verify", json=told).status_code == 200)
    assert house.findings() == []
