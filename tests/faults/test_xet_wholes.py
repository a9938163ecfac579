"""Dying while an object is changed to lie by its chunks, or while its bytes are swept, loses nothing of it."""

from __future__ import annotations

import shutil
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from registry import schema
from registry.db import Database, now
from registry.desk import Shelves
from registry.tables.xet import xet_links
from registry.xet_wholes import REST, Wholes
from tests.faults.test_gc import collect, die_everywhere, opened
from tests.registry.test_xet_wholes import FILE, twice
from tests.registry.upkeep.chunking import chunking
from tests.services.house import findings

pytestmark = pytest.mark.faults


@pytest.fixture(scope="module", params=["proxy", "direct"])
def template(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with a committed object that lies there twice, and was filed days ago."""
    folder = tmp_path_factory.mktemp("template")
    database = Database(f"sqlite:///{folder / 'registry.db'}")
    shelves = opened(folder)
    schema.migrate(shelves.database)
    shelves.close()
    house = chunking(database, folder)
    twice(house, mode=request.param)
    house.commit(FILE)
    with database.write() as connection:
        connection.execute(sa.update(xet_links).values(created_at=now() - REST - timedelta(hours=1)))
    house.gate.heavy.close()
    with database.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    database.dispose()
    for name in ("work", "cache", "slots", "quarantine"):
        shutil.rmtree(folder / name, ignore_errors=True)
    return folder


def keep_once(shelves: Shelves) -> None:
    """Change the object, and sweep what it leaves behind."""
    Wholes(shelves.database, smallest=1).run()
    collect(shelves)


def read(shelves: Shelves) -> bytes:
    held = shelves.links.object_key(1, FILE.oid)
    assert held is not None
    with shelves.store.open(held.key) as reader:
        return reader.read_all()


def check(folder: Path, step: int) -> None:
    """The object is whole wherever it lies; the next who looks ends the work."""
    shelves = opened(folder)
    try:
        assert findings(shelves) == [], f"step {step}"
        assert read(shelves) == FILE.bytes, f"step {step}"
        keep_once(shelves)
        assert list(shelves.store.walk("lfs/")) == [], f"step {step}"
        assert read(shelves) == FILE.bytes, f"step {step}"
        assert findings(shelves) == [], f"step {step}"
    finally:
        shelves.close()


@pytest.mark.timeout(300)
def test_death_at_every_durable_step(template: Path, tmp_path: Path) -> None:
    assert die_everywhere(template, tmp_path, check, keep_once) > 4
