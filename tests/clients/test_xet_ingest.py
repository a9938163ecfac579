"""What git-lfs pushed is had by its chunks as well: both doors deduplicate together, whatever dies on the way."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import secrets
import signal
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa

from registry.commands.opening import opened
from registry.config import Config
from registry.db import Database
from registry.tables.objects import lfs_links, lfs_objects
from registry.tables.xet import xet_ingests, xet_links, xet_xorbs
from tests.clients.test_git import create
from tests.clients.visitor import visit
from tests.lfs.xet.test_ingest import children
from tests.services.house import House, open_house
from tests.services.programs import Git, need

pytestmark = pytest.mark.clients

SIZE = 60 << 20
EDIT = 100_000


def content(seed: int) -> bytes:
    return random.Random(seed).randbytes(SIZE)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@contextlib.contextmanager
def rows(house: House) -> Iterator[Database]:
    database = opened(Config.from_environ(house.environment))
    try:
        yield database
    finally:
        database.dispose()


def states(house: House, oid: str) -> tuple[object, ...]:
    """The row's state, tries and reason, and the states of the Xet links, of an object."""
    with rows(house) as database, database.read() as connection:
        columns = (xet_ingests.c.state, xet_ingests.c.tries, xet_ingests.c.reason)
        row = connection.execute(sa.select(*columns).where(xet_ingests.c.oid == oid)).first()
        links = connection.execute(sa.select(xet_links.c.state).where(xet_links.c.sha256 == oid)).scalars().all()
    return (*(row or ("", 0, "")), *links)


def stored(house: House) -> int:
    """Bytes of all xorbs."""
    with rows(house) as database, database.read() as connection:
        return int(connection.execute(sa.select(sa.func.coalesce(sa.func.sum(xet_xorbs.c.size), 0))).scalar_one())


def until(true: Callable[[], object], seconds: float = 60) -> None:
    late = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < late
        time.sleep(0.02)


def push(git: Git, house: House, repo: str, folder: Path, body: bytes) -> str:
    """Push one file with git-lfs; return its oid."""
    need("git", "git-lfs")
    git("lfs", "install", "--skip-repo")
    git("clone", house.remote(repo), str(folder))
    git("lfs", "track", "*.bin", at=folder)
    (folder / "m.bin").write_bytes(body)
    git("add", ".", at=folder)
    git("commit", "-q", "-m", "Weights", at=folder)
    git("push", "origin", "HEAD:main", at=folder)
    return sha256(body)


def head(house: House, path: str) -> httpx.Headers:
    headers = {"authorization": f"Bearer {house.token}"}
    found = httpx.head(f"{house.url}/{path}", headers=headers, trust_env=False, timeout=60)
    assert found.status_code == 200
    return found.headers


def test_both_doors_deduplicate_together(house: House, git: Git, tmp_path: Path) -> None:
    repo, body = create(house, f"twice-{secrets.token_hex(4)}"), content(1)
    oid = push(git, house, repo, tmp_path / "work", body)
    assert head(house, f"{repo}/resolve/main/m.bin")["x-linked-etag"] == f'"{oid}"'
    until(lambda: "x-xet-hash" in head(house, f"{repo}/resolve/main/m.bin"))
    # The proof may be quicker than the note that the object was sent.
    until(lambda: states(house, oid) == ("done", 1, "", "proven"))
    with rows(house) as database, database.read() as connection:
        (row,) = connection.execute(sa.select(lfs_objects).where(lfs_objects.c.oid == oid)).all()
        assert (row.kind, row.state) == ("whole", "stored")

    edited = body[: SIZE // 2] + random.Random(2).randbytes(EDIT) + body[SIZE // 2 + EDIT - 7 :]
    for name, data in (("same.bin", body), ("edited.bin", edited)):
        before = stored(house)
        (tmp_path / name).write_bytes(data)
        lines = f"""
            api.upload_file(repo_id="{repo}", path_in_repo="{name}", path_or_fileobj="{tmp_path / name}")
            out["size"] = os.path.getsize(api.hf_hub_download("{repo}", "{name}"))
            import hashlib
            out["oid"] = hashlib.sha256(content("{name}", "{repo}")).hexdigest()
            out["pushed"] = hashlib.sha256(content("m.bin", "{repo}")).hexdigest()
            """
        found = visit(lines, endpoint=house.url, token=house.token, home=tmp_path / name[:-4], xet=True)
        assert found == {"size": len(data), "oid": sha256(data), "pushed": oid}
        new = stored(house) - before
        print(f"{name}: {new} bytes of new xorbs")
        assert new <= (0 if data is body else EDIT + SIZE // 100)


@pytest.fixture
def own_house(tmp_path: Path) -> Iterator[House]:
    """A registry of this test's own, which dies."""
    with open_house(tmp_path / "house", GC="off") as house:
        yield house


def sending(house: House) -> list[int]:
    return [] if house.process is None else children(house.process.pid)


def leftovers(house: House) -> list[Path]:
    return list((house.folder / "data" / "slots").glob("*/quarantine/*-*"))


def hurry(house: House) -> None:
    """Let pauses and leases end now."""
    with rows(house) as database, database.write() as connection:
        connection.execute(sa.update(xet_ingests).values(lease_until=datetime(2020, 1, 1, tzinfo=UTC)))


def is_proven(house: House, oid: str) -> bool:
    return states(house, oid)[3:] == ("proven",)


def test_a_child_that_is_killed_is_followed_by_another(own_house: House, git: Git, tmp_path: Path) -> None:
    oid = push(git, own_house, create(own_house, "m"), tmp_path / "work", content(3))
    until(lambda: sending(own_house))
    for child in sending(own_house):
        os.kill(child, signal.SIGKILL)
    until(lambda: states(own_house, oid)[2])
    assert states(own_house, oid) == ("waiting", 1, "the child process ended with -9: no word")
    assert (sending(own_house), leftovers(own_house)) == ([], [])
    hurry(own_house)
    until(lambda: is_proven(own_house, oid))
    assert own_house.findings() == []


def test_a_server_that_dies_leaves_what_the_next_one_finishes(own_house: House, git: Git, tmp_path: Path) -> None:
    oid = push(git, own_house, create(own_house, "m"), tmp_path / "work", content(4))
    until(lambda: sending(own_house))
    (child,) = sending(own_house)
    own_house.stop(signal.SIGKILL)
    until(lambda: not Path(f"/proc/{child}").exists())
    assert own_house.findings() == []
    assert states(own_house, oid) in {("waiting", 1, ""), ("waiting", 1, "", "declared"), ("done", 1, "", "declared")}
    hurry(own_house)
    own_house.start()
    until(lambda: is_proven(own_house, oid))
    assert own_house.findings() == []
    assert leftovers(own_house) == []


def test_a_server_that_stops_takes_its_child_along(own_house: House, git: Git, tmp_path: Path) -> None:
    oid = push(git, own_house, create(own_house, "m"), tmp_path / "work", content(5))
    until(lambda: sending(own_house))
    (child,) = sending(own_house)
    assert own_house.stop() == 0
    assert not Path(f"/proc/{child}").exists()
    assert leftovers(own_house) == []
    found = states(own_house, oid)
    assert found[:2] in {("waiting", 0), ("done", 1)}
    own_house.start()
    until(lambda: is_proven(own_house, oid))


def test_what_was_damaged_on_the_disk_is_never_filed(own_house: House, git: Git, tmp_path: Path) -> None:
    body = content(6)
    oid = push(git, own_house, create(own_house, "m"), tmp_path / "work", body)
    until(lambda: sending(own_house))
    own_house.stop(signal.SIGKILL)
    with rows(own_house) as database, database.write() as connection:
        key = connection.execute(sa.select(lfs_objects.c.key).where(lfs_objects.c.oid == oid)).scalar_one()
        assert connection.execute(sa.select(sa.func.count()).select_from(lfs_links)).scalar_one() == 1
        connection.execute(sa.delete(xet_ingests))
        connection.execute(sa.delete(xet_links))
    path = own_house.folder / "data" / "objects" / key
    path.chmod(0o600)
    path.write_bytes(body[:-1] + bytes([body[-1] ^ 1]))
    own_house.start()
    until(lambda: states(own_house, oid)[2])
    found = states(own_house, oid)
    assert found[:2] == ("waiting", 1)
    assert "fsck --read-data" in str(found[2])
    assert len(found) == 3
