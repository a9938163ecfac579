"""Clients remember for weeks what they have sent; when it was swept since, the same command brings it back."""

from __future__ import annotations

import contextlib
import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from registry.config import Config
from registry.db import now
from registry.desk import Shelves
from registry.upkeep.gc import Gc, Scope
from tests.clients.visitor import visit
from tests.registry.upkeep.collecting import NO_GRACE
from tests.services.house import House, open_house

pytestmark = [pytest.mark.clients, pytest.mark.timeout(600)]

UPLOAD = """
import random
api.create_repo("ann/swept", exist_ok=True)
data = random.Random(1).randbytes(5_000_000)
try:
    api.upload_file(repo_id="ann/swept", path_in_repo="m.bin", path_or_fileobj=data)
    out["refused"] = ""
except Exception as error:
    out["refused"] = str(error)
"""
DELETE = """
api.delete_file("m.bin", "ann/swept")
api.super_squash_history("ann/swept")
"""
READ = """
import hashlib
out["sum"] = hashlib.sha256(content("m.bin", "ann/swept")).hexdigest()
"""


@dataclass(frozen=True)
class Place:
    """A house that may be swept, and a machine that remembers."""

    house: House
    home: Path

    def run(self, code: str, home: str = "") -> dict[str, object]:
        """Run a visitor's lines, on this machine or another one."""
        there = self.home.with_name(home) if home else self.home
        return visit(code, endpoint=self.house.url, token=self.house.token, home=there, xet=True)

    def sweep(self, *, later: timedelta, now_: bool) -> None:
        """Collect until no xorb is left, as if `later` had passed."""
        with contextlib.closing(Shelves(Config.from_environ(self.house.environment))) as shelves:
            collection = Gc(
                database=shelves.database,
                store=shelves.store,
                repositories=shelves.repositories,
                manifests=shelves.manifests,
                graces=NO_GRACE,
                clock=lambda: now() + later,
            )
            for _ in range(8):
                lines = list(collection.run(Scope(yes=True, now=now_)))
            assert lines == []
            assert list(shelves.store.walk("xet/xorbs/")) == []


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """A house for each test: it is swept without grace, and its clients can be told to forget once in ten minutes."""
    with open_house(tmp_path / "house") as made:
        yield made


@pytest.fixture
def place(house: House, tmp_path: Path) -> Place:
    """A house into which one machine has sent a file that was deleted since."""
    made = Place(house, tmp_path / "machine")
    assert made.run(UPLOAD + DELETE)["refused"] == ""
    return made


def test_after_space_was_made_at_once_the_same_command_succeeds(place: Place) -> None:
    place.sweep(later=timedelta(), now_=True)
    since = place.house.log.stat().st_size
    assert place.run(UPLOAD)["refused"] == "", "the first try goes to a new generation"
    assert place.house.asked("POST", "/xet/", since) >= 2
    whole(place)


def test_what_was_swept_after_its_promise_comes_back_by_the_second_try(place: Place) -> None:
    place.sweep(later=timedelta(days=60), now_=False)
    first = str(place.run(UPLOAD)["refused"])
    if first:
        assert "upload the files again" in first
        assert place.run(UPLOAD)["refused"] == ""
    whole(place)


def whole(place: Place) -> None:
    """The file is there for another machine, and nothing is amiss."""
    data = random.Random(1).randbytes(5_000_000)
    assert place.run(READ, "reader") == {"sum": hashlib.sha256(data).hexdigest()}
    assert place.house.findings() == []
