"""An object is changed to lie by its chunks while others collect, upload, damage and read: none of them loses it.

Several write at one time on PostgreSQL; SQLite has one writer.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from lfs.errors import Missing
from lfs.store import lfs_key
from registry.db import Database
from registry.errors import Busy, ObjectAbsent
from registry.tables.objects import lfs_links
from registry.tables.xet import xet_links
from registry.xet_wholes import REST, Twice, Wholes
from tests.registry import people
from tests.registry.test_xet_wholes import FILE, ONE, TWO, change, read, row, twice, wholes
from tests.registry.upkeep.chunking import XetCollected, chunking, whole
from tests.registry.upkeep.collecting import NO_GRACE
from tests.registry.upkeep.test_xorb_races import paused, step_of

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def house(database: Database, tmp_path: Path) -> Iterator[XetCollected]:
    made = chunking(database, tmp_path)
    made.graces = NO_GRACE
    yield made
    made.gate.heavy.close()


@pytest.fixture
def large(emptied_database: Database, tmp_path: Path) -> Iterator[XetCollected]:
    """A house on PostgreSQL, without grace, with an object that lies there twice and is due."""
    made = chunking(emptied_database, tmp_path)
    made.graces = NO_GRACE
    twice(made)
    made.later(days=2)
    yield made
    made.gate.heavy.close()


def changing(house: XetCollected) -> Callable[[], bool]:
    """Find the object to be due; return what changes it."""
    ((one,), _) = wholes(house)._look()
    return lambda: wholes(house).change(one)


def unlinked(house: XetCollected) -> None:
    change(house, sa.delete(xet_links))


def dropping(house: XetCollected) -> list[str]:
    """Take the repo's link to the file away, then drop the file, as collections do."""
    unlinked(house)
    return step_of(house, lambda gc: gc._chunked.files(house.clock()))()


@pytest.mark.postgres
def test_a_file_that_an_object_is_being_changed_to_is_not_dropped(large: XetCollected) -> None:
    large.commit(FILE)
    done, dropped = paused(large, changing(large), lambda: dropping(large))
    assert (done, dropped) == (True, ["keep"])
    large.raw.delete(lfs_key(FILE.oid))
    assert read(large) == FILE.bytes
    assert large.findings() == []


@pytest.mark.postgres
def test_an_object_is_not_changed_to_a_file_that_is_being_dropped(large: XetCollected) -> None:
    large.commit(FILE)
    then = changing(large)
    unlinked(large)
    drop = step_of(large, lambda gc: gc._chunked.files(large.clock()))
    dropped, done = paused(large, drop, then)
    assert (dropped, done) == (["delete"], False)
    assert read(large) == FILE.bytes
    assert large.findings() == []


@pytest.mark.postgres
def test_an_object_without_links_is_changed_or_condemned(large: XetCollected) -> None:
    change(large, sa.delete(lfs_links))
    then = changing(large)
    condemn = step_of(large, lambda gc: gc._trash.condemn(large.clock()))
    condemned, done = paused(large, condemn, then)
    assert (condemned, done) == (["condemn"], False)
    assert (row(large).kind, row(large).state) == ("whole", "condemned")


@pytest.mark.postgres
def test_an_object_that_is_being_changed_counts_as_new_to_the_trash(large: XetCollected) -> None:
    change(large, sa.delete(lfs_links))
    condemn = step_of(large, lambda gc: gc._trash.condemn(large.clock()))
    large.later(hours=1)
    done, condemned = paused(large, changing(large), condemn)
    assert (done, condemned) == (True, ["keep"])
    assert (row(large).kind, row(large).state) == ("xet", "stored")


@pytest.mark.postgres
@pytest.mark.parametrize("first", ["change", "damage"])
def test_a_xorb_that_is_put_aside_is_seen_or_sees_the_object(large: XetCollected, first: str) -> None:
    xorb = large.index.located([TWO.hash])[TWO.hash]
    then = changing(large)

    def damage() -> None:
        large.index.quarantine(xorb.hash, xorb.key)

    if first == "change":
        assert paused(large, then, damage) == (True, None)
    else:
        assert paused(large, damage, then) == (None, False)
        assert (row(large).kind, row(large).state) == ("whole", "stored")
        assert read(large) == FILE.bytes
    assert large.xorbs()[TWO.hash] == "quarantined"


@pytest.mark.postgres
@pytest.mark.parametrize("first", ["change", "push"])
def test_a_push_of_the_same_bytes_links_the_object_wherever_it_lies(large: XetCollected, first: str) -> None:
    other = people.add_repo(large.database, "bob", "other")
    then, upload = changing(large), large.begin(FILE.bytes, repo_id=other)

    def push() -> str:
        return large.finish(upload, lfs_key(FILE.oid))

    if first == "change":
        assert paused(large, then, push) == (True, FILE.key)
    else:
        assert paused(large, push, then) == (lfs_key(FILE.oid), True)
    assert large.linked(other) == {FILE.oid}
    assert row(large).key == FILE.key
    large.raw.delete(lfs_key(FILE.oid))
    assert read(large, other) == FILE.bytes


def test_everything_at_once_loses_nothing(house: XetCollected) -> None:
    """Objects are pushed whole and by their chunks, over and over, changed, collected without grace, and read."""
    files = [FILE, *(whole(*xorbs) for xorbs in ((ONE,), (TWO,), (TWO, ONE), (ONE, ONE)))]
    for file in files:
        house.upload(file.bytes)
    house.commit(*files)
    oids = {file.oid: file for file in files}
    stop, failed, done = threading.Event(), [], []

    def changes() -> None:
        later = Wholes(house.database, smallest=1, clock=lambda: house.clock() + REST)
        for file in files:
            key = house.gate.links.find(1, [file.oid])[file.oid].key
            done.append(later.change(Twice(file.oid, len(file.bytes), key, file.file.hash)))

    def push(file: Any) -> None:
        upload = house.begin(file.bytes)
        held = house.gate.links.look(1, [file.oid])[file.oid]
        shared = lfs_key(file.oid)
        key = shared if (held.state, held.key) == ("stored", shared) else lfs_key(file.oid, upload.id)
        house.store.put(key, file.bytes, len(file.bytes), file.oid)
        house.finish(upload, key)

    def send(file: Any) -> None:
        house.take(*(xorb for xorb in (ONE, TWO) if xorb.hash in file.file.terms))
        house.file(file)
        house.prove()

    def reading() -> None:
        for oid, file in oids.items():
            for _ in range(3):
                held = house.gate.links.find(1, [oid])[oid]
                try:
                    with house.store.open(held.key) as reader:
                        assert reader.read_all() == file.bytes
                    break
                except Missing:
                    # It has left the key; a door looks once more.
                    assert house.gate.links.find(1, [oid])[oid].key != held.key

    def repeat(act: Callable[[], Any]) -> None:
        while not stop.is_set():
            try:
                act()
            except (Busy, ObjectAbsent):
                # What a client sends again.
                continue
            except BaseException as error:
                failed.append(error)
                return

    acts = [changes, house.run_now, reading, *(lambda file=file: push(file) for file in files)]
    threads = [threading.Thread(target=repeat, args=(act,)) for act in acts]
    for thread in threads:
        thread.start()
    try:
        for number in range(20):
            send(files[number % len(files)])
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failed == []
    assert True in done
    assert house.findings() == []
