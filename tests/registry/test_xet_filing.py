"""A shard of many files comes into the rows group by group, and a death in between is finished by the next try."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import Connection

from lfs.errors import ObjectAbsent, QuotaExceeded
from lfs.store import file_key
from lfs.xet.hashes import text
from lfs.xet.index import File, Filing, Leave, Part, Xorb, packed
from registry import errors, xet_filing
from registry.access import Access
from registry.db import Database
from registry.linking import Proven
from registry.names import RepoId
from registry.quota import Quotas
from registry.tables.objects import lfs_uploads
from registry.tables.xet import xet_arrivals, xet_file_xorbs, xet_files, xet_links, xet_marks, xet_xorb_domains
from registry.xet_arrivals import KEPT, XetArrivals
from registry.xet_copies import Copies, Wanted
from registry.xet_xorbs import PROMISE, Xorbs
from tests.contracts.xet_grounds import ANN, FAR, MINE, TWIN, RowsGround
from tests.registry import people
from tests.registry.linked import Linked

SHARD, OTHER_SHARD = "5" * 64, "6" * 64
TABLES = (xet_files, xet_file_xorbs, xet_links, xet_marks, lfs_uploads)


@pytest.fixture
def ground(database: Database, monkeypatch: pytest.MonkeyPatch) -> RowsGround:
    monkeypatch.setattr(xet_filing, "TOGETHER", 4)
    monkeypatch.setattr(xet_filing, "PAUSE", 0.0)
    return RowsGround(database)


def raw(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


def filing(name: str, *xorbs: str) -> Filing:
    """A file of 100 bytes and all chunks of each of these xorbs, marked by a chunk of its own."""
    parts = [Part(raw(each), 0, 3, 100 * at) for at, each in enumerate(xorbs)]
    marks = ((raw(f"chunk of {name}"), raw(xorbs[0])),)
    return Filing(File(raw(name), 100 * len(xorbs), packed(parts)), raw(f"oid of {name}").hex(), marks)


def piece(name: str, xorb: str, chunk: int) -> Filing:
    """A file of 100 bytes, one chunk of a xorb, by which it is found."""
    file = File(raw(name), 100, packed([Part(raw(xorb), chunk, chunk + 1, 0)]))
    return Filing(file, raw(f"oid of {name}").hex(), ((raw(f"chunk of {name}"), raw(xorb)),))


def leave(ground: RowsGround, repo: int = MINE) -> Leave:
    return Leave(repo, ANN, ground.domain(repo), "write", 0)


def keep(ground: RowsGround, *names: str, repo: int = MINE) -> None:
    for name in names:
        hash = raw(name)
        made = Xorb(hash, f"xet/xorbs/{hash.hex()}", f"xet/tables/{hash.hex()}", 1000, 2000, 3)
        ground.index.keep(leave(ground, repo), made)


def many(count: int = 10) -> list[Filing]:
    """Files of which each has a xorb of its own, in the order in which they are filed."""
    return sorted((filing(f"f{number}", f"x{number}") for number in range(count)), key=lambda one: one.file.hash)


def counts(ground: RowsGround) -> list[int]:
    """How many rows there are of all that a shard makes."""
    with ground.database.read() as connection:
        chosen = [sa.select(sa.func.count()).select_from(table) for table in TABLES]
        return [connection.execute(each).scalar_one() for each in chosen]


def shards(ground: RowsGround) -> dict[bytes, str]:
    """Which shard told of each file."""
    with ground.database.read() as connection:
        rows = connection.execute(sa.select(xet_files.c.hash, xet_files.c.shard))
        return {bytes(row.hash): row.shard for row in rows}


class Died(BaseException):
    """The process is gone."""


@contextmanager
def dying(database: Database, commits: int) -> Iterator[None]:
    """Die before the commit after so many."""
    left = [commits]

    def burn(connection: Connection) -> None:
        if left[0] == 0:
            raise Died
        left[0] -= 1

    event.listen(database.engine, "commit", burn)
    try:
        yield
    finally:
        event.remove(database.engine, "commit", burn)


def test_a_shard_of_many_files_is_filed_group_by_group(ground: RowsGround) -> None:
    keep(ground, *(f"x{number}" for number in range(10)))
    assert ground.index.file(leave(ground), many(), SHARD)
    assert counts(ground) == [10] * 5
    assert not ground.index.file(leave(ground), many(), SHARD)
    assert counts(ground) == [10] * 5


@pytest.mark.parametrize("groups", [0, 1, 2])
def test_a_death_between_groups_leaves_what_the_next_try_completes(ground: RowsGround, groups: int) -> None:
    keep(ground, *(f"x{number}" for number in range(10)))
    asked = leave(ground)
    with dying(ground.database, groups), pytest.raises(Died):
        ground.index.file(asked, many()[::-1], SHARD)
    assert counts(ground) == [4 * groups] * 5
    # What was filed is declared, and may be proven meanwhile.
    for one in many()[: 4 * groups : 3]:
        ground.settle(MINE, one.file.hash, one.sha256)
    assert ground.index.file(asked, many(), OTHER_SHARD)
    assert counts(ground) == [10] * 5
    assert not ground.index.file(asked, many(), SHARD)
    for number, one in enumerate(many()):
        assert ground.index.find(MINE, one.file.hash) == one.file
        assert shards(ground)[one.file.hash] == (SHARD if number < 4 * groups else OTHER_SHARD)


def test_a_xorb_that_the_last_group_lacks_keeps_the_first_out(ground: RowsGround) -> None:
    keep(ground, *(f"x{number}" for number in range(9)))
    with pytest.raises(ObjectAbsent) as failed:
        ground.index.file(leave(ground), many(), SHARD)
    assert failed.value.oids == (text(raw("x9")),)
    assert counts(ground) == [0] * 5
    assert ground.brought() == 9000


def test_the_quota_is_judged_for_the_whole_shard_first(ground: RowsGround) -> None:
    keep(ground, *(f"x{number}" for number in range(10)))
    ground.limit(999)
    with pytest.raises(QuotaExceeded):
        ground.index.file(leave(ground), many(), SHARD)
    assert counts(ground) == [0] * 5
    assert ground.brought() == 10_000
    # What the files are made of counts with no group, once they are filed.
    ground.limit(1000)
    assert ground.index.file(leave(ground), many(), SHARD)
    usage = Quotas(ground.database, clock=ground.clock.moment).usage(1)
    assert (usage.used, usage.reserved) == (0, 1000)
    for one in many():
        ground.settle(MINE, one.file.hash, one.sha256)
    usage = Quotas(ground.database, clock=ground.clock.moment).usage(1)
    assert (usage.used, usage.reserved) == (1000, 0)
    assert not ground.index.file(leave(ground), many(), SHARD)


def test_what_a_later_group_is_to_stand_for_counts_until_it_does(ground: RowsGround) -> None:
    keep(ground, "x", "y")
    files = many_of("x", "y")
    asked = leave(ground)
    with dying(ground.database, 2), pytest.raises(Died):
        ground.index.file(asked, files, SHARD)
    assert (counts(ground)[0], ground.brought()) == (8, 2000)
    # They are counted twice while the last group is away, but the next try is judged as if it had come.
    assert ground.quotas.usage(1).reserved == 2800
    ground.limit(1000)
    assert ground.index.file(asked, files, SHARD)
    assert ground.quotas.usage(1).reserved == 1000


def many_of(*xorbs: str) -> list[Filing]:
    """Ten files, of which only the last two have all chunks of any xorb."""
    first = sorted((piece(f"f{number}", xorbs[number % 2], 0) for number in range(10)), key=lambda one: one.file.hash)
    whole = [
        replace(one, file=replace(one.file, terms=packed([Part(raw(xorb), 0, 3, 0)])))
        for one, xorb in zip(first[-2:], xorbs, strict=True)
    ]
    return first[:-2] + whole


def test_shards_of_one_upload_stand_together_for_their_xorbs(ground: RowsGround) -> None:
    keep(ground, "x")
    ground.index.file(leave(ground), [piece("f", "x", 0), piece("g", "x", 2)], SHARD)
    assert ground.brought() == 1000
    ground.index.file(leave(ground, TWIN), [piece("h", "x", 1)], OTHER_SHARD)
    assert ground.brought() == 0


def test_xorbs_that_heal_a_file_count_no_more_once_it_is_made_of_them(ground: RowsGround) -> None:
    keep(ground, "x", "y")
    ground.index.file(leave(ground), [filing("f", "x")], SHARD)
    ground.put_state(raw("x"), "quarantined")
    ground.index.file(leave(ground), [filing("f", "y")], OTHER_SHARD)
    assert ground.brought() == 0


def test_what_is_promised_counts_for_as_long() -> None:
    assert KEPT == PROMISE


def test_a_xorb_that_came_before_is_not_judged_again(ground: RowsGround) -> None:
    keep(ground, "x")
    ground.limit(1)
    keep(ground, "x")
    ground.index.check(leave(ground), raw("x"), 1000)
    assert ground.brought() == 1000


def test_other_writers_of_sqlite_get_their_turn_between_groups(ground: RowsGround) -> None:
    paused: list[float] = []
    arrivals = XetArrivals(ground.database, ground.quotas, clock=ground.clock.moment)
    rows = xet_filing.XetFiling(
        ground.database,
        ground.quotas,
        arrivals,
        Xorbs(ground.database, arrivals, clock=ground.clock.moment),
        clock=ground.clock.moment,
        sleep=paused.append,
    )
    keep(ground, *(f"x{number}" for number in range(10)))
    assert rows.file(leave(ground), many(), SHARD)
    assert len(paused) == (2 if ground.database.sqlite else 0)


def test_a_file_names_the_shard_that_told_its_terms(ground: RowsGround) -> None:
    keep(ground, "x", "y", "z")
    ground.index.file(leave(ground), [filing("f", "x"), filing("g", "y")], SHARD)
    ground.index.file(leave(ground), [filing("f", "z"), filing("g", "y")], OTHER_SHARD)
    assert shards(ground) == {raw("f"): SHARD, raw("g"): SHARD}
    ground.put_state(raw("x"), "quarantined")
    ground.index.file(leave(ground, TWIN), [filing("f", "z")], OTHER_SHARD)
    assert shards(ground) == {raw("f"): OTHER_SHARD, raw("g"): SHARD}


def test_what_was_brought_is_reserved_until_it_is_filed_and_shown_to_people(ground: RowsGround) -> None:
    keep(ground, "x")
    ground.limit(5000)
    assert ground.quotas.usage(1).reserved == 1000
    with pytest.raises(QuotaExceeded) as refused:
        keep(ground, *(f"x{number}" for number in range(9)))
    for part in ("ann holds 0 bytes and expects uploads of 4.9 KiB", "1000 bytes more", "4.9 KiB", "quota set ann"):
        assert part in refused.value.message
    # Objects by Git LFS stand beside it.
    with pytest.raises(errors.QuotaExceeded):
        Linked(ground.database, clock=ground.clock.moment).begin(MINE, "a" * 64, 1)


def test_another_namespace_is_not_charged(ground: RowsGround) -> None:
    people.add_user(ground.database, "bob")
    theirs = people.add_repo(ground.database, "bob", "theirs")
    keep(ground, "x")
    keep(ground, "x", repo=theirs)
    assert [ground.quotas.usage(namespace).reserved for namespace in (1, 2)] == [1000, 1000]
    ground.index.file(leave(ground), [filing("f", "x")], SHARD)
    assert [ground.quotas.usage(namespace).reserved for namespace in (1, 2)] == [100, 1000]


def test_what_the_server_sends_to_itself_counts_as_the_object_that_it_is(ground: RowsGround) -> None:
    own = replace(leave(ground), actor_id=0)
    ground.limit(10)
    ground.index.check(own, raw("x"), 1000)
    ground.index.keep(own, Xorb(raw("x"), "xet/xorbs/x", "xet/tables/x", 1000, 2000, 3))
    assert ground.brought() == 0


def test_a_copy_that_is_refused_leaves_nothing_and_shows_nothing(ground: RowsGround) -> None:
    keep(ground, "x")
    one = piece("f", "x", 0)
    ground.index.file(leave(ground), [one], SHARD)
    (upload,) = ground.waiting(MINE, one.sha256)
    ground.linker.finish(Proven(upload.id, file_key(text(one.file.hash)), one.sha256, 100))
    linked = Linked(ground.database, clock=ground.clock.moment)
    copies = Copies(ground.database, ground.index, linked.links, ground.linker)
    target = Access(ground.database).visit(people.add_token(ground.database, ANN), RepoId("model", "ann", "far")).repo
    ground.limit(1150)
    with pytest.raises(QuotaExceeded):
        copies.copy(MINE, target, ANN, [Wanted(one.file.hash, one.sha256)])
    assert shown(ground) == {(ground.domain(MINE), raw("x"))}
    assert counts(ground)[2] == 1
    ground.limit(1200)
    assert copies.copy(MINE, target, ANN, [Wanted(one.file.hash, one.sha256)]) == {}
    # The file has one of its three chunks: those of others do not show by it.
    assert shown(ground) == {(ground.domain(MINE), raw("x"))}
    assert ground.links()[FAR, one.file.hash, one.sha256] == "proven"


def test_a_copy_in_groups_shows_what_all_of_its_files_have_together(ground: RowsGround) -> None:
    keep(ground, "x", "y")
    parts = [piece(f"f{number}", "x", number % 3) for number in range(10)] + [piece("g", "y", 1)]
    ground.index.file(leave(ground), parts, SHARD)
    for one in parts:
        ground.settle(MINE, one.file.hash, one.sha256)
    asked = leave(ground, FAR)
    with dying(ground.database, 2), pytest.raises(Died):
        ground.index.copy(asked, parts)
    assert shown(ground, FAR) == set()
    assert ground.index.copy(asked, parts)
    assert shown(ground, FAR) == {(asked.domain, raw("x"))}


def shown(ground: RowsGround, *repos: int) -> set[tuple[str, bytes]]:
    """Which domains may name which xorbs: all, or those of some repos."""
    chosen = sa.select(xet_xorb_domains)
    if repos:
        chosen = chosen.where(xet_xorb_domains.c.domain_id.in_([ground.domain(repo) for repo in repos]))
    with ground.database.read() as connection:
        return {(row.domain_id, bytes(row.hash)) for row in connection.execute(chosen)}


def test_rows_that_expired_are_taken_up_again(ground: RowsGround) -> None:
    keep(ground, "x")
    ground.clock.now += KEPT.total_seconds() + 1
    assert ground.brought() == 0
    keep(ground, "x")
    assert ground.brought() == 1000
    with ground.database.read() as connection:
        assert len(connection.execute(sa.select(xet_arrivals)).all()) == 1
