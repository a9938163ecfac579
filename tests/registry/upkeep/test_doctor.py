"""The doctor is silent about a fit house and names what is not."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from lfs.errors import Denied
from lfs.local import LocalStore
from lfs.store import Source, Verified
from registry import schema
from registry.db import Database, now
from registry.upkeep.doctor import Doctor
from registry.upkeep.findings import Finding


class Shut(LocalStore):
    """A shelf that may not be written to."""

    def put(self, key: str, source: Source, size: int, sha256: str | None = None) -> Verified:
        raise Denied("The folder is read-only; give the server the right to write.")


def examined(
    database: Database,
    data: Path,
    *,
    store: LocalStore | None = None,
    min_free: int = 0,
    fsync: bool = True,
    clock: Callable[[], datetime] = now,
) -> list[Finding]:
    shelf = store or LocalStore(data / "objects", min_free=0)
    doctor = Doctor(database=database, store=shelf, data=data, min_free=min_free, fsync=fsync, clock=clock)
    return list(doctor.run())


def test_a_fit_house_has_no_findings_and_nothing_is_left_in_it(database: Database, tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "objects", min_free=0)
    assert examined(database, tmp_path, store=store) == []
    assert list(store.walk()) == []


def test_an_old_schema_is_named_with_what_to_do(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/old.db")
    schema.migrate(database)
    schema.revert(database, schema.BASE)
    (finding,) = examined(database, tmp_path)
    assert "weightroom migrate" in finding.text
    database.dispose()


def test_a_database_that_does_not_answer_is_named(tmp_path: Path) -> None:
    database = Database("postgresql+psycopg://nobody@127.0.0.1:1/nothing")
    assert {finding.check for finding in examined(database, tmp_path)} == {"schema", "clock"}
    database.dispose()


def test_a_shelf_that_cannot_be_written_is_named(sqlite_database: Database, tmp_path: Path) -> None:
    (finding,) = examined(sqlite_database, tmp_path, store=Shut(tmp_path / "objects", min_free=0))
    assert "read-only" in finding.line()


def test_a_full_disk_is_named_before_the_first_write_is_refused(sqlite_database: Database, tmp_path: Path) -> None:
    (finding,) = examined(sqlite_database, tmp_path, min_free=1 << 60)
    assert "WEIGHTROOM_MIN_FREE" in finding.text


@pytest.mark.parametrize("minutes", [-10, 10])
def test_clocks_that_disagree_are_named(database: Database, tmp_path: Path, minutes: int) -> None:
    findings = examined(database, tmp_path, clock=lambda: now() + timedelta(minutes=minutes))
    assert {finding.check for finding in findings} == {"clock"}


def test_a_secret_that_others_may_read_is_named(sqlite_database: Database, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"s" * 32)
    (tmp_path / "secret").chmod(0o644)
    (finding,) = examined(sqlite_database, tmp_path)
    assert "chmod 600" in finding.text


def test_writes_that_a_power_cut_may_lose_are_named(sqlite_database: Database, tmp_path: Path) -> None:
    (finding,) = examined(sqlite_database, tmp_path, fsync=False)
    assert finding.subject == "WEIGHTROOM_FSYNC"
