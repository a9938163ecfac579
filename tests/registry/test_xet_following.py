"""A repo's chunks are found where the repo is: not sent again after a move, and not shown by where it was."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from lfs.errors import ObjectAbsent
from lfs.xet import hashes
from lfs.xet.index import File, Part, packed
from registry.access import Access, Actor
from registry.db import Database
from registry.errors import QuotaExceeded
from registry.names import RepoId
from registry.repos import Changes, Repos
from registry.tables.identity import namespaces
from registry.tables.repos import repos
from registry.tables.xet import xet_marks, xet_xorb_domains
from registry.xet_circles import Circle, circle_of
from registry.xet_copies import Copies, Wanted
from registry.xet_following import Following
from tests.lfs.xet.xorbs import Made, random_xorb
from tests.registry import people
from tests.registry.upkeep.chunking import Whole, XetCollected, chunking, whole

ONE, TWO = (random_xorb(seed, chunks=4, size=1000) for seed in range(2))
ANN = Actor(1, "ann", 1, None, "write")
OPEN, CLOSED = Changes(private=False, gated=""), Changes(private=True)


@pytest.fixture
def house(database: Database, tmp_path: Path) -> Iterator[XetCollected]:
    made = chunking(database, tmp_path)
    yield made
    made.gate.heavy.close()


def part_of(xorb: Made, start: int, end: int) -> Whole:
    """Make a file of some chunks of a xorb, each of them marked."""
    table = xorb.table()
    file = File(
        hashes.file(list(table.leaves(start, end))),
        table.unpacked(start, end),
        packed([Part(xorb.hash, start, end, 0)]),
    )
    data = b"".join(xorb.parts[start:end])
    marks = tuple((chunk, xorb.hash) for chunk in table.hashes(start, end))
    return Whole(file, hashlib.sha256(data).hexdigest(), marks, data)


def bring_part(house: XetCollected, xorb: Made, start: int, end: int, repo_id: int = 1) -> Whole:
    """Upload a file of some chunks of a xorb."""
    made = part_of(xorb, start, end)
    house.take(xorb, repo_id=repo_id)
    house.file(made, repo_id=repo_id)
    house.prove()
    return made


def desk(house: XetCollected) -> Repos:
    """What changes repos there."""
    following = Following(house.database, "namespace", clock=house.clock)
    quotas = house.gate.linked.quotas
    return Repos(house.database, Access(house.database), quotas, start=lambda *_: None, following=following)


def changing(house: XetCollected, changes: Changes, repo_id: int = 1) -> Callable[[], object]:
    """Return what changes settings of a repo, in one transaction that writes and no other."""
    with house.database.read() as connection:
        name = connection.execute(sa.select(repos.c.name).where(repos.c.id == repo_id)).scalar_one()
    repo = Access(house.database).visit(token(house), RepoId("model", "ann", name)).repo
    return lambda: desk(house).change(ANN, repo, changes)


def change(house: XetCollected, changes: Changes, repo_id: int = 1) -> str:
    """Change settings of a repo; return the domain where it is then."""
    changing(house, changes, repo_id)()
    return house.domain(repo_id)


def move(house: XetCollected, to: str) -> str:
    """Move the first repo to a namespace; return its domain there."""
    visit = Access(house.database).visit(token(house), RepoId("model", "ann", "one"))
    desk(house).move(ANN, visit.repo, RepoId("model", to, "one"))
    return house.domain()


def token(house: XetCollected) -> str:
    """A token of ann's."""
    return people.add_token(house.database, 1)


def lab(house: XetCollected) -> int:
    """Make a namespace that ann may write to."""
    org = people.add_namespace(house.database, "lab", "org")
    people.add_member(house.database, org, 1, "write")
    return org


def add_repo(house: XetCollected, name: str = "two", visibility: str = "public") -> int:
    return people.add_repo(house.database, "ann", name, visibility=visibility)


def shown(house: XetCollected, domain: str) -> set[bytes]:
    """The xorbs that a shard of a domain may name."""
    chosen = sa.select(xet_xorb_domains.c.hash).where(xet_xorb_domains.c.domain_id == domain)
    named = {bytes(row.hash) for row in house.rows(chosen)}
    assert set(house.index.live(domain, named)) == named
    return named


def marked(house: XetCollected, domain: str) -> dict[bytes, bytes]:
    """To which files the marks of a domain lead."""
    rows = house.rows(sa.select(xet_marks).where(xet_marks.c.domain_id == domain))
    for row in rows:
        found = house.index.around(domain, bytes(row.chunk))
        assert found is not None
        assert found.xorb == bytes(row.xorb)
    return {bytes(row.chunk): bytes(row.file) for row in rows}


def marks_of(*files: Whole) -> dict[bytes, bytes]:
    """The marks that files make."""
    return {chunk: one.file.hash for one in files for chunk, _ in one.marks}


def test_a_repo_that_is_closed_takes_all_along_at_once(house: XetCollected) -> None:
    made = house.bring(ONE, TWO)
    house.commit(made)
    public, stale = house.domain(), house.leave()
    private = change(house, CLOSED)
    assert private != public
    assert (shown(house, public), marked(house, public)) == (set(), {})
    assert (shown(house, private), marked(house, private)) == ({ONE.hash, TWO.hash}, marks_of(made))
    assert house.generations() == {public: 1, private: 0}
    assert house.read(made) == made.bytes
    # Nothing is sent again, and one who remembers the xorbs from before hears what he would hear of any.
    assert not house.file(made)
    other = add_repo(house)
    for named in (made, part_of(random_xorb(9), 0, 2)):
        with pytest.raises(ObjectAbsent):
            house.file(named, repo_id=other)
    assert stale.domain == house.domain(other) == public
    # Who has the bytes brings them, as if nobody had.
    house.bring(ONE, TWO, repo_id=other)
    assert shown(house, public) == {ONE.hash, TWO.hash}


@pytest.mark.parametrize("changes", [Changes(gated="auto"), Changes(gated="manual"), CLOSED])
def test_what_not_everybody_may_read_is_in_no_public_circle(house: XetCollected, changes: Changes) -> None:
    made = house.bring(ONE)
    public, private = house.domain(), change(house, changes)
    assert (shown(house, public), shown(house, private)) == (set(), {ONE.hash})
    assert change(house, OPEN) == public
    assert (shown(house, public), marked(house, public)) == ({ONE.hash}, marks_of(made))


def test_a_repo_that_is_opened_is_found_in_both_circles(house: XetCollected) -> None:
    """Its siblings that are still closed go on sharing with it; what it has may be known to everybody now."""
    change(house, CLOSED)
    private, made = house.domain(), house.bring(ONE, TWO)
    public = change(house, OPEN)
    for domain in (public, private):
        assert (shown(house, domain), marked(house, domain)) == ({ONE.hash, TWO.hash}, marks_of(made))
    assert house.generations() == {public: 0, private: 0}


def test_a_xorb_with_chunks_of_others_opens_with_nobody(house: XetCollected) -> None:
    change(house, CLOSED)
    other = add_repo(house, visibility="private")
    house.bring(ONE, repo_id=other)
    mine = [bring_part(house, ONE, 0, 2), house.bring(TWO)]
    public = change(house, OPEN)
    assert (shown(house, public), marked(house, public)) == ({TWO.hash}, marks_of(mine[1]))
    # It follows once the repo itself has all of it, be it by several files.
    change(house, CLOSED)
    mine.append(bring_part(house, ONE, 2, 4))
    change(house, OPEN)
    assert shown(house, public) == {ONE.hash, TWO.hash}
    # Marks that others took over since are led back to a file of its own.
    assert marked(house, public).keys() == marks_of(*mine).keys()
    assert set(marked(house, public).values()) <= {one.file.hash for one in mine}


def test_a_xorb_that_others_have_whole_stays_with_them(house: XetCollected) -> None:
    theirs, other = whole(ONE), add_repo(house)
    house.bring(ONE, repo_id=other)
    mine = house.bring(ONE, TWO)
    public, private = house.domain(), change(house, CLOSED)
    assert shown(house, private) == {ONE.hash, TWO.hash}
    assert shown(house, public) == {ONE.hash}
    # The closed repo's file was the newest; its marks lead to the open one's now.
    assert marked(house, public) == marks_of(theirs)
    assert marked(house, private) == marks_of(mine)
    assert not house.file(theirs, repo_id=other)


def test_a_xorb_that_others_have_a_part_of_goes(house: XetCollected) -> None:
    """Or who may write to the open repos could ask for the chunks that only the closed one has."""
    other = add_repo(house)
    mine = house.bring(ONE)
    theirs = bring_part(house, ONE, 0, 2, other)
    public, private = house.domain(), change(house, CLOSED)
    assert (shown(house, public), marked(house, public)) == (set(), {})
    assert (shown(house, private), marked(house, private)) == ({ONE.hash}, marks_of(mine))
    assert house.read(theirs) == theirs.bytes
    assert house.generations()[public] == 1


def test_a_copy_shows_no_chunk_but_its_own(house: XetCollected) -> None:
    change(house, CLOSED)
    other = add_repo(house)
    part, all_of_it = bring_part(house, ONE, 0, 2), house.bring(TWO)
    copies = Copies(house.database, house.index, house.gate.links, house.linker)
    target = Access(house.database).visit(token(house), RepoId("model", "ann", "two")).repo
    wanted = [Wanted(one.file.hash, one.oid) for one in (part, all_of_it)]
    assert copies.copy(1, target, 1, wanted) == {}
    public = house.domain(other)
    assert (shown(house, public), marked(house, public)) == ({TWO.hash}, marks_of(all_of_it))
    assert {hash for repo_id, hash, state in house.links() if (repo_id, state) == (other, "proven")} == {
        part.file.hash,
        all_of_it.file.hash,
    }


def test_two_that_share_a_xorb_and_are_closed_leave_nothing(house: XetCollected) -> None:
    other = add_repo(house)
    made = house.bring(ONE)
    house.bring(ONE, repo_id=other)
    public, private = house.domain(), change(house, CLOSED)
    assert shown(house, public) == {ONE.hash}
    assert change(house, CLOSED, other) == private
    assert (shown(house, public), marked(house, public)) == (set(), {})
    assert marked(house, private) == marks_of(made)


@pytest.mark.parametrize("closed", [False, True])
def test_a_repo_that_is_moved_is_found_in_its_new_namespace(house: XetCollected, closed: bool) -> None:
    if closed:
        change(house, CLOSED)
    made, old = house.bring(ONE, TWO), house.domain()
    lab(house)
    new = move(house, "lab")
    assert new != old
    assert (shown(house, new), marked(house, new)) == ({ONE.hash, TWO.hash}, marks_of(made))
    assert not house.file(made)
    # What is public is not hidden from anybody; it goes when nobody was promised it any more.
    left = {} if closed else marks_of(made)
    assert marked(house, old) == left
    assert shown(house, old) == (set() if closed else {ONE.hash, TWO.hash})


def test_a_move_that_is_refused_changes_nothing(house: XetCollected) -> None:
    house.bring(ONE)
    old, org = house.domain(), lab(house)
    with house.database.write() as connection:
        connection.execute(sa.update(namespaces).where(namespaces.c.id == org).values(quota=1))
    with pytest.raises(QuotaExceeded):
        move(house, "lab")
    assert house.domain() == old
    assert house.generations() == {old: 0}
    assert shown(house, old) == {ONE.hash}


def test_a_repo_without_chunks_or_in_its_circle_still_changes_nothing(house: XetCollected) -> None:
    change(house, CLOSED)
    house.bring(ONE)
    before = house.generations()
    change(house, Changes(gated="auto"))
    change(house, Changes(description="Ours"))
    assert house.generations() == before
    assert shown(house, house.domain()) == {ONE.hash}


def test_a_power_cut_before_the_commit_leaves_all_as_it_was(
    house: XetCollected, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = house.bring(ONE)
    public = house.domain()

    real = house.database.engine.dialect.do_commit

    def cut(connection: Any) -> None:
        cursor = connection.cursor()
        cursor.execute("SELECT visibility FROM repos WHERE id = 1")
        if cursor.fetchone() == ("private",):
            raise KeyboardInterrupt
        real(connection)

    close = changing(house, CLOSED)
    with monkeypatch.context() as patch:
        patch.setattr(house.database.engine.dialect, "do_commit", cut)
        with pytest.raises(KeyboardInterrupt):
            close()
    assert house.domain() == public
    assert house.generations() == {public: 0}
    assert (shown(house, public), marked(house, public)) == ({ONE.hash}, marks_of(made))
    private = change(house, CLOSED)
    assert (shown(house, public), shown(house, private)) == (set(), {ONE.hash})


@pytest.mark.parametrize(
    ("sharing", "owner"), [("namespace", "n1"), ("repo", "r1"), ("instance", "i")], ids=lambda value: str(value)
)
def test_a_circle_is_named_after_what_is_shared(house: XetCollected, sharing: str, owner: str) -> None:
    for visibility, gated, kind in (
        ("public", "", "public"),
        ("public", "auto", "private"),
        ("private", "", "private"),
    ):
        with house.database.write() as connection:
            connection.execute(sa.update(repos).values(visibility=visibility, gated=gated))
        with house.database.read() as connection:
            row = connection.execute(sa.select(repos).where(repos.c.id == 1)).one()
        assert circle_of(sharing, row) == Circle(owner, kind)  # type: ignore[arg-type]  # words of the lines above
