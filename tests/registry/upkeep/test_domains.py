"""What a domain knows of xorbs that only repos elsewhere need is forgotten once their promise has ended."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from lfs.errors import ObjectAbsent
from registry.db import Database
from registry.tables.repos import repos
from registry.tables.xet import xet_domains, xet_marks, xet_xorb_domains, xet_xorbs
from registry.xet_circles import Circle, make_domain
from tests.lfs.xet.xorbs import random_xorb
from tests.registry import people
from tests.registry.upkeep.chunking import XetCollected, chunking, whole

ONE, TWO, THREE = (random_xorb(seed, chunks=3, size=2000) for seed in range(3))


@pytest.fixture
def house(database: Database, tmp_path: Path) -> Iterator[XetCollected]:
    made = chunking(database, tmp_path)
    yield made
    made.gate.heavy.close()


def shown(house: XetCollected, domain: str) -> set[bytes]:
    """The xorbs that a shard of a domain may name."""
    chosen = sa.select(xet_xorb_domains.c.hash).where(xet_xorb_domains.c.domain_id == domain)
    return {bytes(row.hash) for row in house.rows(chosen)}


def marked(house: XetCollected, domain: str) -> int:
    """How many marks a domain has."""
    return len(house.rows(sa.select(xet_marks.c.chunk).where(xet_marks.c.domain_id == domain)))


def forgotten(house: XetCollected) -> list[str]:
    """Collect; say of which domains something was forgotten. A dry run before it said the same."""
    planned = house.plan()
    assert house.run() == planned
    return [line.subject for line in planned if (line.act, line.kind) == ("forget", "domain")]


def put(house: XetCollected, repo_id: int, **values: object) -> None:
    """Set columns of a repo, behind the back of whoever minds its domain."""
    with house.database.write() as connection:
        connection.execute(sa.update(repos).where(repos.c.id == repo_id).values(values))


def shared(house: XetCollected) -> tuple[int, str, str]:
    """File the same in a public and in a private repo; return the private one, and both domains."""
    private = people.add_repo(house.database, "ann", "private", visibility="private")
    house.commit(house.bring(ONE, TWO))
    house.bring(TWO, THREE, repo_id=private)
    return private, house.domain(), house.domain(private)


def test_a_repo_that_went_leaves_nothing_where_it_was_once_the_promise_is_over(house: XetCollected) -> None:
    private, public, hidden = shared(house)
    put(house, private, deleted_at=house.clock())
    house.later(days=1)
    assert forgotten(house) == []
    assert shown(house, hidden) == {TWO.hash, THREE.hash}
    house.later(days=28)
    assert forgotten(house) == ["private of ann"]
    # The third is needed by nothing, and goes as a whole; the public one is as it was.
    assert shown(house, hidden) <= {THREE.hash}
    assert shown(house, public) == {ONE.hash, TWO.hash}
    assert marked(house, public) == 6
    assert marked(house, hidden) == 0
    assert forgotten(house) == []


def test_what_was_asked_for_again_is_kept_for_as_long_as_that_promises(house: XetCollected) -> None:
    private, _, hidden = shared(house)
    put(house, private, visibility="public")
    house.later(days=20)
    house.index.promise(hidden, [TWO.hash])
    house.later(days=9)
    assert forgotten(house) == ["private of ann"]
    assert (shown(house, hidden), marked(house, hidden)) == ({TWO.hash}, 3)
    house.later(days=20)
    assert forgotten(house) == ["private of ann"]
    assert (shown(house, hidden), marked(house, hidden)) == (set(), 0)


def test_a_mark_whose_file_is_elsewhere_goes_though_its_xorb_stays(house: XetCollected) -> None:
    private, public, hidden = shared(house)
    other = people.add_repo(house.database, "ann", "other", visibility="private")
    house.bring(ONE, repo_id=other)
    newest = house.bring(ONE, TWO, repo_id=private)
    house.commit(whole(ONE, TWO), force=True)
    put(house, private, visibility="public")
    house.later(days=29)
    assert forgotten(house) == ["private of ann"]
    assert shown(house, hidden) == {ONE.hash}
    assert marked(house, hidden) == 0
    assert newest.file.hash in house.files()
    # Whoever files it here again marks it again.
    house.file(whole(ONE), repo_id=other)
    assert marked(house, hidden) == 3
    assert shown(house, public) == {ONE.hash, TWO.hash}


def test_what_is_filed_between_plan_and_deed_stays(house: XetCollected) -> None:
    private, _, hidden = shared(house)
    put(house, private, visibility="public")
    house.later(days=29)
    gc = house.gc()
    (step,) = gc._domains.steps(house.clock())
    other = people.add_repo(house.database, "ann", "other", visibility="private")
    house.file(whole(TWO, THREE), repo_id=other)
    assert [line.act for line in step.do(gc.runs.begin(house.clock(), {}))] == ["keep"]
    assert (shown(house, hidden), marked(house, hidden)) == ({TWO.hash, THREE.hash}, 6)


def test_who_remembers_what_was_forgotten_is_told_to_send_it(house: XetCollected) -> None:
    private, _, hidden = shared(house)
    put(house, private, visibility="public")
    house.later(days=29)
    assert forgotten(house) == ["private of ann"]
    other = people.add_repo(house.database, "ann", "other", visibility="private")
    with pytest.raises(ObjectAbsent):
        house.file(whole(TWO), repo_id=other)
    house.bring(TWO, repo_id=other)
    assert shown(house, hidden) == {TWO.hash}


@pytest.mark.parametrize(
    ("owner", "kind", "name"), [("r1", "public", "public of ann/one"), ("i", "private", "private of all")]
)
def test_domains_of_every_sharing_are_looked_through(house: XetCollected, owner: str, kind: str, name: str) -> None:
    house.commit(house.bring(ONE))
    with house.database.write() as connection:
        make_domain(connection, Circle(owner, "public" if kind == "public" else "private"))
        domain = connection.execute(sa.select(xet_domains.c.id).where(xet_domains.c.owner == owner)).scalar_one()
        connection.execute(sa.insert(xet_xorb_domains).values(domain_id=domain, hash=ONE.hash))
        ended = sa.update(xet_xorbs).values(promised_until=house.clock() - timedelta(days=1))
        connection.execute(ended)
    needs = owner == "r1"
    assert forgotten(house) == ([] if needs else [name])
    put(house, 1, visibility="private")
    assert name in forgotten(house) or not needs
    assert shown(house, domain) == set()
