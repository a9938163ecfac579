"""What rots is found wherever it lies; what follows from sound bytes is made again; the rest is marked, not served."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from lfs import soundness
from lfs.errors import Missing, NoSpace, Unavailable
from lfs.local import LocalStore
from lfs.store import Reader, Source, Span, Stat, Verified, lfs_key
from registry.access import Actor
from registry.db import Database, now
from registry.git.snapshot import ZERO
from registry.git.verdict import Update
from registry.publish import Origin
from registry.tables.objects import lfs_links, lfs_objects, packs
from registry.tables.repos import repos
from registry.upkeep.faults import BadObject
from registry.upkeep.repair_objects import ObjectRepair
from tests.contracts.memory_store import MemoryStore
from tests.registry import people
from tests.registry.gate import MAIN, Gate
from tests.registry.upkeep.broken import Broken, path_of


@pytest.fixture
def broken(request: pytest.FixtureRequest, sqlite_database: Database, tmp_path: Path) -> Iterator[Broken]:
    """A house on a disk; tests that ask for it run also on a shelf that has no paths, as a bucket has none."""
    shelf = MemoryStore() if getattr(request, "param", "disk") == "memory" else None
    gate = Gate(sqlite_database, tmp_path, shelf=shelf)
    made = Broken(gate, gate.store)
    made.fill()
    yield made
    gate.heavy.close()


@pytest.fixture
def either(database: Database, tmp_path: Path) -> Iterator[Broken]:
    """A house on a disk, with its rows in either kind of database."""
    made = Broken(gate := Gate(database, tmp_path), gate.store)
    made.fill()
    yield made
    gate.heavy.close()


both = pytest.mark.parametrize("broken", ["disk", "memory"], indirect=True)


def change(broken: Broken, statement: sa.Update | sa.Delete) -> None:
    with broken.gate.database.write() as connection:
        if broken.gate.database.sqlite:
            connection.exec_driver_sql("PRAGMA defer_foreign_keys=ON")
        connection.execute(statement)


def test_a_house_in_order_is_left_alone(broken: Broken) -> None:
    assert broken.repaired() == []
    assert broken.acts() == []


@both
def test_one_flipped_bit_is_found_in_every_object(broken: Broken) -> None:
    keys = [*broken.pack_keys(), *(row.key for row in broken.objects())]
    assert len(keys) == 8
    for seed in range(3):
        before = {key: broken.read(key) for key in keys}
        for key in keys:
            broken.rot(key, seed=seed)
        told = {found.finding.subject for found in broken.found()}
        assert {key.rsplit("/", 1)[1] for key in keys} <= told
        for key, body in before.items():
            broken.overwrite(key, body)
    assert broken.found() == []


@both
@pytest.mark.parametrize(
    ("how", "nouns"), [("rot", ("idx_oid",)), ("lost", ("intro_oid",)), ("rot", ("idx_oid", "intro_oid"))]
)
def test_indexes_and_sidecars_are_made_again(broken: Broken, how: str, nouns: tuple[str, ...]) -> None:
    keys = [f"git/{oid[:2]}/{oid[2:4]}/{oid}" for row in broken.rows() for oid in (getattr(row, one) for one in nouns)]
    before = {key: broken.read(key) for key in keys}
    for key in keys:
        broken.rot(key) if how == "rot" else broken.store.delete(key)
    done = broken.repaired()
    assert len([found for found, _ in done if found.finding.check == "packs"]) >= len(keys)
    assert all(mended.whole for _, mended in done)
    assert {key: broken.read(key) for key in keys} == before
    assert broken.found() == []
    assert "pack.restored" in broken.acts()


@both
def test_a_lost_pack_comes_back_from_a_copy_of_this_machine(broken: Broken) -> None:
    row = broken.rows()[1]
    key = f"git/{row.id[:2]}/{row.id[2:4]}/{row.id}"
    before = broken.read(key)
    (broken.gate.folder / "cache").mkdir(exist_ok=True)
    (broken.gate.folder / "cache" / row.id).write_bytes(before)
    broken.rot(key)
    assert all(mended.whole for _, mended in broken.repaired())
    assert broken.read(key) == before
    assert (broken.gate.folder / "cache" / row.id).read_bytes() == before
    assert broken.found() == []


def test_a_pack_that_nothing_replaces_is_left_and_its_repos_are_named(broken: Broken) -> None:
    row = broken.rows()[1]
    key = f"git/{row.id[:2]}/{row.id[2:4]}/{row.id}"
    for copy in (broken.gate.folder / "cache").glob(row.id):
        copy.unlink()
    broken.rot(key)
    rotten = broken.read(key)
    told = {found.finding.subject: mended for found, mended in broken.repaired()}
    assert not told[row.id].whole
    assert "ann/one" in told[row.id].text
    assert key in told[row.id].text
    assert broken.read(key) == rotten


def test_a_copy_that_rotted_too_replaces_nothing(broken: Broken) -> None:
    row = broken.rows()[1]
    key = f"git/{row.id[:2]}/{row.id[2:4]}/{row.id}"
    broken.rot(key)
    (broken.gate.folder / "cache").mkdir(exist_ok=True)
    (broken.gate.folder / "cache" / row.id).write_bytes(broken.read(key))
    told = {found.finding.subject: mended for found, mended in broken.repaired()}
    assert not told[row.id].whole


def test_a_row_that_contradicts_its_pack_is_corrected(either: Broken) -> None:
    first, second = either.rows()
    wrong = {"idx_oid": second.idx_oid, "idx_bytes": second.idx_bytes, "objects": 1, "git_sha1": "0" * 40}
    change(either, sa.update(packs).where(packs.c.id == first.id).values(wrong))
    assert either.found()
    either.repaired()
    assert either.found() == []
    assert either.rows()[0] == first


def test_a_pack_in_use_is_kept_from_deletion(either: Broken) -> None:
    change(either, sa.update(packs).values(state="condemned"))
    assert [mended.whole for _, mended in either.repaired()] == [True] * 2
    assert either.found() == []


@both
@pytest.mark.parametrize("how", ["rot", "lost", "cut"])
def test_an_object_without_its_bytes_is_marked_and_opens_nothing(broken: Broken, how: str) -> None:
    row = broken.objects()[0]
    broken.rot(row.key) if how == "rot" else broken.store.delete(row.key)
    if how == "cut":
        broken.store.put(row.key, b"short", 5)
    ((found, mended),) = broken.repaired()
    assert (found.finding.subject, mended.whole) == (row.oid, False)
    assert "push" in mended.text
    assert broken.objects()[0].state == "damaged"
    assert broken.gate.links.find(1, [row.oid]) == {}
    assert broken.acts() == ["object.damaged"]
    ((found, mended),) = broken.repaired()
    assert not mended.whole
    assert broken.acts() == ["object.damaged"]


def test_bad_bytes_on_a_disk_lose_the_name_by_which_a_sidecar_links_them(broken: Broken) -> None:
    row = broken.objects()[0]
    broken.rot(row.key)
    broken.repaired()
    with pytest.raises(Missing):
        broken.store.stat(row.key)


def test_a_marked_object_whose_bytes_are_sound_is_served_again(broken: Broken) -> None:
    change(broken, sa.update(lfs_objects).values(state="damaged"))
    assert all(mended.whole for _, mended in broken.repaired(read_data=False))
    assert {row.state for row in broken.objects()} == {"stored"}
    assert broken.found() == []


@both
def test_an_object_is_healed_from_another_copy_of_it(broken: Broken) -> None:
    row = broken.objects()[0]
    body = broken.read(row.key)
    left = lfs_key(row.oid, "ab" * 16)
    broken.store.put(left, body, len(body), row.oid)
    broken.rot(row.key)
    ((_, mended),) = broken.repaired()
    assert mended.whole
    # The copy belongs to the upload that left it, which may delete it at any time.
    broken.store.delete(left)
    held = broken.gate.links.object_key(1, row.oid)
    assert held is not None
    assert broken.read(held.key) == body
    assert broken.found() == []


def test_an_object_that_waits_for_deletion_and_rotted_is_not_asked_back(broken: Broken) -> None:
    row = broken.objects()[0]
    change(broken, sa.delete(lfs_links).where(lfs_links.c.oid == row.oid))
    change(broken, sa.update(lfs_objects).where(lfs_objects.c.oid == row.oid).values(state="condemned"))
    broken.rot(row.key)
    broken.repaired()
    assert broken.objects()[0].state == "damaged"


def test_a_linked_object_is_kept_from_deletion(broken: Broken) -> None:
    change(broken, sa.update(lfs_objects).values(state="condemned"))
    assert all(mended.whole for _, mended in broken.repaired())
    assert {row.state for row in broken.objects()} == {"stored"}


def test_a_wrong_size_in_a_row_is_corrected_by_proven_bytes(either: Broken) -> None:
    row = either.objects()[0]
    change(either, sa.update(lfs_objects).where(lfs_objects.c.oid == row.oid).values(size=5))
    assert all(mended.whole for _, mended in either.repaired())
    assert either.objects()[0].size == row.size
    assert either.found() == []


def test_links_of_another_size_and_sums_are_counted_again(either: Broken) -> None:
    change(either, sa.update(lfs_links).values(size=7))
    change(either, sa.update(repos).values(git_bytes=1, lfs_bytes=2))
    # The pointers were looked at before the links were mended; the next run finds nothing.
    either.repaired()
    assert either.found() == []
    assert {"link.mended", "repo.counted"} >= set(either.acts()) != set()


@pytest.mark.parametrize("has_bytes", [True, False])
def test_a_link_to_no_row_gets_its_row_again_or_goes(broken: Broken, has_bytes: bool) -> None:
    row = broken.objects()[0]
    # The database itself forbids it, unless somebody edits the file with other tools.
    with sqlite3.connect(str(broken.gate.database.url.database)) as other:
        other.execute("DELETE FROM lfs_objects WHERE oid = ?", (row.oid,))
    other.close()
    if not has_bytes:
        broken.store.delete(row.key)
    assert all(mended.whole for _, mended in broken.repaired())
    if has_bytes:
        assert broken.found() == []
    else:
        assert [found.finding.kind for found in broken.found()] == ["pointer"] * len(broken.found()) != []


def test_a_row_that_changed_since_it_was_checked_is_left_alone(broken: Broken) -> None:
    row = broken.objects()[0]
    fault = BadObject(row.oid, row.size, row.key, "stored")
    body = broken.read(row.key)
    healed = lfs_key(row.oid, "cd" * 16)
    broken.store.put(healed, body, len(body), row.oid)
    change(broken, sa.update(lfs_objects).where(lfs_objects.c.oid == row.oid).values(key=healed))
    broken.rot(row.key)
    assert broken.repair().mend(fault).whole
    after = broken.objects()[0]
    assert (after.state, after.key) == ("stored", healed)
    assert broken.acts() == []


class _Meanwhile(LocalStore):
    """A disk to which somebody uploads while copies of an object are looked for."""

    def __init__(self, root: Path, upload: Callable[[], object]) -> None:
        super().__init__(root, min_free=0)
        self._upload = upload

    def walk(self, prefix: str = "", after: str = "") -> Iterator[str]:
        self._upload()
        return super().walk(prefix + "none", after)


def test_an_upload_that_heals_an_object_while_it_is_judged_is_not_undone(broken: Broken) -> None:
    """Bytes that had just been put and acknowledged were set aside as the bad ones."""
    row = broken.objects()[0]
    body, root = broken.read(row.key), path_of(broken.store, row.key).parents[3]
    broken.store.delete(row.key)

    def upload() -> None:
        broken.store.put(row.key, body, len(body), row.oid)
        broken.gate.link(row.oid, len(body))

    repair = ObjectRepair(broken.gate.database, _Meanwhile(root, upload))
    assert repair.mend(BadObject(row.oid, row.size, row.key, "stored")).whole
    held = broken.gate.links.object_key(1, row.oid)
    assert held is not None
    assert broken.read(held.key) == body
    assert broken.found() == []


class _Deaf(MemoryStore):
    def stat(self, key: str) -> Stat:
        return Stat(7, "", now())

    def open(self, key: str, span: Span | None = None) -> Reader:
        raise Unavailable("The store sleeps.")


def test_a_store_that_does_not_answer_is_no_damage(broken: Broken) -> None:
    row = broken.objects()[0]
    with pytest.raises(Unavailable):
        ObjectRepair(broken.gate.database, _Deaf()).mend(BadObject(row.oid, row.size, row.key, "stored"))
    assert broken.objects()[0].state == "stored"


def test_random_damage_never_breaks_the_check_itself(broken: Broken) -> None:
    keys = broken.pack_keys()
    for seed in range(4):
        chance = random.Random(seed)
        before = {key: broken.read(key) for key in keys}
        for key in chance.sample(keys, 2):
            broken.overwrite(
                key, chance.randbytes(len(before[key])) if seed % 2 else before[key][:: chance.choice((1, -1))]
            )
        assert broken.found(read_data=False) is not None
        broken.repaired()
        for key, body in before.items():
            broken.store.delete(key)
            broken.store.put(key, body, len(body))


def test_bytes_are_set_aside_where_the_next_sweep_finds_them(broken: Broken) -> None:
    row = broken.objects()[0]
    broken.rot(row.key)
    rotten = path_of(broken.store, row.key).read_bytes()
    broken.repaired()
    assert broken.read(lfs_key(row.oid, soundness.ASIDE)) == rotten


@both
def test_a_pack_that_is_pushed_again_takes_the_place_of_its_rotten_bytes(broken: Broken) -> None:
    gate, row = broken.gate, broken.rows()[0]
    keys = [f"git/{oid[:2]}/{oid[2:4]}/{oid}" for oid in (row.id, row.idx_oid, row.intro_oid)]
    before = {key: broken.read(key) for key in keys}
    for key in keys:
        broken.rot(key)
    people.add_repo(gate.database, "ann", "two")
    first = gate.git("rev-list", "--max-parents=0", gate.targets()[MAIN])
    origin = Origin(Actor(1, "ann", 1, None, "write"))
    for held in broken.objects():
        gate.link(str(held.oid), int(str(held.size)), 2)
    outcome = gate.receiver.accept(2, origin, [Update(MAIN, ZERO, first)], gate.pack([first]))
    assert outcome.error is None
    assert not outcome.refusals
    assert {key: broken.read(key) for key in keys} == before


class _Full(MemoryStore):
    """Has room for nothing."""

    def put(self, key: str, source: Source, size: int, sha256: str | None = None) -> Verified:
        raise NoSpace("Full.")


@pytest.mark.parametrize("broken", ["memory"], indirect=True)
def test_a_repair_that_ends_in_the_middle_is_finished_by_the_next(broken: Broken) -> None:
    assert isinstance(broken.store, MemoryStore)
    row, before = broken.rows()[0], dict(broken.store.objects)
    broken.rot(f"git/{row.idx_oid[:2]}/{row.idx_oid[2:4]}/{row.idx_oid}")
    full = _Full()
    full.objects = broken.store.objects
    ((_, mended), *_) = Broken(broken.gate, full).repaired()
    assert not mended.whole
    assert all(mended.whole for _, mended in broken.repaired())
    assert broken.store.objects == before
