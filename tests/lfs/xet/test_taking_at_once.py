"""Many xorbs, or one many times, come in at the same time: each is taken once, and memory stays where it was."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lfs.heavy import Heavy
from lfs.local import LocalStore
from lfs.xet import hashes
from lfs.xet.formats import MAX_CHUNK, STORED, pack
from tests.lfs.xet.takers import ANN, Bench, bench
from tests.lfs.xet.xorbs import Signing, random_xorb

ONE = random_xorb(1)
MIB = 1 << 20


@pytest.fixture
def heavy() -> Iterator[Heavy]:
    pool = Heavy(workers=2, memory_bytes=512 << 20, deadline=60)
    yield pool
    pool.close()


@pytest.fixture
def local(tmp_path: Path, heavy: Heavy) -> Bench:
    """A place whose store is a disk."""
    return bench(LocalStore(tmp_path / "shelf", min_free=0), tmp_path / "new", heavy)


@pytest.fixture
def bucket(tmp_path: Path, heavy: Heavy) -> Bench:
    """A place whose store lets clients in."""
    return bench(Signing(), tmp_path / "new", heavy)


def test_eight_posts_of_one_xorb_at_once_make_one(local: Bench) -> None:
    together = threading.Barrier(8)

    def post(_: int) -> bool:
        def source() -> Iterator[bytes]:
            yield ONE.body[:100]
            together.wait(20)
            yield ONE.body[100:]

        return local.taking.post(ANN, ONE.hash, source())

    with ThreadPoolExecutor(8) as pool:
        assert any(pool.map(post, range(8)))
    local.sound()


def test_commits_of_one_grant_at_once_make_one(bucket: Bench) -> None:
    for xorb in (random_xorb(seed) for seed in range(10, 20)):
        ticket = bucket.ticket(xorb)
        bucket.store.arrive(ticket.url, xorb.body)
        with ThreadPoolExecutor(4) as pool:
            assert any(pool.map(lambda _, t=ticket, x=xorb: bucket.taking.commit(ANN, t.id, x.hash), range(4)))
    bucket.sound()


def peak() -> int:
    """Return the most bytes of memory that this process has held since the last `forget_peak`."""
    return _status("VmHWM:")


def forget_peak() -> int:
    """Let the peak begin anew, and return what is held now."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS:")


def _status(name: str) -> int:
    return int(Path("/proc/self/status").read_text().split(name)[1].split()[0]) << 10


def test_eight_full_xorbs_at_once_need_little_memory(local: Bench) -> None:
    parts = [bytes([number]) * MAX_CHUNK for number in range(8)]
    packed = [pack([part], STORED) for part in parts]

    def post(number: int) -> bool:
        hash = hashes.xorb([(hashes.chunk(parts[number]), MAX_CHUNK)] * 512)
        return local.taking.post(ANN, hash, (packed[number] for _ in range(512)))

    before = forget_peak()
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(post, range(8)))
    grown = peak() - before
    print(f"eight xorbs of 64 MiB: {grown / MIB:.0f} MiB")
    assert grown < 100 * MIB
    assert sum(kept.xorb.raw_size for kept in local.index.xorbs.values()) == 512 * MIB
