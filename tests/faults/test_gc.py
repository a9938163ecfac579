"""A collection that dies at any durable step loses nothing that is needed, and the next ones finish its work."""

from __future__ import annotations

import hashlib
import multiprocessing
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.engine.default import DefaultDialect

from lfs.store import lfs_key
from registry import schema
from registry.config import Config
from registry.db import Database, now
from registry.desk import Shelves
from registry.git.snapshot import ZERO, pack_key
from registry.git.verdict import Job, Update
from registry.tables.objects import packs
from registry.tables.repos import repos
from registry.upkeep.gc import Gc, Scope
from tests.faults.dying import Reaper
from tests.registry import people
from tests.registry.gate import MAIN
from tests.registry.upkeep.collecting import NO_GRACE, Collected, acts, collected, oid_of
from tests.services.house import findings

pytestmark = pytest.mark.faults
NEVER = 10**9
KEPT, OLD, TRASH, LOOSE = b"kept" * 900, b"old" * 99, b"trash" * 99, b"loose" * 99


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with something for every step of a collection."""
    folder = tmp_path_factory.mktemp("template")
    database = Database(f"sqlite:///{folder / 'registry.db'}")
    shelves = opened(folder)
    schema.migrate(shelves.database)
    shelves.close()
    house = collected(database, folder)
    fill(house)
    house.gate.heavy.close()
    with database.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    database.dispose()
    for name in ("work", "cache", "slots", "quarantine"):
        shutil.rmtree(folder / name, ignore_errors=True)
    return folder


class Changes(Reaper):
    """Counts what changes something: a death after a step is one before the next, and reading leaves no trace."""

    def watch_commits(self) -> None:
        """Count the moment before each COMMIT of rows that changed."""
        real = DefaultDialect.do_commit
        seen: dict[int, int] = {}

        def counted(dialect: DefaultDialect, connection: Any) -> None:
            driver = connection.driver_connection
            if driver.total_changes != seen.get(id(driver), 0):
                seen[id(driver)] = driver.total_changes
                self.step("commit")
            real(dialect, connection)

        DefaultDialect.do_commit = counted  # type: ignore[method-assign,assignment]


def opened(folder: Path) -> Shelves:
    return Shelves(Config.from_environ({"WEIGHTROOM_DATA": str(folder)}))


def fill(house: Collected) -> None:
    """Leave behind: ripe trash, an object and packs that nobody uses, a dead repo, orphans, uploads, a rewound ref."""
    house.graces = NO_GRACE
    house.upload(TRASH)
    house.run()
    house.run()
    house.upload(LOOSE)
    house.run()
    house.push({"w.bin": OLD})
    house.push({"w.bin": KEPT}, force=True)
    dead = people.add_repo(house.database, "bob", "dead")
    house.upload(b"dead" * 99, repo_id=dead)
    with house.database.write() as connection:
        connection.execute(sa.update(repos).where(repos.c.id == dead).values(deleted_at=now()))
    sha = house.gate.commit({"a": b"abandoned"})
    path = house.gate.pack([sha])
    verdict = house.gate._check(house.gate.repositories.snapshot(1), Job(str(path), (), (Update(MAIN, ZERO, sha),)))
    assert verdict.pack is not None
    house.gate.publisher.keep(verdict.pack)
    orphan = hashlib.sha256(b"orphan").hexdigest()
    for key in (lfs_key(orphan), lfs_key(orphan, "ab" * 16), "staging/" + "ab" * 16, pack_key(orphan)):
        house.store.put(key, b"orphan", 6)
    upload = house.begin(b"tus", "tus")
    parts = house.store.parts(lfs_key(upload.oid, upload.id), upload.part_size)
    house.uploads.attach({upload.id: parts.begin()})
    parts.put(1, b"tus", 3)
    with house.database.write() as connection:
        connection.exec_driver_sql("UPDATE lfs_uploads SET expires_at = created_at WHERE state = 'open'")


def collection(shelves: Shelves) -> Gc:
    return Gc(
        database=shelves.database,
        store=shelves.store,
        repositories=shelves.repositories,
        manifests=shelves.manifests,
        graces=NO_GRACE,
    )


def collect(shelves: Shelves) -> None:
    """Collect once, all that may go."""
    list(collection(shelves).run(Scope(yes=True)))


def run(work: Callable[[Shelves], None], folder: str, step: int, log: str) -> None:
    """Do some work, and die before a durable step; runs in a process of its own."""
    shelves = opened(Path(folder))
    reaper = Changes(step, log)
    for name in ("rename", "unlink"):
        reaper.watch(name)
    reaper.watch_commits()
    reaper.arm()
    work(shelves)
    reaper.step("end")


def child(work: Callable[[Shelves], None], folder: Path, step: int, log: Path) -> int | None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.faults.test_gc"])
    process = context.Process(target=run, args=(work, str(folder), step, str(log)))
    process.start()
    process.join(60)
    return process.exitcode


def check(folder: Path, step: int) -> None:
    """Everything that is named is whole; some more collections leave nothing else."""
    shelves = opened(folder)
    try:
        assert findings(shelves) == [], f"step {step}"
        for _ in range(3):
            list(collection(shelves).run(Scope(yes=True)))
        assert findings(shelves) == [], f"step {step}"
        assert list(shelves.store.walk("lfs/")) == [lfs_key(oid_of(KEPT))], f"step {step}"
        with shelves.database.read() as connection:
            names = (packs.c.id, packs.c.idx_oid, packs.c.intro_oid)
            named = {pack_key(sha) for row in connection.execute(sa.select(*names)) for sha in row}
        assert set(shelves.store.walk("git/")) == named, f"step {step}"
        assert list(shelves.store.walk("staging/")) == []
        assert acts(list(collection(shelves).plan(Scope(yes=True)))) == []
    finally:
        shelves.close()


def die_everywhere(
    template: Path,
    tmp_path: Path,
    check: Callable[[Path, int], None],
    work: Callable[[Shelves], None] = collect,
) -> int:
    """Let some work die before each of its durable steps, in copies of a house; check what is left, and count."""
    shutil.copytree(template, tmp_path / "count")
    log = tmp_path / "steps"
    assert child(work, tmp_path / "count", NEVER, log) == 0
    steps = len(log.read_text().splitlines())
    for step in range(1, steps + 1):
        folder = tmp_path / f"step{step}"
        shutil.copytree(template, folder)
        assert child(work, folder, step, tmp_path / f"log{step}") == -signal.SIGKILL, f"step {step} was not reached"
        check(folder, step)
        shutil.rmtree(folder)
    return steps


@pytest.mark.timeout(600)
def test_death_at_every_durable_step_of_a_collection(template: Path, tmp_path: Path) -> None:
    assert die_everywhere(template, tmp_path, check) > 25
