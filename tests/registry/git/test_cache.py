"""Packs on local disk: checked, shared, bounded, and never taken from under a reader."""

from __future__ import annotations

import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lfs.local import LocalStore
from registry.errors import Damaged
from registry.git.cache import PackCache
from registry.git.snapshot import PackRow, pack_key


@dataclass
class Bucket:
    """A store without paths, as a bucket is; counts what is read from it."""

    held: dict[str, bytes] = field(default_factory=dict)
    opened: list[str] = field(default_factory=list)
    gate: threading.Event | None = None

    def stat(self, key: str) -> Any:
        return SimpleNamespace(path=None, size=len(self.held[key]))

    def open(self, key: str) -> Any:
        self.opened.append(key)
        if self.gate is not None:
            assert self.gate.wait(10)
        data = self.held[key]
        return nullcontext([data[:3], data[3:]])

    def row(self, seed: bytes, size: int = 100) -> PackRow:
        oids = []
        for part in (b"pack", b"idx", b"intro"):
            data = (seed + part).ljust(size, b".")
            oids.append(hashlib.sha256(data).hexdigest())
            self.held[pack_key(oids[-1])] = data
        return PackRow(oids[0], size, 1, 1, oids[1], size, oids[2], size)


def test_a_shelf_on_disk_hands_out_its_own_files(tmp_path: Path) -> None:
    bucket, store = Bucket(), LocalStore(tmp_path / "objects", fsync=False, min_free=0)
    row = bucket.row(b"a")
    for key, data in bucket.held.items():
        store.put(key, data, len(data))
    with PackCache(store, tmp_path / "cache", 10).lease(row) as lease:
        assert lease.pack.read_bytes() == bucket.held[pack_key(row.id)]
        assert tmp_path / "objects" in lease.intro.parents
    assert not (tmp_path / "cache").exists()


def test_a_download_is_shared_by_all_who_ask_at_once(tmp_path: Path) -> None:
    bucket = Bucket(gate=threading.Event())
    row = bucket.row(b"a")
    cache = PackCache(bucket, tmp_path, 10_000)
    with ThreadPoolExecutor(8) as pool:
        coming = [pool.submit(cache.lease, row) for _ in range(8)]
        bucket.gate.set()
        assert {made.result().pack.read_bytes() for made in coming} == {bucket.held[pack_key(row.id)]}
    assert sorted(bucket.opened) == sorted(bucket.held)


def test_bytes_that_are_not_what_their_name_says_never_get_a_name(tmp_path: Path) -> None:
    bucket = Bucket()
    row = bucket.row(b"a")
    bucket.held[pack_key(row.idx_oid)] = b"x" * 100
    cache = PackCache(bucket, tmp_path, 10_000)
    for _ in range(2):
        with pytest.raises(Damaged):
            cache.lease(row)
    assert [path.name for path in tmp_path.iterdir()] == [row.id]


def test_the_longest_unused_leave_first_and_leased_ones_stay(tmp_path: Path) -> None:
    bucket = Bucket()
    rows = [bucket.row(seed) for seed in (b"a", b"b", b"c")]
    cache = PackCache(bucket, tmp_path, 600)
    first = cache.lease(rows[0])
    cache.lease(rows[1]).release()
    cache.lease(rows[2]).release()
    assert first.pack.exists()
    assert not (tmp_path / rows[1].id).exists()
    assert (tmp_path / rows[2].id).exists()
    first.release()
    first.release()
    cache.lease(rows[1]).release()
    assert not first.pack.exists()
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 600


def test_copies_of_an_earlier_run_are_used_and_its_leftovers_removed(tmp_path: Path) -> None:
    bucket = Bucket()
    row = bucket.row(b"a")
    PackCache(bucket, tmp_path, 10_000).lease(row).release()
    (tmp_path / f"{row.id}.0.part").write_bytes(b"half")
    again = PackCache(bucket, tmp_path, 10_000)
    assert not (tmp_path / f"{row.id}.0.part").exists()
    again.lease(row).release()
    assert len(bucket.opened) == 3
