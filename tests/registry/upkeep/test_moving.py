"""The copy from one shelf to the other: every byte proven, nothing bad carried over, killed and gone on with."""

from __future__ import annotations

import hashlib
import itertools
import json
import random
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa

from lfs import soundness
from lfs.errors import Missing, NoSpace, Unavailable
from lfs.local import LocalStore
from lfs.moving import Moving
from lfs.store import Source, Verified, lfs_key, shard_key, staging_key, xorb_keys
from lfs.xet.index import Granted
from registry.cli import main
from registry.db import Database, now
from registry.git.snapshot import pack_key
from registry.tables.objects import lfs_objects
from registry.upkeep.moving import Copying, Totals, missing, named
from registry.upkeep.survey import survey
from tests.contracts.memory_store import MemoryStore
from tests.lfs.xet.xorbs import random_xorb
from tests.registry.upkeep.chunking import chunking, whole


def filled(keys: int = 40) -> MemoryStore:
    """A shelf with objects, uploads' own keys, packs and other keys."""
    store, chance = MemoryStore(), random.Random(7)
    for at in range(keys):
        body = chance.randbytes(chance.choice((0, 1, 5000)))
        oid = hashlib.sha256(body + b"%d" % at).hexdigest()
        body += b"%d" % at
        xorb = xorb_keys(hashlib.sha256(b"xorb %d" % at).hexdigest(), "ab" * 8)[at % 2]
        key = (lfs_key(oid), lfs_key(oid, "ab" * 16), pack_key(oid), f"derived/{at}/card", shard_key(oid), xorb)[at % 6]
        store.put(key, body, len(body))
    return store


def copying(to: MemoryStore, source: MemoryStore, *, jobs: int = 4, verify: bool = False) -> Copying:
    return Copying(to=to, source=source, jobs=jobs, verify=verify, pause=0.001)


def test_every_key_arrives_and_a_second_run_has_nothing_to_do() -> None:
    to, source = MemoryStore(), filled()
    run = copying(to, source)
    assert list(run.run()) == []
    assert to.objects == source.objects
    assert (run.totals.copied, run.totals.bytes) == (40, sum(map(len, source.objects.values())))
    again = copying(to, source)
    assert list(again.run()) == []
    assert again.totals == Totals(there=40)


@pytest.mark.parametrize("fault", ["flipped", "cut", "empty"])
def test_bad_bytes_stay_where_they_are_and_are_told(fault: str) -> None:
    to, source = MemoryStore(), filled()
    bad = [key for key in source.objects if named(key)][::5]
    for key in bad:
        body = source.objects[key]
        source.objects[key] = {"flipped": bytes([body[0] ^ 1]) + body[1:], "cut": body[:-1], "empty": b""}[fault]
    run = copying(to, source)
    assert sorted(finding.subject for finding in run.run()) == sorted(bad)
    assert run.totals.bad == len(bad)
    assert to.objects == {key: body for key, body in source.objects.items() if key not in bad}
    assert not to.uploads


def test_damage_on_the_new_shelf_is_found_by_reading_and_replaced() -> None:
    to, source = MemoryStore(), filled()
    list(copying(to, source).run())
    rotten = [key for key in to.objects if named(key)][:5]
    for key in rotten:
        to.objects[key] = to.objects[key][:-1] + b"!"
    run = copying(to, source)
    assert list(run.run()) == []
    assert to.objects != source.objects
    assert list(copying(to, source, verify=True).run()) == []
    assert to.objects == source.objects
    to.objects[rotten[0]] = b"short"
    assert list(copying(to, source).run()) == []
    assert to.objects == source.objects


def test_what_differs_and_has_no_hash_in_its_name_is_told() -> None:
    to, source = MemoryStore(), filled()
    to.objects["derived/3/card"] = b"other"
    (finding,) = copying(to, source).run()
    assert finding.subject == "derived/3/card"
    assert to.objects["derived/3/card"] == b"other"


def test_bytes_that_a_repair_set_aside_stay_behind() -> None:
    to, source = MemoryStore(), filled(1)
    source.objects[lfs_key("ab" * 32, soundness.ASIDE)] = b"bad"
    assert list(copying(to, source).run()) == []
    assert len(to.objects) == 1


class _Late(MemoryStore):
    """Gets another key whenever it is listed, as from a server that was not yet told."""

    late: Iterator[int] = iter(())

    def walk(self, prefix: str = "", after: str = "") -> Iterator[str]:
        yield from super().walk(prefix, after)
        for at in itertools.islice(self.late, 1):
            self.put(f"derived/0{at}/late", b"x", 1)


def test_keys_that_come_during_the_copy_are_copied_too() -> None:
    to, source = MemoryStore(), _Late()
    source.objects.update(filled().objects)
    source.late = iter(range(3))
    assert list(copying(to, source).run()) == []
    assert len(to.objects) == 43


class _Shaky(MemoryStore):
    """Does not answer every third time."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = itertools.count()

    def put(self, key: str, source: Source, size: int, sha256: str | None = None) -> Verified:
        if next(self.asked) % 3 == 0:
            raise Unavailable("Not now.")
        return super().put(key, source, size, sha256)


def test_a_shelf_that_fails_now_and_then_is_asked_again() -> None:
    to, source = _Shaky(), filled()
    assert list(copying(to, source, jobs=1).run()) == []
    assert to.objects == source.objects


@pytest.mark.parametrize("error", [Unavailable, NoSpace])
def test_a_shelf_that_fails_for_good_ends_the_copy(error: type[Exception]) -> None:
    class Full(MemoryStore):
        def put(self, key: str, source: Source, size: int, sha256: str | None = None) -> Verified:
            if len(self.objects) > 5:
                raise error("No more.")
            return super().put(key, source, size, sha256)

    to, source = Full(), filled()
    with pytest.raises(error):
        list(copying(to, source).run())
    assert to.objects.items() <= source.objects.items()


def test_a_copy_that_is_left_in_the_middle_leaves_whole_keys_and_goes_on(tmp_path: Path) -> None:
    source, to = filled(), LocalStore(tmp_path / "new", min_free=0, fsync=False)
    source.objects[next(iter(source.objects))] = b"bad"

    def told(totals: Totals) -> None:
        if totals.copied > 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(Copying(to=to, source=source, jobs=3, tell=told).run())
    there = list(to.walk())
    assert 10 < len(there) < 39
    for key in there:
        with to.open(key) as reader:
            assert reader.read_all() == source.objects[key]
    assert len(list(Copying(to=to, source=source).run())) == 1
    assert len(list(to.walk())) == 39


class _Vanishing(MemoryStore):
    """A key is deleted between the first look at it and its bytes."""

    def open(self, key: str, *more: object) -> object:  # type: ignore[override]
        self.objects.pop(key, None)
        raise Missing("gone")


def test_a_key_that_is_deleted_meanwhile_is_no_finding() -> None:
    to, source = MemoryStore(), _Vanishing()
    source.objects.update(filled().objects)
    run = copying(to, source)
    assert list(run.run()) == []
    assert to.objects == {}


@pytest.mark.parametrize(("to", "source"), [("", "abc"), ("abc", ""), ("b", "abc"), ("ac", "abd"), ("abc", "abc")])
def test_what_is_missing_is_found_by_listing_both(to: str, source: str) -> None:
    stores = [MemoryStore(), MemoryStore()]
    for store, keys in zip(stores, (to, source), strict=True):
        store.objects.update(dict.fromkeys(keys, b""))
    assert list(missing(*stores)) == sorted(set(source) - set(to))


def keep(database: Database, key: str, state: str) -> None:
    row: Mapping[str, object] = {"oid": named(key), "size": 1, "key": key, "state": state, "stored_at": now()}
    with database.write() as connection:
        connection.execute(sa.insert(lfs_objects).values(row))


def test_the_old_shelf_is_needed_while_a_row_names_what_only_it_has(database: Database) -> None:
    to, source = MemoryStore(), filled(8)
    assert survey(database, to=to, source=source).done
    stored, damaged = (key for key in sorted(source.objects) if key.startswith("lfs/") and "." not in key)
    keep(database, stored, "stored")
    keep(database, damaged, "damaged")
    found = survey(database, to=to, source=source)
    assert (found.done, found.needed.keys, found.spare.keys) == (False, 1, 7)
    assert {name: share.keys for name, share in found.source.items()} == {"lfs": 4, "git": 1, "derived": 1, "xet": 2}
    list(copying(to, source).run())
    after = survey(database, to=to, source=source)
    assert after.done
    assert after.to == after.source


def settings(folder: Path, monkeypatch: pytest.MonkeyPatch, more: Iterable[tuple[str, str]]) -> None:
    for name, value in {"DATA": str(folder), "MIN_FREE": "0", **dict(more)}.items():
        monkeypatch.setenv(f"WEIGHTROOM_{name}", value)


def test_the_commands_copy_and_say_when_the_old_storage_may_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    old = LocalStore(tmp_path / "objects", min_free=0)
    body = b"weights"
    key = lfs_key(hashlib.sha256(body).hexdigest())
    old.put(key, body, len(body))
    settings(tmp_path, monkeypatch, [])
    assert main(["storage", "copy"]) == 2
    assert "STORAGE_FROM" in capsys.readouterr().err
    assert main(["storage", "status"]) == 0
    assert "No bytes move" in capsys.readouterr().out

    new = f"file:{tmp_path / 'new'}"
    settings(tmp_path, monkeypatch, [("STORAGE", new), ("STORAGE_FROM", f"file:{tmp_path / 'objects'}")])
    with closing(_Rows(tmp_path)) as rows:
        keep(rows.database, key, "stored")
    assert main(["storage", "status", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["done"], told["needed"]) == (False, {"keys": 1, "bytes": 7})
    assert main(["storage", "copy", "--verify", "--jobs", "2", "--json"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out) == {"copied": 1, "bytes": 7, "there": 0, "bad": 0}
    assert "1 keys with 7 B copied" in said.err
    assert main(["storage", "status"]) == 0
    assert "can be unset" in capsys.readouterr().out

    other = lfs_key("ab" * 32)
    old.put(other, b"bad", 3)
    assert main(["storage", "copy"]) == 1
    assert other in capsys.readouterr().out


class _Rows:
    def __init__(self, folder: Path) -> None:
        self.database = Database(f"sqlite:///{folder / 'registry.db'}")

    def close(self) -> None:
        self.database.dispose()


def test_files_that_came_by_xet_move_with_their_xorbs(database: Database, tmp_path: Path) -> None:
    """Filed before the move, read during it, collected meanwhile, and read from the new shelf alone."""
    old, new = random_xorb(1, chunks=3, size=2000), random_xorb(2, chunks=3, size=2000)
    to, source = MemoryStore(), MemoryStore()
    house = chunking(database, tmp_path, source)
    with closing(house.gate.heavy):
        made = house.bring(old)
        house.commit(made)
        (row,) = house.index.located([old.hash]).values()
        source.put(shard_key("ab" * 32), b"shard", 5)
        expires = int(house.clock().timestamp()) + 3600
        house.index.grant(house.leave(), Granted("1" * 32, house.domain(), new.hash, staging_key("1" * 32), 4, expires))
        source.put(staging_key("1" * 32), b"body", 4)
        house.standing_on(Moving(to=to, source=source))
        assert house.read(made) == made.bytes
        both = whole(old, new)
        house.take(new)
        assert house.file(both)
        house.prove()
        found = survey(database, to=to, source=source)
        packs = sum(key.startswith("git/") for key in source.objects)
        assert (found.needed.keys, found.spare.keys) == (packs + 3, 1)
        assert found.source["xet"].keys == 3
        assert found.to["xet"].keys == 2
        house.run()
        findings = list(copying(to, source).run())
        # What is no shard under a shard's name stays behind; nobody needs it.
        assert [finding.subject for finding in findings] == [shard_key("ab" * 32)]
        assert survey(database, to=to, source=source).done
        house.standing_on(to)
        assert to.stat(row.key).size == row.size
        assert (house.read(made), house.read(both)) == (made.bytes, both.bytes)
        assert house.findings() == []
