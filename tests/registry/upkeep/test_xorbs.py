"""Xorbs that no file needs are condemned when their promise ends, and deleted when nobody names them until then."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from lfs.errors import ObjectAbsent
from lfs.store import shard_key, staging_key
from lfs.xet.index import Granted
from lfs.xet.shelf import WithFiles
from registry.db import Database
from registry.tables.xet import xet_xorbs
from registry.upkeep import old_packs
from registry.upkeep.gc import Scope
from registry.upkeep.xet_keys import COMING
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


def condemned(house: XetCollected, *xorbs: Any) -> None:
    """Take xorbs in, and let their promises end."""
    house.take(*xorbs)
    house.later(days=29)
    assert set(house.chunked()) == {("condemn", "xorb")}
    assert set(house.xorbs().values()) == {"condemned"}


def test_a_promise_is_kept_and_then_a_day_more(house: XetCollected) -> None:
    house.take(ONE)
    house.later(days=27)
    assert house.chunked() == []
    house.later(days=2)
    assert house.chunked() == [("condemn", "xorb")]
    house.later(hours=23)
    assert house.chunked() == []
    house.later(hours=2)
    assert house.chunked() == [("delete", "xorb")]
    assert house.xorbs() == {}
    assert house.keys("xet/") == []


def test_what_a_client_is_told_of_again_is_promised_again(house: XetCollected) -> None:
    house.take(ONE)
    house.later(days=20)
    house.index.promise(house.domain(), [ONE.hash])
    house.later(days=27)
    assert house.chunked() == []
    house.later(days=2)
    assert house.chunked() == [("condemn", "xorb")]


@pytest.mark.parametrize("how", ["filed", "promised", "uploaded"])
def test_a_condemned_xorb_lives_again_when_it_is_named(house: XetCollected, how: str) -> None:
    condemned(house, ONE)
    if how == "filed":
        assert house.file(whole(ONE))
    elif how == "promised":
        house.index.promise(house.domain(), [ONE.hash])
    else:
        house.take(ONE)
    assert house.xorbs() == {ONE.hash: "live"}
    house.later(days=14)
    assert house.chunked() == ([("sweep", "key")] * 2 if how == "uploaded" else [])
    assert house.file(whole(ONE)) == (how != "filed")
    assert house.prove() == ["done"]
    assert house.findings() == []


def test_one_that_is_being_deleted_is_absent_until_its_bytes_come_again(house: XetCollected) -> None:
    condemned(house, ONE)
    with house.database.write() as connection:
        connection.execute(sa.update(xet_xorbs).values(state="deleting", condemned_at=house.clock()))
    assert house.index.live(house.domain(), [ONE.hash]) == {}
    with pytest.raises(ObjectAbsent):
        house.file(whole(ONE))
    (served,) = house.take(ONE)
    assert house.index.located([ONE.hash]) == {ONE.hash: served}
    assert house.file(whole(ONE))
    house.later(days=8)
    # The keys that the row had before are nobody's.
    assert house.chunked() == [("sweep", "key")] * 2
    assert house.read(whole(ONE)) == whole(ONE).bytes


class Unplugged(WithFiles):
    """A shelf whose plug is pulled after some deletes."""

    left = 1

    def delete(self, key: str) -> None:
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1
        super().delete(key)


def test_what_a_dead_run_claimed_is_taken_up(house: XetCollected) -> None:
    condemned(house, ONE, TWO)
    house.later(days=2)
    dying = Unplugged(house.raw, house.index, house.store._tables)
    with pytest.raises(KeyboardInterrupt):
        list(house.gc(store=dying).run(Scope(yes=True)))
    assert set(house.xorbs().values()) == {"deleting"}
    house.later(minutes=59)
    assert house.chunked() == []
    house.later(minutes=2)
    assert house.chunked() == [("delete", "xorb")] * 2
    assert house.xorbs() == {}
    assert house.keys("xet/") == []


def test_a_deletion_that_takes_too_long_leaves_the_rest_to_the_next_run(
    house: XetCollected, monkeypatch: pytest.MonkeyPatch
) -> None:
    condemned(house, ONE, TWO)
    house.later(days=2)
    real = house.raw.delete

    def slow(key: str) -> None:
        house.later(seconds=old_packs.PATIENCE.total_seconds() / 2 + 1)
        real(key)

    monkeypatch.setattr(house.raw, "delete", slow)
    house.run()
    monkeypatch.undo()
    assert list(house.xorbs().values()) == ["deleting"]
    house.later(hours=2)
    house.run()
    assert house.keys("xet/") == []


def test_a_bad_xorb_stays_while_a_file_needs_it(house: XetCollected) -> None:
    made = house.bring(ONE)
    (row,) = house.index.located([ONE.hash]).values()
    house.take(TWO)
    house.commit(made)
    house.index.quarantine(ONE.hash, row.key)
    house.index.quarantine(TWO.hash, house.index.located([TWO.hash])[TWO.hash].key)
    house.later(days=2)
    assert house.chunked() == [("delete", "xorb")]
    assert house.xorbs() == {ONE.hash: "quarantined"}


def test_now_breaks_promises_and_tells_just_the_domains_concerned(house: XetCollected) -> None:
    private = people.add_repo(house.database, "ann", "private", visibility="private")
    theirs = people.add_repo(house.database, "bob", "theirs")
    house.take(ONE)
    house.take(TWO, repo_id=private)
    house.commit(house.bring(THREE))
    domains = [house.domain(repo) for repo in (1, private, theirs)]
    house.later(hours=2)
    with house.database.write() as connection:
        over = sa.update(xet_xorbs).where(xet_xorbs.c.hash == TWO.hash)
        connection.execute(over.values(promised_until=house.clock() - timedelta(days=1)))
    assert house.chunked(now=True) == [("condemn", "xorb")] * 2
    # Nobody can remember the second; nobody had the third taken away.
    assert [house.generations()[domain] for domain in domains] == [1, 0, 0]
    assert house.chunked(now=True) == []
    assert house.xorbs() == {ONE.hash: "condemned", TWO.hash: "condemned", THREE.hash: "live"}


def test_now_spares_what_is_just_coming(house: XetCollected) -> None:
    house.take(ONE)
    assert house.chunked(now=True) == []
    house.later(minutes=59)
    assert house.chunked(now=True) == []
    house.later(minutes=2)
    assert house.chunked(now=True) == [("condemn", "xorb")]


def granted(house: XetCollected, name: str, hours: int) -> Granted:
    """Give a grant, and let its client send something."""
    expires = int((house.clock() + timedelta(hours=hours)).timestamp())
    made = Granted(name * 32, house.domain(), ONE.hash, staging_key(name * 32), len(ONE.body), expires)
    house.index.grant(house.leave(), made)
    house.raw.put(made.key, ONE.body, len(ONE.body))
    return made


def test_grants_go_when_they_expired_and_what_came_by_them_a_week_later(house: XetCollected) -> None:
    short, long = granted(house, "a", 1), granted(house, "b", 24 * 30)
    house.later(hours=1, minutes=30)
    assert house.chunked() == []
    house.later(hours=1)
    assert house.chunked() == [("forget", "grant")]
    house.later(days=6)
    assert house.run() == []
    house.later(days=1)
    assert [line.subject for line in house.run()] == [short.key]
    assert house.index.granted(long.id) == long
    assert house.keys("staging/") == [long.key]


def test_without_grace_what_a_grant_waits_for_stays(house: XetCollected) -> None:
    house.graces = NO_GRACE
    made = granted(house, "a", 1)
    house.run()
    assert house.keys("staging/") == [made.key]
    house.later(hours=2)
    house.run()
    house.run()
    assert house.keys("staging/") == []


def test_bodies_tables_and_shards_of_nobody_go_after_a_week(house: XetCollected) -> None:
    kept, lost = house.bring(ONE), house.lay(TWO)
    house.commit(kept)
    shard = shard_key("ab" * 32)
    house.raw.put(shard, b"no shard", 8)
    house.later(days=6)
    assert house.chunked() == []
    house.later(days=2)
    assert sorted(line.subject for line in house.run()) == sorted([lost.key, lost.table, shard])
    assert house.chunked() == []
    assert house.read(kept) == kept.bytes


def test_what_is_coming_has_an_hour_whatever_the_graces(house: XetCollected) -> None:
    house.graces = NO_GRACE
    house.lay(TWO)
    assert house.chunked() == []
    house.later(seconds=COMING.total_seconds() + 1)
    assert house.chunked() == [("sweep", "key")] * 2
    assert house.keys("xet/") == []


def test_a_key_that_a_row_names_by_now_stays(house: XetCollected) -> None:
    lost = house.lay(ONE)
    house.later(days=8)
    gc, moment = house.gc(), house.clock()
    steps = list(gc._xet_keys.orphans(moment))
    house.index.keep(house.leave(), lost)
    assert [line.act for step in steps for line in step.do(1)] == ["keep", "keep"]
    house.file(whole(ONE))
    assert house.prove() == ["done"]


def test_a_key_that_no_room_makes_is_shown(house: XetCollected) -> None:
    house.raw.put("xet/other/thing", b"1", 1)
    house.later(days=80)
    assert [(line.act, line.subject) for line in house.run()] == [("skip", "xet/other/thing")]
    assert house.keys() == ["xet/other/thing"]
