"""Xet in rows: whose domain a repo is in, who may still come, and how a filed file becomes an object."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import sqlalchemy as sa

from lfs.errors import BadToken, QuotaExceeded
from lfs.host import Opening, Wanted
from lfs.store import file_key
from lfs.xet.hashes import text
from lfs.xet.index import File, Filing, Leave, Part, Scope, Xorb, packed
from registry.db import Database
from registry.errors import RepoAbsent
from registry.linking import Proven
from registry.quota import Quotas
from registry.tables.identity import memberships, users
from registry.tables.objects import lfs_links, lfs_objects, lfs_uploads
from registry.tables.repos import repos
from registry.tables.xet import xet_domains, xet_links, xet_xorbs
from registry.xet_circles import Sharing
from registry.xet_domains import Domain, XetDomains
from tests.contracts.xet_grounds import ANN, MINE, TWIN, RowsGround
from tests.lfs.xet.memory_index import State
from tests.registry import people

SHARD = "5" * 64
HASH, XORB, OID = hashlib.sha256(b"file").digest(), hashlib.sha256(b"xorb").digest(), "a" * 64
KEY = file_key(text(HASH))


@pytest.fixture
def ground(database: Database) -> RowsGround:
    return RowsGround(database)


def leave(ground: RowsGround, repo: int = MINE, actor: int = ANN, scope: Scope = "write") -> Leave:
    return Leave(repo, actor, ground.domain(repo), scope, 0)


def filing(hash: bytes = HASH, oid: str = OID, size: int = 100, xorb: bytes = XORB) -> Filing:
    return Filing(File(hash, size, packed([Part(xorb, 0, 1, 0)])), oid)


def keep(ground: RowsGround, repo: int = MINE, hash: bytes = XORB) -> None:
    ground.index.keep(leave(ground, repo), Xorb(hash, f"xet/xorbs/{hash.hex()}", f"xet/tables/{hash.hex()}", 9, 100, 1))


def put_file(ground: RowsGround, repo: int = MINE, filed: Filing | None = None) -> bool:
    keep(ground, repo)
    return ground.index.file(leave(ground, repo), [filed or filing()], SHARD)


def bytes_of(ground: RowsGround, repo: int = MINE) -> int:
    with ground.database.read() as connection:
        return int(connection.execute(sa.select(repos.c.lfs_bytes).where(repos.c.id == repo)).scalar_one())


# Domains


@pytest.mark.parametrize(
    ("sharing", "together"),
    [("namespace", {"one", "two", "set"}), ("repo", {"one"}), ("instance", {"one", "two", "set", "theirs"})],
)
def test_chunks_are_shared_as_far_as_the_setting_says(database: Database, sharing: Sharing, together: set[str]) -> None:
    people.add_user(database, "ann")
    people.add_user(database, "bob")
    made = {name: people.add_repo(database, "ann", name) for name in ("one", "two", "gated")}
    made |= {"private": people.add_repo(database, "ann", "private", visibility="private")}
    made |= {
        "set": people.add_repo(database, "ann", "set", kind="dataset"),
        "theirs": people.add_repo(database, "bob", "x"),
    }
    with database.write() as connection:
        connection.execute(sa.update(repos).where(repos.c.id == made["gated"]).values(gated="auto"))
    domains = XetDomains(database, sharing)
    found = {name: domains.domain_for(repo) for name, repo in made.items()}
    assert {name for name, domain in found.items() if domain == found["one"]} == together
    assert {found["gated"], found["private"]}.isdisjoint({found[name] for name in ("one", "two", "set", "theirs")})
    assert (found["gated"] == found["private"]) == (sharing != "repo")
    with pytest.raises(RepoAbsent):
        domains.domain_for(99)


def test_those_who_ask_first_agree_on_the_domain(database: Database) -> None:
    people.add_user(database, "ann")
    repo = people.add_repo(database, "ann", "one")
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda _: XetDomains(database, "namespace").domain_for(repo), range(8)))
    assert len(found) == 1
    with database.read() as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(xet_domains)).scalar_one() == 1


def test_an_operator_begins_a_generation_at_any_time(ground: RowsGround) -> None:
    domains, domain = ground.index.domains, ground.domain(MINE)
    assert domains.renew(domain)
    assert not domains.renew(domain)
    assert domains.renew(domain, every=timedelta())
    assert domains.domain_for(MINE) == Domain(domain, 2)
    assert not domains.renew("0" * 32)


# Leave


def test_leave_ends_with_the_domain_of_the_repo(ground: RowsGround) -> None:
    before = leave(ground)
    ground.index.enter(before, 0)
    for change in ({"visibility": "private"}, {"gated": "manual"}):
        ground.change_repo(MINE, **change)
        with pytest.raises(BadToken):
            ground.index.enter(before, 0)
        ground.index.enter(leave(ground), 0)
        ground.change_repo(MINE, visibility="public", gated="")
    people.add_user(ground.database, "bob")
    ground.change_repo(MINE, namespace_id=2)
    with pytest.raises(BadToken):
        ground.index.enter(before, 0)


@pytest.mark.parametrize(
    ("role", "may"),
    [(None, {"read public"}), ("read", {"read public", "read private"}), ("write", None), ("admin", None)],
)
def test_leave_ends_with_the_right_that_it_was_given_by(
    ground: RowsGround, role: str | None, may: set[str] | None
) -> None:
    org = people.add_namespace(ground.database, "org", "org")
    bob = people.add_user(ground.database, "bob")
    people.add_member(ground.database, org, bob, "admin")
    everything = {}
    for visibility in ("public", "private"):
        repo = people.add_repo(ground.database, "org", visibility, visibility=visibility)
        everything |= {f"{scope} {visibility}": leave(ground, repo, bob, scope) for scope in ("read", "write")}  # type: ignore[arg-type]  # of the line itself
    for each in everything.values():
        ground.index.enter(each, 0)
    with ground.database.write() as connection:
        here = memberships.c.user_id == bob
        changed = sa.delete(memberships).where(here) if role is None else sa.update(memberships).where(here)
        connection.execute(changed if isinstance(changed, sa.Delete) else changed.values(role=role))
    for name, each in everything.items():
        if may is None or name in may:
            ground.index.enter(each, 0)
        else:
            with pytest.raises(BadToken):
                ground.index.enter(each, 0)


def test_nobody_reads_what_is_public_and_writes_nothing(ground: RowsGround) -> None:
    ground.index.enter(leave(ground, actor=0, scope="read"), 0)
    for refused in (leave(ground, actor=0), leave(ground, actor=99, scope="read")):
        with pytest.raises(BadToken):
            ground.index.enter(refused, 0)
    ground.change_repo(TWIN, visibility="private")
    with pytest.raises(BadToken):
        ground.index.enter(leave(ground, TWIN, actor=0, scope="read"), 0)


def test_an_admin_of_the_instance_comes_in_everywhere(ground: RowsGround) -> None:
    root = people.add_user(ground.database, "root", is_admin=True)
    ground.index.enter(leave(ground, actor=root), 0)
    with ground.database.write() as connection:
        connection.execute(sa.update(users).where(users.c.id == root).values(is_admin=False))
    with pytest.raises(BadToken):
        ground.index.enter(leave(ground, actor=root), 0)


# From a filed file to an object


def test_a_filed_file_waits_for_its_proof_once(ground: RowsGround) -> None:
    assert put_file(ground)
    assert not put_file(ground)
    (upload,) = ground.waiting(MINE, OID)
    assert (upload.mode, upload.key, upload.size, upload.actor_id) == ("xet", KEY, 100, ANN)
    assert ground.uploads.unproven(MINE, [OID]) == {OID: 100}
    assert [each.key for each in ground.uploads.arrived("1" * 32, 30, 5)] == [KEY]
    assert ground.index.files.advertised(MINE, [OID]) == {}


def test_a_proven_file_is_an_object_that_the_hub_names(ground: RowsGround) -> None:
    put_file(ground)
    ground.settle(MINE, HASH, OID)
    (made,) = ground.objects()
    assert (made.oid, made.size, made.key, made.kind, made.state) == (OID, 100, KEY, "xet", "stored")
    assert bytes_of(ground) == 100
    assert ground.index.files.advertised(MINE, [OID, "b" * 64]) == {OID: HASH}
    assert ground.index.files.advertised(TWIN, [OID]) == {}
    assert ground.index.files.advertised(MINE, []) == {}
    assert not put_file(ground)
    assert ground.waiting(MINE, OID) == []


@pytest.mark.parametrize(("state", "named"), [("condemned", True), ("quarantined", False), ("deleting", False)])
def test_the_hub_names_only_what_can_be_served(ground: RowsGround, state: str, named: bool) -> None:
    put_file(ground)
    ground.settle(MINE, HASH, OID)
    with ground.database.write() as connection:
        connection.execute(sa.update(xet_xorbs).values(state=state))
    assert bool(ground.index.files.advertised(MINE, [OID])) == named


def test_a_refuted_file_is_no_object(ground: RowsGround) -> None:
    put_file(ground)
    ground.settle(MINE, HASH, OID, "It hashes to something else.")
    assert ground.objects() == []
    assert ground.index.files.advertised(MINE, [OID]) == {}
    assert ground.uploads.standing(MINE, [OID])[OID].reason == "It hashes to something else."


def test_an_object_that_came_whole_stays_and_its_file_is_proven_beside_it(ground: RowsGround) -> None:
    with ground.database.write() as connection:
        values = {"oid": OID, "size": 100, "key": "lfs/whole", "kind": "whole", "state": "stored"}
        moment = ground.clock.moment()
        connection.execute(sa.insert(lfs_objects).values(values | {"stored_at": moment}))
        link = {"repo_id": MINE, "oid": OID, "size": 100, "linked_at": moment, "seen_at": moment}
        connection.execute(sa.insert(lfs_links).values(link))
    assert put_file(ground)
    ground.settle(MINE, HASH, OID)
    assert [(row.key, row.kind) for row in ground.objects()] == [("lfs/whole", "whole")]
    assert ground.index.files.advertised(MINE, [OID]) == {OID: HASH}


@pytest.mark.parametrize(("state", "served"), [("live", KEY), ("quarantined", "lfs/whole")])
def test_bytes_that_come_whole_stand_in_for_a_file_that_cannot_be_read(
    ground: RowsGround, state: State, served: str
) -> None:
    put_file(ground)
    ground.settle(MINE, HASH, OID)
    ground.put_state(XORB, state)
    opened = ground.uploads.begin(TWIN, ANN, [Opening(Wanted(OID, 100), "proxy")])
    assert ground.linker.finish(Proven(opened[OID].id, "lfs/whole", OID, 100)) == served
    (row,) = ground.objects()
    assert (row.key, row.kind, row.state) == (served, "xet" if served == KEY else "whole", "stored")


@pytest.mark.parametrize("state", ["damaged", "deleting", "condemned"])
def test_a_file_brings_its_object_back_under_its_own_name(ground: RowsGround, state: str) -> None:
    put_file(ground)
    ground.settle(MINE, HASH, OID)
    with ground.database.write() as connection:
        connection.execute(sa.update(lfs_objects).values(state=state))
    assert put_file(ground, TWIN)
    ground.settle(TWIN, HASH, OID)
    assert [(row.key, row.state) for row in ground.objects()] == [(KEY, "stored")]


def test_an_object_that_was_found_damaged_is_proven_again_by_who_has_it(ground: RowsGround) -> None:
    put_file(ground)
    ground.settle(MINE, HASH, OID)
    with ground.database.write() as connection:
        connection.execute(sa.update(lfs_objects).values(state="damaged"))
    assert put_file(ground)
    ground.settle(MINE, HASH, OID)
    assert [(row.key, row.state) for row in ground.objects()] == [(KEY, "stored")]
    assert bytes_of(ground) == 100


def test_an_object_that_was_unlinked_since_is_proven_again(ground: RowsGround) -> None:
    put_file(ground)
    ground.settle(MINE, HASH, OID)
    with ground.database.write() as connection:
        connection.execute(sa.delete(lfs_links))
    ground.clock.now += 3600
    assert put_file(ground)
    # Upkeep that takes old links away sees that this one is young again.
    with ground.database.read() as connection:
        row = connection.execute(sa.select(xet_links.c.state, xet_links.c.created_at)).one()
    assert (row.state, row.created_at) == ("proven", ground.clock.moment())
    ground.settle(MINE, HASH, OID)
    assert ground.index.files.advertised(MINE, [OID]) == {OID: HASH}


def test_filing_again_says_that_the_object_was_seen(ground: RowsGround) -> None:
    put_file(ground)
    ground.settle(MINE, HASH, OID)
    ground.clock.now += 3600
    put_file(ground)
    with ground.database.read() as connection:
        assert connection.execute(sa.select(lfs_links.c.seen_at)).scalar_one() == ground.clock.moment()


def test_a_quota_counts_each_object_once_and_what_waits_for_its_proof(ground: RowsGround) -> None:
    other = hashlib.sha256(b"other").digest()
    ground.limit(250)
    assert put_file(ground)
    # By other chunks, of the same bytes.
    assert put_file(ground, filed=filing(other))
    with pytest.raises(QuotaExceeded):
        put_file(ground, filed=filing(other, "b" * 64, 200))
    assert put_file(ground, filed=filing(other, "b" * 64, 150))
    assert Quotas(ground.database).usage(1).reserved == 250


def test_the_uploads_of_a_repo_end_with_it(ground: RowsGround) -> None:
    put_file(ground)
    ground.delete_repo(MINE)
    assert ground.uploads.arrived("1" * 32, 30, 5) == []
    assert ground.index.find(MINE, HASH) is None


def test_a_shard_of_many_files_is_one_transaction(ground: RowsGround) -> None:
    xorbs = [hashlib.sha256(b"%d" % number).digest() for number in range(300)]
    for each in xorbs:
        keep(ground, hash=each)
    shard = [filing(each, each.hex(), xorb=each) for each in xorbs]
    assert ground.index.file(leave(ground), shard, SHARD)
    assert not ground.index.file(leave(ground), shard, SHARD)
    with ground.database.read() as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(lfs_uploads)).scalar_one() == 300
