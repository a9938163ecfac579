"""An object that came whole and is had by its chunks is kept once: nobody who reads it notices, and nothing is lost."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from starlette.datastructures import Headers
from starlette.types import Message

from lfs.local import LocalStore
from lfs.store import ObjectStore, Reader, Span, lfs_key
from lfs.transfer import Outgoing, Transfer
from lfs.xet import hashes
from lfs.xet.index import File, Part, packed
from registry.db import Database
from registry.tables.objects import lfs_objects
from registry.tables.work import events
from registry.tables.xet import xet_links, xet_xorbs
from registry.upkeep.faults import BadObject
from registry.upkeep.repair_objects import ObjectRepair
from registry.xet_pieces import SPARE
from registry.xet_wholes import Twice, Wholes
from tests.lfs.xet.xorbs import Made, made, random_xorb
from tests.registry import people
from tests.registry.upkeep.chunking import Whole, XetCollected, chunking, whole
from tests.registry.upkeep.collecting import NO_GRACE
from tests.services.s3 import make_bucket, moto, open_bucket

ONE, TWO = (random_xorb(seed, chunks=3, size=2000) for seed in range(2))
FILE = whole(ONE, TWO)


@pytest.fixture
def house(database: Database, tmp_path: Path) -> Iterator[XetCollected]:
    made = chunking(database, tmp_path)
    yield made
    made.gate.heavy.close()


@pytest.fixture
def lone(sqlite_database: Database, tmp_path: Path) -> Iterator[XetCollected]:
    made = chunking(sqlite_database, tmp_path)
    yield made
    made.gate.heavy.close()


def wholes(house: XetCollected, **settings: Any) -> Wholes:
    return Wholes(house.database, smallest=1, clock=house.clock, **settings)


def twice(house: XetCollected, file: Whole = FILE, mode: str = "proxy") -> str:
    """Let a file come whole, be committed, and come by its chunks; return its key."""
    upload = house.begin(file.bytes, mode)
    key = lfs_key(file.oid, "" if mode == "proxy" else upload.id)
    house.store.put(key, file.bytes, len(file.bytes), file.oid)
    house.finish(upload, key)
    house.bring(*(xorb for xorb in (ONE, TWO) if xorb.hash in file.file.terms))
    assert row(house, file).key == key
    return key


def row(house: XetCollected, file: Whole = FILE) -> sa.Row[Any]:
    (found,) = house.rows(sa.select(lfs_objects).where(lfs_objects.c.oid == file.oid))
    return found


def read(house: XetCollected, repo_id: int = 1) -> bytes:
    """Read the object as a door of this repo does."""
    held = house.gate.links.object_key(repo_id, FILE.oid)
    assert held is not None
    with house.store.open(held.key) as reader:
        return reader.read_all()


def change(house: XetCollected, statement: sa.Update | sa.Delete) -> None:
    with house.database.write() as connection:
        connection.execute(statement)


def test_a_day_after_its_filing_it_is_put_together_for_every_repo(house: XetCollected) -> None:
    key = twice(house)
    other = people.add_repo(house.database, "bob", "other")
    house.upload(FILE.bytes, repo_id=other)
    house.commit(FILE)
    before = [house.lfs_bytes(repo) for repo in (1, other)]
    freed: list[int] = []
    house.later(hours=23.9)
    assert wholes(house, freed=freed.append).run() == 0
    house.later(hours=0.2)
    assert wholes(house, freed=freed.append).run() == 1
    assert freed == [len(FILE.bytes)]
    assert (row(house).kind, row(house).key, row(house).state) == ("xet", FILE.key, "stored")
    house.raw.delete(key)
    assert read(house) == read(house, other) == FILE.bytes
    assert house.store.url(row(house).key, "GET", 60) is None
    assert [house.lfs_bytes(repo) for repo in (1, other)] == before
    assert house.findings() == []
    (event,) = house.rows(sa.select(events.c.subject, events.c.body).where(events.c.act == "object.chunked"))
    assert (event.subject, event.body["was"]) == (FILE.oid, key)
    assert wholes(house).run() == 0


@pytest.mark.parametrize("mode", ["proxy", "direct"])
def test_the_bytes_that_came_go_a_week_after_that_and_no_sooner(house: XetCollected, mode: str) -> None:
    key = twice(house, mode=mode)
    house.commit(FILE)
    # By then the bytes are older than any grace.
    house.later(days=365)
    assert wholes(house).run() == 1
    for _ in range(2):
        assert not [line for line in house.run() if line.subject == key]
        house.later(days=3.4)
    house.later(days=0.3)
    (line,) = [line for line in house.plan() if line.subject == key]
    assert (line.act, line.size) == ("sweep", len(FILE.bytes))
    assert "has lain elsewhere since" in line.why
    house.run()
    assert key not in house.keys("lfs/")
    assert house.keys("lfs/") == []
    assert read(house) == FILE.bytes
    assert house.findings() == []


@pytest.fixture
def bucket() -> Iterator[ObjectStore]:
    with moto() as endpoint:
        make_bucket(endpoint, "shelf")
        yield open_bucket(endpoint, "shelf")


@pytest.mark.s3
@pytest.mark.xdist_group("s3")
def test_a_signed_url_from_before_opens_for_a_week(
    sqlite_database: Database, tmp_path: Path, bucket: ObjectStore
) -> None:
    house = chunking(sqlite_database, tmp_path, bucket)
    key = twice(house, mode="direct")
    house.commit(FILE)
    # By the clock of the house only: the URL itself is fresh, and opens until the bytes are gone.
    house.later(days=365)
    signed = house.store.url(key, "GET", 3600)
    assert signed is not None
    assert wholes(house).run() == 1
    house.run()
    house.later(days=6.9)
    house.run()
    assert httpx.get(signed.href, headers=signed.headers, trust_env=False).content == FILE.bytes
    assert read(house) == FILE.bytes
    assert house.store.url(row(house).key, "GET", 3600) is None
    house.later(days=0.2)
    house.run()
    assert house.keys("lfs/") == []
    assert read(house) == FILE.bytes
    house.gate.heavy.close()


def _refuted(house: XetCollected) -> None:
    change(house, sa.update(xet_links).values(state="refuted"))


def _declared(house: XetCollected) -> None:
    change(house, sa.update(xet_links).values(state="declared"))


def _put_aside(house: XetCollected) -> None:
    change(house, sa.update(xet_xorbs).where(xet_xorbs.c.hash == TWO.hash).values(state="quarantined"))


def _damaged(house: XetCollected) -> None:
    change(house, sa.update(lfs_objects).values(state="damaged"))


def _condemned(house: XetCollected) -> None:
    change(house, sa.update(lfs_objects).values(state="condemned"))


@pytest.mark.parametrize("hinder", [_refuted, _declared, _put_aside, _damaged, _condemned])
def test_without_proof_and_sound_chunks_it_stays_as_it_came(
    lone: XetCollected, hinder: Callable[[XetCollected], None]
) -> None:
    key = twice(lone)
    lone.later(days=2)
    # What was found to be due may not be so any more when its turn comes.
    found, _ = wholes(lone)._look()
    hinder(lone)
    assert [wholes(lone).change(one) for one in found] == [False]
    assert wholes(lone).run() == 0
    assert (row(lone).kind, row(lone).key) == ("whole", key)


def strewn(first: Made, second: Made, times: int) -> Whole:
    """A file of the chunks of two xorbs in turn, over and over."""
    parts, leaves, data, at = [], [], b"", 0
    for number in range(times):
        for xorb in (first, second):
            chunk = number % len(xorb.parts)
            parts.append(Part(xorb.hash, chunk, chunk + 1, at))
            leaves += list(xorb.table().leaves(chunk, chunk + 1))
            data += xorb.parts[chunk]
            at = len(data)
    return Whole(File(hashes.file(leaves), at, packed(parts)), hashlib.sha256(data).hexdigest(), (), data)


@pytest.mark.parametrize("pieces", [SPARE, SPARE + 2])
def test_a_strewn_file_gives_no_object_its_place(lone: XetCollected, pieces: int) -> None:
    file = strewn(ONE, TWO, pieces // 2)
    key = twice(lone, file)
    lone.take(ONE, TWO)
    lone.file(file)
    lone.prove()
    lone.later(days=2)
    well = pieces == SPARE
    # Whoever found it before the file was kept by other terms asks again.
    assert wholes(lone).change(Twice(file.oid, len(file.bytes), key, file.file.hash)) is well
    assert wholes(lone).run() == 0
    assert row(lone, file).kind == ("xet" if well else "whole")


def test_an_object_is_kept_by_that_file_of_its_bytes_which_is_not_strewn(lone: XetCollected) -> None:
    strewn_one = strewn(ONE, TWO, SPARE)
    joined = made(strewn_one.bytes)
    key = twice(lone, strewn_one)
    lone.take(ONE, TWO)
    lone.file(strewn_one)
    other = people.add_repo(lone.database, "bob", "other")
    lone.bring(joined, repo_id=other)
    lone.prove()
    lone.later(days=2)
    assert row(lone, strewn_one).key == key
    assert wholes(lone).run() == 1
    assert row(lone, strewn_one).key == whole(joined).key


def test_an_object_that_came_strewn_is_read_by_what_comes_after_it(house: XetCollected) -> None:
    first = strewn(ONE, TWO, SPARE)
    joined = made(first.bytes)
    house.take(ONE, TWO)
    house.file(first)
    house.prove()
    assert row(house, first).key == first.key
    other = people.add_repo(house.database, "bob", "other")
    house.bring(joined, repo_id=other)
    assert (row(house, first).key, row(house, first).kind) == (whole(joined).key, "xet")
    # Neither whole bytes nor those of the first take its place.
    house.upload(first.bytes)
    house.take(ONE, TWO, repo_id=other)
    house.file(first, repo_id=other, shard="6" * 64)
    house.prove()
    assert row(house, first).key == whole(joined).key
    assert house.findings() == []


def test_whole_bytes_take_the_place_of_a_strewn_file(house: XetCollected) -> None:
    first = strewn(ONE, TWO, SPARE)
    house.take(ONE, TWO)
    house.file(first)
    house.prove()
    house.upload(first.bytes)
    assert row(house, first).kind == "whole"
    house.later(days=2)
    assert wholes(house).run() == 0
    assert house.findings() == []


def test_small_ones_stay_as_they_came(lone: XetCollected) -> None:
    twice(lone)
    lone.later(days=2)
    assert Wholes(lone.database, smallest=len(FILE.bytes) + 1, clock=lone.clock).run() == 0
    assert Wholes(lone.database, smallest=len(FILE.bytes), clock=lone.clock).run() == 1


def test_links_are_walked_over_page_by_page_and_again(house: XetCollected) -> None:
    files = [whole(ONE), whole(TWO), FILE]
    for file in files:
        twice(house, file)
    house.later(days=2)
    walking = wholes(house, page=2)
    assert sorted([walking.run(), walking.run()]) == [1, 2]
    assert {row(house, file).key for file in files} == {file.key for file in files}
    assert [walking.run() for _ in range(3)] == [0, 0, 0]
    assert house.findings() == []


def test_what_is_pushed_again_later_is_the_same_object(house: XetCollected) -> None:
    key = twice(house)
    house.later(days=2)
    looked = house.begin(FILE.bytes)
    wholes(house).run()
    # One that had looked the object up before, and one that did so after.
    house.store.put(key, FILE.bytes, len(FILE.bytes), FILE.oid)
    assert house.finish(looked, key) == FILE.key
    again = house.begin(FILE.bytes)
    own = lfs_key(FILE.oid, again.id)
    house.store.put(own, FILE.bytes, len(FILE.bytes), FILE.oid)
    assert house.finish(again, own) == FILE.key
    assert house.findings() == []


def test_while_the_bytes_lie_there_a_repair_goes_back_to_them(lone: XetCollected) -> None:
    twice(lone)
    lone.commit(FILE)
    lone.later(days=2)
    wholes(lone).run()
    _put_aside(lone)
    assert lone.findings() != []
    fault = BadObject(FILE.oid, len(FILE.bytes), row(lone).key, row(lone).state)
    assert ObjectRepair(lone.database, lone.store, clock=lone.clock).mend(fault).whole
    assert row(lone).kind == "whole"
    assert read(lone) == FILE.bytes
    lone.later(days=400)
    assert wholes(lone).run() == 0
    lone.run()
    assert read(lone) == FILE.bytes


class Leaving(LocalStore):
    """A shelf on which something happens right before a key is opened."""

    def __init__(self, store: ObjectStore, key: str, then: Callable[[], None]) -> None:
        self.__dict__ = store.__dict__ | {"_key": key, "_then": then}

    def open(self, key: str, span: Span | None = None) -> Reader:
        """Let it happen, and open."""
        if key == self._key:
            self._then()
        return super().open(key, span)


def test_a_reader_that_looked_before_and_opens_after_finds_it(house: XetCollected) -> None:
    key = twice(house)
    house.commit(FILE)
    house.later(days=2)

    def leave() -> None:
        house.standing_on(shelf)
        house.graces = NO_GRACE
        assert wholes(house).run() == 1
        assert key in {line.subject for line in house.run() if line.act == "sweep"}

    shelf = house.raw
    house.standing_on(Leaving(shelf, key, leave))
    store = house.store

    def where() -> str:
        held = house.gate.links.object_key(1, FILE.oid)
        return "" if held is None else held.key

    sender = Transfer(store=store).send(Outgoing(where(), len(FILE.bytes), FILE.oid, elsewhere=where))
    sender.open("GET", Headers())
    assert sent(sender) == FILE.bytes


def sent(sender: Any) -> bytes:
    said: list[Message] = []

    async def send(message: Message) -> None:
        said.append(message)

    async def receive() -> Message:
        await asyncio.Event().wait()
        return {}

    asyncio.run(sender({"type": "http", "method": "GET", "headers": []}, receive, send))
    return b"".join(message.get("body", b"") for message in said)
