"""A check finds what is wrong with xorbs and files; a repair puts bad bytes aside, and a new upload heals them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from lfs.errors import Damaged, Unavailable
from lfs.store import Reader, Span
from lfs.xet.formats import XorbTable
from lfs.xet.hashes import text
from lfs.xet.index import Xorb
from lfs.xet.shelf import WithFiles
from lfs.xet.tables import Tables
from registry.db import Database
from registry.tables.xet import xet_file_xorbs, xet_files, xet_xorbs
from registry.upkeep.faults import Found, Mended
from tests.lfs.xet.xorbs import random_xorb
from tests.registry import people
from tests.registry.upkeep.broken import Broken
from tests.registry.upkeep.chunking import Whole, XetCollected, chunking

ONE, TWO, THREE = (random_xorb(seed, chunks=3, size=2000) for seed in range(3))


@pytest.fixture
def house(database: Database, tmp_path: Path) -> Iterator[XetCollected]:
    made = chunking(database, tmp_path)
    yield made
    made.gate.heavy.close()


@pytest.fixture
def made(house: XetCollected) -> Whole:
    """A file of two xorbs that a ref needs."""
    one = house.bring(ONE, TWO)
    house.commit(one)
    return one


def served(house: XetCollected) -> Xorb:
    """The first xorb."""
    return house.index.located([ONE.hash])[ONE.hash]


def broken(house: XetCollected) -> Broken:
    """The house, to be broken and repaired; caches of tables are those of a new process."""
    store = WithFiles(house.raw, house.index, Tables(house.raw))
    return Broken(house.gate, store)


def seen(house: XetCollected, one: Whole) -> str:
    """How an object looks to the doors of its repo."""
    return house.gate.links.look(1, [one.oid])[one.oid].state


def lines(found: list[Found]) -> list[tuple[str, str]]:
    return [(each.finding.check, each.finding.kind) for each in found]


def whole(done: list[tuple[Found, Mended]]) -> list[bool]:
    return [mended.whole for _, mended in done]


def test_what_is_sound_is_no_finding(house: XetCollected, made: Whole) -> None:
    house.take(THREE)
    for read_data in (False, True):
        assert broken(house).found(read_data=read_data) == []


def flipped(body: bytes, at: int) -> bytes:
    return body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]


TABLES: dict[str, Callable[[Broken, str], None]] = {
    "gone": lambda house, key: house.store.delete(key),
    "rotten": lambda house, key: house.rot(key),
    "rotten where a chunk ends": lambda house, key: house.overwrite(key, flipped(house.read(key), 32)),
    "short": lambda house, key: house.overwrite(key, house.read(key)[:-40]),
    "empty": lambda house, key: house.overwrite(key, b""),
    "of another": lambda house, key: house.overwrite(key, THREE.table().to_bytes()),
}


@pytest.mark.parametrize("how", TABLES)
@pytest.mark.parametrize("read_data", [False, True])
def test_a_bad_table_is_found_and_built_again(house: XetCollected, made: Whole, how: str, read_data: bool) -> None:
    breaking = broken(house)
    TABLES[how](breaking, served(house).table)
    done = breaking.repaired(read_data=read_data)
    assert [(found.finding.check, mended.whole) for found, mended in done] == [("xorbs", True)]
    assert breaking.read(served(house).table) == ONE.table().to_bytes()
    assert broken(house).found() == []


def test_ends_that_do_not_fit_the_body_are_found_by_reading_it(house: XetCollected, made: Whole) -> None:
    """A table that was wrong when it was written has the right check, and a name proves no packed ends."""
    breaking, key = broken(house), served(house).table
    rows = bytearray(XorbTable.from_bytes(breaking.read(key)).rows)
    rows[32] ^= 1
    breaking.overwrite(key, XorbTable(bytes(rows)).to_bytes())
    assert breaking.found(read_data=False) == []
    assert whole(breaking.repaired()) == [True]
    assert broken(house).found() == []


BODIES: dict[str, Callable[[Broken, str], None]] = {
    "gone": lambda house, key: house.store.delete(key),
    "short": lambda house, key: house.overwrite(key, house.read(key)[:-1]),
    "longer": lambda house, key: house.overwrite(key, house.read(key) + b"XETBLOB1"),
    "rotten": lambda house, key: house.rot(key),
    "of another": lambda house, key: house.overwrite(key, THREE.body),
}


@pytest.mark.parametrize("how", BODIES)
def test_a_bad_body_is_put_aside_and_heals_by_a_new_upload(house: XetCollected, made: Whole, how: str) -> None:
    breaking = broken(house)
    BODIES[how](breaking, served(house).key)
    if how in ("gone", "short", "longer"):
        assert ("xorbs", "xorb") in lines(breaking.found(read_data=False))
    done = breaking.repaired()
    assert [found.finding.check for found, _ in done] == ["xorbs", "objects"]
    assert whole(done) == [False, False]
    assert made.oid in done[0][1].text
    assert "ann/one" in done[0][1].text
    assert house.xorbs()[ONE.hash] == "quarantined"
    assert seen(house, made) == "damaged"
    assert broken(house).acts()[-2:] == ["xorb.damaged", "file.damaged"]
    with pytest.raises(Damaged):
        house.read(made)
    # Nothing more is done by a second repair, and nothing is lost.
    assert whole(broken(house).repaired()) == [False, False]
    assert house.index.live(house.domain(), [ONE.hash]) == {}
    house.take(ONE)
    assert seen(house, made) == "stored"
    assert house.read(made) == made.bytes
    assert broken(house).found() == []
    assert broken(house).acts()[-3:] == ["xorb.damaged", "file.damaged", "xorb.healed"]
    assert not house.file(made)


def test_an_object_is_sound_again_when_another_repo_brought_its_xorb(house: XetCollected, made: Whole) -> None:
    """Nobody filed it here again, and nobody has to look."""
    breaking = broken(house)
    breaking.rot(served(house).key)
    breaking.repaired()
    assert seen(house, made) == "damaged"
    house.take(ONE, repo_id=people.add_repo(house.database, "ann", "another"))
    assert seen(house, made) == "stored"
    assert house.read(made) == made.bytes
    assert broken(house).found() == []


def test_an_object_whose_chunks_are_bad_heals_from_a_whole_copy(house: XetCollected, made: Whole) -> None:
    breaking = broken(house)
    breaking.rot(served(house).key)
    house.put(house.begin(made.bytes), made.bytes)
    assert whole(breaking.repaired()) == [False, True]
    (row,) = breaking.objects()
    assert (row.state, row.kind) == ("stored", "whole")
    assert breaking.read(row.key) == made.bytes


def test_a_push_heals_an_object_whose_chunks_are_bad(house: XetCollected, made: Whole) -> None:
    """git-lfs is asked for the bytes, and they come whole."""
    breaking = broken(house)
    breaking.rot(served(house).key)
    breaking.repaired()
    house.upload(made.bytes)
    (row,) = breaking.objects()
    assert (row.state, row.kind) == ("stored", "whole")
    assert breaking.read(row.key) == made.bytes
    # The file stays as it is for those who read by chunks, and is told of as long as the repo links it.
    assert lines(broken(house).found()) == [("xorbs", "xorb")]


def test_the_objects_of_a_bad_xorb_are_told_without_reading_a_byte(house: XetCollected, made: Whole) -> None:
    house.index.quarantine(ONE.hash, served(house).key)
    found = broken(house).found(read_data=False)
    assert lines(found) == [("xorbs", "xorb"), ("objects", "LFS object")]
    assert found[1].finding.subject == made.oid
    assert "known to be damaged" in found[1].finding.text


def test_bytes_that_are_right_after_all_live_again(house: XetCollected, made: Whole) -> None:
    house.index.quarantine(ONE.hash, served(house).key)
    assert seen(house, made) == "damaged"
    done = broken(house).repaired()
    assert [found.finding.check for found, _ in done] == ["xorbs"]
    assert whole(done) == [True]
    assert house.read(made) == made.bytes
    assert seen(house, made) == "stored"
    assert broken(house).acts()[-1] == "xorb.sound"


def test_a_row_that_is_wrong_of_sound_bytes_is_set_right(house: XetCollected, made: Whole) -> None:
    with house.database.write() as connection:
        connection.execute(sa.update(xet_xorbs).where(xet_xorbs.c.hash == ONE.hash).values(size=7, chunks=9))
    assert lines(broken(house).found(read_data=False)) == [("xorbs", "xorb")]
    assert whole(broken(house).repaired(read_data=False)) == [True]
    assert broken(house).found() == []


def test_needs_that_were_not_noted_are_noted_again(house: XetCollected, made: Whole) -> None:
    with house.database.write() as connection:
        connection.execute(sa.delete(xet_file_xorbs).where(xet_file_xorbs.c.xorb == ONE.hash))
    assert whole(broken(house).repaired()) == [True]
    house.later(days=100)
    house.run_now()
    assert house.xorbs() == {ONE.hash: "live", TWO.hash: "live"}
    assert broken(house).found() == []


def test_a_file_without_its_xorb_is_told(house: XetCollected, made: Whole) -> None:
    with house.database.write() as connection:
        connection.execute(sa.update(xet_files).values(terms=made.file.terms.replace(TWO.hash, b"\x01" * 32)))
    found = [each.finding for each in broken(house).found(read_data=False)]
    assert [(each.check, each.subject) for each in found] == [("xorbs", text(made.file.hash))]
    assert whole(broken(house).repaired(read_data=False)) == [False]


def test_an_object_whose_file_is_gone_is_told(house: XetCollected, made: Whole) -> None:
    with house.database.write() as connection:
        for statement in ("DELETE FROM xet_links", "DELETE FROM xet_marks", "DELETE FROM xet_file_xorbs"):
            connection.exec_driver_sql(statement)
        connection.exec_driver_sql("DELETE FROM xet_files")
    assert lines(broken(house).found(read_data=False)) == [("objects", "LFS object")]
    assert whole(broken(house).repaired(read_data=False)) == [False]
    assert house.states() == {made.oid: "damaged"}
    house.take(ONE, TWO)
    assert house.file(made)
    house.prove()
    assert house.states() == {made.oid: "stored"}


class Away(WithFiles):
    """A shelf that does not answer for bodies."""

    def open(self, key: str, span: Span | None = None) -> Reader:
        if key.startswith("xet/xorbs/"):
            raise Unavailable("The store does not answer.")
        return super().open(key, span)


def test_a_shelf_that_does_not_answer_proves_nothing(house: XetCollected, made: Whole) -> None:
    away = Broken(house.gate, Away(house.raw, house.index, Tables(house.raw)))
    found = away.found()
    assert found
    assert all(each.fault is None for each in found if each.finding.check == "xorbs")
    away.repaired()
    assert set(house.xorbs().values()) == {"live"}
