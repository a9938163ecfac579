"""Folder syncs are shared by those who wait together, and by nobody who came too late for that."""

from __future__ import annotations

import errno
import os
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from lfs.disk import Disk


class SlowDisk:
    """Stands in for `os.fsync`: every call waits for its leave, and may be told to fail."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.calls, self.called, self.leave, self.fails = 0, threading.Semaphore(0), threading.Semaphore(0), False
        patch.setattr(os, "fsync", self.fsync)

    def fsync(self, fd: int) -> None:
        self.calls += 1
        self.called.release()
        assert self.leave.acquire(timeout=20)
        if self.fails:
            raise OSError(errno.EIO, "the disk broke")


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> SlowDisk:
    return SlowDisk(monkeypatch)


def gather(disk: Disk, slow: SlowDisk, pool: ThreadPoolExecutor) -> list[Future[None]]:
    """Begin one sync, and seven more while it runs."""
    running = pool.submit(disk.sync_folder, disk.tmp)
    assert slow.called.acquire(timeout=20)
    begun = threading.Barrier(8)

    def late() -> None:
        begun.wait(20)
        disk.sync_folder(disk.tmp)

    waiting = [pool.submit(late) for _ in range(7)]
    begun.wait(20)
    # They have nothing left to do but to take a lock; a second is an age for that.
    threading.Event().wait(0.2)
    return [running, *waiting]


def test_who_waits_for_a_sync_shares_the_next_one(tmp_path: Path, slow: SlowDisk) -> None:
    disk = Disk(tmp_path, fsync=True, min_free=0)
    with ThreadPoolExecutor(8) as pool:
        asked = gather(disk, slow, pool)
        # The one that runs began before the others asked: it cannot speak for their names.
        slow.leave.release()
        assert asked[0].result(20) is None
        assert slow.called.acquire(timeout=20)
        assert not any(each.done() for each in asked[1:])
        slow.leave.release()
        for each in asked:
            each.result(20)
    assert slow.calls == 2


def test_a_shared_sync_that_fails_fails_for_all(tmp_path: Path, slow: SlowDisk) -> None:
    disk = Disk(tmp_path, fsync=True, min_free=0)
    with ThreadPoolExecutor(8) as pool:
        asked = gather(disk, slow, pool)
        slow.leave.release()
        asked[0].result(20)
        slow.fails = True
        slow.leave.release()
        for each in asked[1:]:
            with pytest.raises(OSError, match="the disk broke"):
                each.result(20)
    slow.fails = False
    slow.leave.release()
    disk.sync_folder(disk.tmp)


def test_syncs_of_two_folders_do_not_wait_for_each_other(tmp_path: Path, slow: SlowDisk) -> None:
    disk = Disk(tmp_path, fsync=True, min_free=0)
    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(disk.sync_folder, folder) for folder in (disk.tmp, disk.root)]
        for _ in asked:
            assert slow.called.acquire(timeout=20)
        slow.leave.release(2)
        for each in asked:
            each.result(20)
