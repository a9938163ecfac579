"""The sweep finds bytes that no row names, on a disk and in a bucket, and touches nothing else."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
import sqlalchemy as sa

from lfs.errors import Unavailable
from lfs.local import LocalStore
from lfs.store import ObjectStore, lfs_key
from registry.db import Database
from registry.git.snapshot import ZERO, pack_key
from registry.git.verdict import Job, PackFacts, Update
from registry.publish import Stale, add_pack
from registry.tables.objects import lfs_objects, lfs_uploads, packs
from tests.registry.gate import MAIN
from tests.registry.upkeep.collecting import NO_GRACE, Collected, acts, collected, oid_of, pointer
from tests.services.s3 import S3Endpoint, make_bucket, moto, open_bucket

KEPT, ORPHAN = b"kept" * 500, b"orphan" * 500
UPLOAD = "ab" * 16


@pytest.fixture(scope="module")
def bucket() -> Iterator[S3Endpoint]:
    with moto() as endpoint:
        make_bucket(endpoint, "shelf")
        yield endpoint


@pytest.fixture(params=["disk", pytest.param("moto", marks=[pytest.mark.s3, pytest.mark.xdist_group("s3")])])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    if request.param == "disk":
        return LocalStore(tmp_path / "objects", fsync=False, min_free=0)
    return open_bucket(request.getfixturevalue("bucket"), "shelf", prefix=uuid4().hex)


@pytest.fixture
def house(sqlite_database: Database, tmp_path: Path, store: ObjectStore) -> Iterator[Collected]:
    made = collected(sqlite_database, tmp_path, store)
    yield made
    made.gate.heavy.close()


@pytest.fixture
def both(database: Database, tmp_path: Path) -> Iterator[Collected]:
    """A house on a disk, with either database."""
    made = collected(database, tmp_path)
    yield made
    made.gate.heavy.close()


def plant(house: Collected) -> list[str]:
    """Put bytes under keys of every kind that no row names."""
    sha = hashlib.sha256(ORPHAN).hexdigest()
    keys = [lfs_key(sha), lfs_key(sha, UPLOAD), f"staging/{UPLOAD}", pack_key(sha)]
    for key in keys:
        house.store.put(key, ORPHAN, len(ORPHAN))
    return sorted(keys)


def swept(house: Collected) -> list[str]:
    return sorted(line.subject for line in house.run() if line.act == "sweep")


def test_planted_orphans_go_after_a_week_and_nothing_else(house: Collected) -> None:
    house.push({"w.bin": KEPT})
    before = house.keys()
    planted = plant(house)
    house.later(days=6)
    assert house.plan() == house.run() == []
    house.later(days=2)
    assert sorted(line.subject for line in house.plan() if line.act == "sweep") == planted
    assert swept(house) == planted
    assert house.keys() == before
    assert house.findings() == []
    with house.database.read() as connection:
        assert set(connection.execute(sa.select(packs.c.state)).scalars()) == {"live"}
        assert connection.execute(sa.select(lfs_objects.c.oid)).scalars().all() == [oid_of(KEPT)]


def test_a_key_that_is_not_ours_is_told_and_left(house: Collected) -> None:
    house.store.put("lfs/readme", b"x", 1)
    house.later(days=8)
    assert acts(house.run()) == [("skip", "key")]
    assert house.keys() == ["lfs/readme"]


def test_bytes_of_uploads_that_go_on_stay(both: Collected) -> None:
    both.graces = NO_GRACE
    proxied, own = both.begin(KEPT), both.begin(ORPHAN, "multipart")
    staged = both.begin(b"staged", "staging")
    keys = [both.put(proxied, KEPT), lfs_key(own.oid, own.id), f"staging/{staged.id}"]
    both.store.put(keys[1], ORPHAN, len(ORPHAN))
    both.store.put(keys[2], b"staged", 6)
    both.uploads.arrive(own.id, keys[1])
    both.uploads.arrive(staged.id, keys[2])
    both.run()
    assert both.keys() == sorted(keys)
    both.finish(proxied, keys[0])
    both.finish(own, keys[1])
    assert both.findings() == []


@pytest.mark.parametrize("mode", ["proxy", "direct", "staging", "multipart", "tus"])
def test_an_upload_that_expired_is_closed_and_leaves_nothing(house: Collected, mode: str) -> None:
    upload = house.begin(KEPT, mode)
    own = lfs_key(upload.oid, upload.id)
    if mode in ("multipart", "tus"):
        parts = house.store.parts(own, upload.part_size)
        house.uploads.attach({upload.id: parts.begin()})
        parts.put(1, KEPT, len(KEPT))
    else:
        house.store.put(own if mode == "direct" else f"staging/{upload.id}", KEPT, len(KEPT))
    house.later(days=7.9)
    closed = mode != "tus"
    assert (("close", "upload") in acts(house.plan())) == closed
    house.later(days=0.2)
    house.run()
    assert house.keys() == []
    assert house.store.sweep(-3600) == 0
    with house.database.read() as connection:
        assert connection.execute(sa.select(lfs_uploads.c.state)).scalar_one() == "failed"
    house.later(days=30)
    assert acts(house.plan()) == acts(house.run()) == [("forget", "upload")]


def test_an_expired_upload_that_somebody_works_on_stays_open(both: Collected) -> None:
    upload = both.begin(KEPT, "tus")
    both.later(days=9)
    with both.database.write() as connection:
        leased = sa.update(lfs_uploads).values(lease="aa" * 16, lease_until=both.moment + timedelta(seconds=60))
        connection.execute(leased)
    assert both.run() == []
    assert upload.state == "open"


def test_a_listing_that_is_out_of_date_costs_nothing(both: Collected) -> None:
    """Everything that is listed as an orphan is taken up before the collection comes to it."""
    both.graces = NO_GRACE
    sha = both.gate.commit({"w.bin": b"plain"})
    pack = both.gate.pack([sha])
    kept = pack.read_bytes()
    both.store.put(lfs_key(oid_of(KEPT)), KEPT, len(KEPT))
    both.store.put(pack_key(hashlib.sha256(kept).hexdigest()), kept, len(kept))

    def use() -> None:
        both.upload(KEPT)
        assert both.gate.push((MAIN, ZERO, sha), pack=pack).error is None

    gc = both.gc(store=Listing(both.store, use))
    lines = list(gc._orphans.steps(both.clock()))
    assert lines == []
    assert both.findings() == []


class Listing(LocalStore):
    """A shelf where something happens between listing and looking."""

    def __init__(self, store: ObjectStore, then: Callable[[], None]) -> None:
        self.__dict__ = store.__dict__ | {"_then": then, "_keys": list(store.walk())}

    def walk(self, prefix: str = "", after: str = "") -> Iterator[str]:
        """List what was there; then it happens."""
        keys = [key for key in self._keys if key.startswith(prefix)]
        if self._then is not None:
            then, self._then = self._then, None
            then()
        yield from keys


@pytest.mark.parametrize("what", ["object", "pack", "orphan", "orphan pack"])
def test_a_delete_that_fails_is_done_by_the_next_run(both: Collected, what: str) -> None:
    both.graces = NO_GRACE
    if what.startswith("orphan"):
        sha = hashlib.sha256(ORPHAN).hexdigest()
        both.store.put(pack_key(sha) if "pack" in what else lfs_key(sha), ORPHAN, len(ORPHAN))
    elif what == "object":
        both.upload(ORPHAN)
        both.run()
        both.run()
    else:
        sha = both.gate.commit({"a": b"1"})
        both.gate.publisher.keep(kept_pack(both, sha))

    class Failing(LocalStore):
        def delete(self, key: str) -> None:
            raise Unavailable("down")

    broken = Failing.__new__(Failing)
    broken.__dict__ = both.store.__dict__
    gc = both.gc(store=broken)
    moment = both.clock()
    steps = [*gc._orphans.steps(moment), *gc._trash.delete(moment), *gc._packs.delete(moment)]
    with pytest.raises(Unavailable):
        steps[0].do(gc.runs.begin(moment, {}))
    assert both.keys() != []
    assert both.findings() == []
    both.run()
    assert both.keys() == []
    assert both.states() == {}


def kept_pack(house: Collected, sha: str) -> PackFacts:
    """Check a pack as a push does, and give what is known of it."""
    path = house.gate.pack([sha])
    job = Job(str(path), (), (Update(MAIN, ZERO, sha),))
    verdict = house.gate._check(house.gate.repositories.snapshot(1), job)
    assert verdict.pack is not None
    return verdict.pack


def test_a_push_whose_pack_is_being_deleted_is_told_to_look_again(both: Collected) -> None:
    sha = both.gate.commit({"a": b"1"})
    facts = kept_pack(both, sha)
    both.gate.publisher.keep(facts)
    with both.database.write() as connection:
        connection.execute(sa.update(packs).values(state="deleting", condemned_at=both.clock()))
    with pytest.raises(Stale):
        both.gate.publisher.keep(facts)
    assert "changed while" in str(both.gate.push((MAIN, ZERO, sha)).error)
    both.graces = NO_GRACE
    both.run()
    assert both.gate.push((MAIN, ZERO, sha)).error is None
    assert both.findings() == []


def test_a_pack_kept_before_a_collection_is_not_the_one_kept_after_it(both: Collected) -> None:
    """Another push of the same pack makes a new row, and may die before it has put the bytes."""
    both.graces = NO_GRACE
    facts = kept_pack(both, both.gate.commit({"a": b"1"}))
    files = {Path(path): Path(path).read_bytes() for path in (facts.path, facts.idx.path, facts.intro.path)}
    since = both.gate.publisher.keep(facts)
    both.run()
    for path, data in files.items():
        path.write_bytes(data)
    assert both.gate.publisher.keep(facts) != since
    with pytest.raises(Stale), both.database.write() as connection:
        add_pack(connection, 1, facts, since, 1, both.clock())


def test_a_pack_that_is_gone_between_bytes_and_transaction_is_put_again(both: Collected) -> None:
    """With no grace at all the collection takes a pack out from under a push, which then sends its bytes again."""
    both.graces = replace(NO_GRACE, link=timedelta(days=1))
    sha = both.gate.commit({"a": b"1", "w.bin": pointer(KEPT)})
    both.upload(KEPT)
    keep = both.gate.publisher.keep
    kept: list[bytes] = []

    def slow(facts: PackFacts) -> datetime:
        since = keep(facts)
        if not kept:
            kept.append(both.store.open(pack_key(facts.id)).read_all())
            both.run()
            assert both.keys("git/") == []
            # A bucket would have left the file where it was; this shelf adopted it.
            Path(facts.path).write_bytes(kept[0])
        return since

    both.gate.publisher.keep = slow  # type: ignore[method-assign]
    assert both.gate.push((MAIN, ZERO, sha)).error is None
    assert len(both.gate.checked) == 2
    assert both.findings() == []
    assert os.listdir(both.gate.folder / "quarantine") == []
