"""Xet files that nobody needs go link by link, file by file, and never while anybody needs them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from registry.db import Database
from registry.tables.repos import repos
from registry.upkeep.gc import Scope
from registry.upkeep.reclaim import Graces
from tests.lfs.xet.xorbs import random_xorb
from tests.registry import people
from tests.registry.upkeep.chunking import XetCollected, chunking, whole
from tests.registry.upkeep.collecting import NO_GRACE

ONE, TWO, THREE = (random_xorb(seed, chunks=3, size=2000) for seed in range(3))


@pytest.fixture
def house(database: Database, tmp_path: Path) -> Iterator[XetCollected]:
    made = chunking(database, tmp_path)
    yield made
    made.gate.heavy.close()


def test_what_refs_reach_stays_whatever_the_graces(house: XetCollected) -> None:
    house.graces = NO_GRACE
    made = house.bring(ONE, TWO)
    house.commit(made)
    for _ in range(3):
        assert house.chunked() == []
        house.later(days=500)
    assert house.chunked(now=True) == []
    assert house.read(made) == made.bytes
    assert house.findings() == []


def test_the_whole_life_of_a_file(house: XetCollected) -> None:
    """Committed, rewound; then each step of its way takes a run of its own, and its grace."""
    made, other = house.bring(ONE, TWO), house.bring(TWO, THREE)
    house.commit(made)
    house.commit(other, force=True)
    house.later(days=29)
    assert house.chunked() == []
    house.later(days=2)
    house.run()
    assert house.linked() == {other.oid}
    assert len(house.links()) == 2
    assert house.chunked() == [("unlink", "xet")]
    assert house.links() == {(1, other.file.hash, "proven")}
    assert house.chunked() == []
    house.later(days=8)
    assert house.chunked() == []
    assert house.states()[made.oid] == "condemned"
    house.later(days=15)
    # The object goes in this run, and the file that it named in the next.
    assert house.chunked() == []
    assert made.oid not in house.states()
    assert house.files() == {made.file.hash, other.file.hash}
    marks = house.marks()
    assert house.chunked() == [("delete", "file")]
    assert house.files() == {other.file.hash}
    assert house.marks() < marks
    # Their promise was of four weeks, and nobody asked since.
    assert house.chunked() == [("condemn", "xorb")]
    assert house.xorbs() == {ONE.hash: "condemned", TWO.hash: "live", THREE.hash: "live"}
    assert house.chunked() == []
    keys = house.keys("xet/")
    house.later(days=2)
    assert house.chunked() == [("delete", "xorb")]
    assert set(house.xorbs()) == {TWO.hash, THREE.hash}
    assert len(house.keys("xet/")) == len(keys) - 2
    assert house.chunked() == []
    assert house.read(other) == other.bytes
    assert house.findings() == []


def test_without_any_grace_no_run_takes_two_steps(house: XetCollected) -> None:
    house.graces = NO_GRACE
    made = house.bring(ONE)
    steps = []
    for _ in range(8):
        steps += [house.chunked(now=True)]
    assert [step for step in steps if step] == [
        [("unlink", "xet")],
        [("delete", "file")],
        [("condemn", "xorb")],
        [("delete", "xorb")],
    ]
    assert house.keys("xet/") == []
    assert made.oid not in house.states()


@pytest.mark.parametrize("named", [True, False])
def test_a_link_whose_commit_is_still_to_come_rests_a_fortnight(house: XetCollected, named: bool) -> None:
    house.take(ONE)
    house.file(whole(ONE), named=named)
    house.prove()
    house.later(days=13)
    assert house.chunked() == []
    house.later(days=2)
    if named:
        # First the object, which its proof linked.
        assert house.chunked() == []
    assert house.chunked() == [("unlink", "xet")]


@pytest.mark.parametrize("named", [True, False])
def test_whoever_files_again_begins_the_fortnight_anew(house: XetCollected, named: bool) -> None:
    """A client that has just uploaded must find its file when it commits, though another uploaded it weeks ago."""
    made = whole(ONE)
    house.take(ONE)
    house.file(made, named=named)
    house.prove()
    house.later(days=13)
    assert not house.file(made, named=named)
    house.later(days=13)
    for _ in range(2):
        assert house.chunked() == []
    assert len(house.links()) == 1
    house.later(days=2)
    house.run()
    house.run()
    assert house.links() == set()


def test_a_link_that_waits_for_its_proof_stays(house: XetCollected) -> None:
    house.graces = NO_GRACE
    made = whole(ONE)
    house.take(ONE)
    house.file(made)
    for _ in range(3):
        assert house.chunked() == []
    assert house.prove() == ["done"]
    house.commit(made)
    assert house.chunked() == []
    assert house.links() == {(1, made.file.hash, "proven")}


def test_a_refuted_link_goes(house: XetCollected) -> None:
    house.graces = NO_GRACE
    lie = whole(ONE)
    house.take(ONE)
    house.file(replace(lie, oid="ab" * 32))
    assert house.prove() == ["failed"]
    assert house.chunked() == [("unlink", "xet")]
    assert house.chunked() == [("delete", "file")]


def test_a_file_stays_while_an_object_is_put_together_from_it(house: XetCollected) -> None:
    """Another repo has the object by a proof of its own, and no link to the file."""
    house.graces = NO_GRACE
    twin = people.add_repo(house.database, "ann", "twin")
    made = house.bring(ONE)
    house.upload(made.bytes, repo_id=twin)
    house.run()
    assert house.chunked() == [("unlink", "xet")]
    # The twin's upload found the object here, so its link is to the same bytes.
    with house.database.read() as connection:
        found = connection.exec_driver_sql("SELECT key FROM lfs_objects").scalars().all()
    assert found == [made.key]
    house.graces = Graces()
    for _ in range(3):
        assert house.chunked() == []
    assert house.read(made) == made.bytes


def test_a_deleted_repo_takes_its_links_along(house: XetCollected) -> None:
    dead = people.add_repo(house.database, "bob", "dead")
    made = house.bring(ONE, repo_id=dead)
    with house.database.write() as connection:
        connection.execute(sa.update(repos).where(repos.c.id == dead).values(deleted_at=house.clock()))
    house.later(days=13)
    assert house.chunked() == []
    house.later(days=2)
    assert house.chunked() == [("unlink", "xet")]
    assert house.links() == set()
    assert house.files() == {made.file.hash}


def test_a_repo_alone_loses_no_file(house: XetCollected) -> None:
    house.graces = NO_GRACE
    house.bring(ONE)
    for _ in range(3):
        list(house.gc().run(Scope(1, yes=True)))
    assert house.linked() == set()
    assert len(house.links()) == 1


def test_a_file_that_is_filed_again_between_plan_and_deed_stays(house: XetCollected) -> None:
    house.graces = NO_GRACE
    made = house.bring(ONE)
    for _ in range(3):
        house.run()
    assert house.links() == set()
    assert house.files() == {made.file.hash}
    gc, moment = house.gc(), house.clock()
    (step,) = gc._chunked.files(moment)
    assert house.file(made)
    assert {line.act for line in step.do(gc.runs.begin(moment, {}))} == {"keep"}
    assert house.files() == {made.file.hash}
    assert house.prove()[-1] == "done"


def test_links_that_are_made_between_plan_and_deed_stay(house: XetCollected) -> None:
    house.graces = NO_GRACE
    made = house.bring(ONE)
    house.run()
    gc, moment = house.gc(), house.clock()
    (step,) = gc._chunked.links(moment)
    assert house.file(made)
    assert {line.act for line in step.do(gc.runs.begin(moment, {}))} == {"keep"}
    assert len(house.links()) == 1


def test_a_file_stays_while_an_object_on_its_way_out_may_be_asked_back(house: XetCollected) -> None:
    house.graces = replace(NO_GRACE, trash=timedelta(days=1))
    made = house.bring(ONE)
    for _ in range(4):
        house.run()
    assert house.links() == set()
    assert house.states() == {made.oid: "condemned"}
    assert house.read(made) == made.bytes
    # A new upload asks for it, by whatever door.
    house.upload(made.bytes)
    assert house.states() == {made.oid: "stored"}
    assert house.findings() == []
