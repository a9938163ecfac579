"""A collection that dies while it takes Xet files apart loses nothing that is needed; the next ones end its work."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest
import sqlalchemy as sa

from lfs.store import file_key
from lfs.xet.hashes import text
from registry import schema
from registry.db import Database, now
from registry.tables.repos import repos
from registry.tables.xet import xet_xorbs
from registry.upkeep.gc import Scope
from tests.faults.test_gc import collection, die_everywhere, opened
from tests.lfs.xet.xorbs import random_xorb
from tests.registry import people
from tests.registry.upkeep.chunking import XetCollected, chunking, whole
from tests.registry.upkeep.collecting import NO_GRACE, acts
from tests.services.house import findings

pytestmark = pytest.mark.faults
KEPT, SHARED, OLD, RIPE, LOOSE, DEAD = (random_xorb(seed, chunks=2, size=500) for seed in range(6))
NEEDED = whole(KEPT, SHARED)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with something of Xet for every step of a collection."""
    folder = tmp_path_factory.mktemp("template")
    database = Database(f"sqlite:///{folder / 'registry.db'}")
    shelves = opened(folder)
    schema.migrate(shelves.database)
    shelves.close()
    house = chunking(database, folder)
    fill(house)
    house.gate.heavy.close()
    with database.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    database.dispose()
    for name in ("work", "cache", "slots", "quarantine"):
        shutil.rmtree(folder / name, ignore_errors=True)
    return folder


def fill(house: XetCollected) -> None:
    """Leave behind: a xorb to delete, one to condemn, a file to drop, links of a dead repo, and what refs need."""
    house.graces = NO_GRACE
    house.take(RIPE)
    _end_promises(house)
    house.run()
    house.take(LOOSE)
    house.bring(SHARED, OLD)
    house.run()
    house.run()
    house.commit(house.bring(KEPT, SHARED))
    dead = people.add_repo(house.database, "bob", "dead")
    house.bring(DEAD, repo_id=dead)
    with house.database.write() as connection:
        connection.execute(sa.update(repos).where(repos.c.id == dead).values(deleted_at=now()))
    _end_promises(house)


def _end_promises(house: XetCollected) -> None:
    with house.database.write() as connection:
        connection.execute(sa.update(xet_xorbs).values(promised_until=now()))


def check(folder: Path, step: int) -> None:
    """What a ref needs is whole; some more collections leave nothing else."""
    shelves = opened(folder)
    try:
        assert findings(shelves) == [], f"step {step}"
        for _ in range(8):
            list(collection(shelves).run(Scope(yes=True)))
        assert findings(shelves) == [], f"step {step}"
        with shelves.store.open(file_key(text(NEEDED.file.hash))) as reader:
            assert hashlib.sha256(reader.read_all()).hexdigest() == NEEDED.oid, f"step {step}"
        with shelves.database.read() as connection:
            rows = connection.execute(sa.select(xet_xorbs)).all()
        assert {bytes(row.hash) for row in rows} == {KEPT.hash, SHARED.hash}, f"step {step}"
        assert set(shelves.store.walk("xet/")) == {key for row in rows for key in (row.key, row.table_key)}
        assert acts(list(collection(shelves).plan(Scope(yes=True)))) == []
    finally:
        shelves.close()


@pytest.mark.timeout(600)
def test_death_at_every_durable_step_of_a_collection_of_xet(template: Path, tmp_path: Path) -> None:
    assert die_everywhere(template, tmp_path, check) > 10
