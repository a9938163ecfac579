"""Folders of which each process has its own: caches that it may empty, and quarantine that it may sweep.

    <data>/slots/<n>/lock                held while the process lives
    <data>/slots/<n>/packs, answers      copies that may be lost at any time
    <data>/slots/<n>/quarantine          pushes and commits in the making; swept when the slot is taken
    <data>/slots/<n>/boot                the run of the operating system in which the copies were made

Copies are not made durable, so those of an earlier run of the system may be torn by a power cut: they go.
Several workers, or several servers on one folder, take different slots; a slot left by a crash is taken again.
"""

from __future__ import annotations

import fcntl
import itertools
import shutil
from pathlib import Path
from typing import BinaryIO

_BOOT = Path("/proc/sys/kernel/random/boot_id")


class Slot:
    """One process's folders; `close` lets another process have them."""

    def __init__(self, data: Path, *, boot: str | None = None) -> None:
        """Take a free slot; `boot` names this run of the operating system, if not as the kernel does."""
        boot = _BOOT.read_text() if boot is None else boot
        self.folder, self._lock = _claimed(data / "slots")
        self.packs = self.folder / "packs"
        self.answers = self.folder / "answers"
        self.quarantine = self.folder / "quarantine"
        shutil.rmtree(self.quarantine, ignore_errors=True)
        if not _same_boot(self.folder / "boot", boot):
            shutil.rmtree(self.packs, ignore_errors=True)
            shutil.rmtree(self.answers, ignore_errors=True)
            (self.folder / "boot").write_text(boot)
        for path in (self.packs, self.answers, self.quarantine):
            path.mkdir(mode=0o700, exist_ok=True)

    def close(self) -> None:
        """Give the slot up; may be repeated."""
        self._lock.close()


def _same_boot(note: Path, boot: str) -> bool:
    try:
        return note.read_text() == boot
    except FileNotFoundError:
        return False


def _claimed(folder: Path) -> tuple[Path, BinaryIO]:
    for number in itertools.count():
        path = folder / str(number)
        path.mkdir(parents=True, exist_ok=True)
        lock = (path / "lock").open("ab")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            continue
        return path, lock
    raise AssertionError("there is always a next number")
