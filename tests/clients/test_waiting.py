"""Real clients whose large files are still being checked, by a server that lets another process prove them."""

from __future__ import annotations

import hashlib
import json
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from lfs.host import Upload
from lfs.pointer import Pointer, canonical
from lfs.shelves import open_store
from lfs.store import lfs_key
from registry.access import Access
from registry.config import Config
from registry.db import Database
from registry.names import RepoId
from tests.clients.test_git import create, refs
from tests.registry.linked import Linked
from tests.services.house import House
from tests.services.programs import Git, need

pytestmark = pytest.mark.clients
BODY = b"7 bytes"
OID = hashlib.sha256(BODY).hexdigest()
ME = "f" * 32


@dataclass
class Process:
    """What another process of the same registry does: it holds an upload that arrived, and ends it.

    The bytes are in the store, so that other tests find a sound house.
    """

    house: House
    linked: Linked
    repo: str
    upload: Upload

    @classmethod
    def hold(cls, house: House, database: Database, repo: str) -> Process:
        """Let an object arrive in a repo, leased so that the server's own prover keeps away from it."""
        config = Config.from_environ(house.environment)
        keys = {"access_key": config.s3_access_key, "secret_key": config.s3_secret_key}
        open_store(config.storage_url, **keys).put(lfs_key(OID), BODY, len(BODY), OID)
        linked = Linked(database)
        repo_id = Access(database).visit(house.token, RepoId("model", *repo.split("/"))).repo.id
        upload = linked.begin(repo_id, OID, 7, "multipart")
        assert linked.uploads.hold(upload.id, ME, 600)
        linked.uploads.arrive(upload.id, "key")
        return cls(house, linked, repo, upload)


@pytest.fixture
def process(house: House, tmp_path: Path) -> Iterator[Process]:
    """A new repo in which an object has arrived."""
    need("git")
    database = Database(Config.from_environ(house.environment).database_url)
    name = "wait-" + tmp_path.name[-24:].strip("-_.").replace("--", "-").replace("_", "-")
    yield Process.hold(house, database, create(house, name))
    database.dispose()


def _pushing(process: Process, git: Git, folder: Path) -> subprocess.Popen[str]:
    """Start to push a pointer to the object; return when git says that it is being checked."""
    git("clone", "-q", process.house.remote(process.repo), str(folder))
    git.commit(folder, {"w.bin": canonical(Pointer(OID, 7))})
    # Without a terminal git asks the server to be quiet, unless it is told otherwise.
    command = ["git", "push", "--progress"]
    running = subprocess.Popen(command, cwd=folder, env=dict(git.environment), stderr=subprocess.PIPE, text=True)
    late = threading.Timer(30, running.kill)
    late.start()
    assert running.stderr is not None
    assert any("1 uploaded object (7 bytes) is being checked" in line for line in running.stderr)
    late.cancel()
    return running


def _ended(running: subprocess.Popen[str]) -> tuple[int, str]:
    _, said = running.communicate(timeout=30)
    return running.returncode, said


def test_git_is_told_and_waits_until_another_process_proves(process: Process, git: Git, tmp_path: Path) -> None:
    running = _pushing(process, git, tmp_path / "work")
    process.linked.finish(process.upload)
    status, said = _ended(running)
    assert status == 0, said
    assert refs(git, process.house.remote(process.repo))["HEAD"] == git("rev-parse", "HEAD", at=tmp_path / "work")


def test_git_is_told_which_file_failed_and_why(process: Process, git: Git, tmp_path: Path) -> None:
    before = refs(git, process.house.remote(process.repo))
    running = _pushing(process, git, tmp_path / "work")
    process.linked.uploads.fail(process.upload.id, "The bytes that came hash to something else.")
    status, said = _ended(running)
    assert status != 0
    assert f"LFS object {OID} (w.bin) failed its check: The bytes that came hash" in said
    assert refs(git, process.house.remote(process.repo)) == before


def _commit_body() -> bytes:
    header = {"key": "header", "value": {"summary": "Add", "description": ""}}
    large = {"key": "lfsFile", "value": {"path": "w.bin", "algo": "sha256", "oid": OID, "size": 7}}
    return b"".join(json.dumps(line).encode() + b"\n" for line in (header, large))


def test_a_hub_client_that_leaves_has_not_committed(process: Process, git: Git) -> None:
    house, body = process.house, _commit_body()
    before = refs(git, house.remote(process.repo))
    path = f"/api/models/{process.repo}/commit/main"
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {house.token}\r\n"
    head += f"Content-Length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", house.port)) as client:
        client.sendall(head.encode() + body)
        client.settimeout(0.5)
        with pytest.raises(TimeoutError):
            client.recv(1)
    _until(lambda: house.asked("POST", path) == 1)
    process.linked.finish(process.upload)
    assert refs(git, house.remote(process.repo)) == before
    answer = httpx.post(house.url + path, content=body, headers={"Authorization": f"Bearer {house.token}"})
    assert answer.status_code == 200, answer.text
    assert refs(git, house.remote(process.repo))["HEAD"] == answer.json()["commitOid"]


def _until(true: Callable[[], bool]) -> None:
    until = time.monotonic() + 20
    while not true():
        assert time.monotonic() < until
        time.sleep(0.02)
