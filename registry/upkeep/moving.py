"""Copies every key of the shelf that is left to the one that bytes go to, while servers use both.

Each byte is hashed on its way: keys of LFS objects, of git's files and of shards say what they hash to, others are read
back. Xet files are no keys of a shelf: their xorbs are what moves.
What is there with its size is left alone, so a copy that was killed goes on where it was. Bytes that are not those of
their key stay where they are and are told. After the first pass the shelves are compared until nothing is missing.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Literal

from lfs import soundness
from lfs.errors import Damaged, DigestMismatch, Missing, Unavailable
from lfs.store import ObjectStore, Reader, Stat
from registry.upkeep.findings import Finding

TRIES = 4
_AHEAD = 4
"""Keys in line for each job; a large one must not keep the others waiting."""
_NAMED = re.compile(
    r"(?:lfs|git)/[0-9a-f]{2}/[0-9a-f]{2}/(?P<whole>[0-9a-f]{64})(?:\.[a-z0-9-]+)?"
    r"|xet/shards/[0-9a-f]{2}/(?P<shard>[0-9a-f]{64})"
)


@dataclass(slots=True)
class Totals:
    """How far a copy has come, in keys, and the bytes that it wrote."""

    copied: int = 0
    bytes: int = 0
    there: int = 0
    bad: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one key."""

    key: str
    what: Literal["copied", "there", "gone", "bad"]
    size: int = 0
    text: str = ""


class Copying:
    """One run of the copy; `totals` grows while it goes, and `tell` is called then, on the caller's thread.

    With `verify` what is there is read and hashed again, and replaced if it is damaged and its source is not. `jobs`
    keys are copied at a time, each in bounded memory; `pause` is in seconds, between tries of a shelf that does not
    answer.
    """

    def __init__(
        self,
        *,
        to: ObjectStore,
        source: ObjectStore,
        jobs: int = 8,
        verify: bool = False,
        tell: Callable[[Totals], None] = lambda totals: None,
        pause: float = 1.0,
    ) -> None:
        self._to, self._source = to, source
        self._jobs, self._verify, self._tell, self._pause = jobs, verify, tell, pause
        self._stopping = threading.Event()
        self._bad: set[str] = set()
        self.totals = Totals()

    def run(self) -> Iterator[Finding]:
        """Copy; yield what could not be copied because its bytes are bad. May be repeated, also after a kill.

        Raises: Unavailable (a shelf does not answer, also after some tries), NoSpace, Denied.
        """
        yield from self._pass(self._source.walk())
        while True:
            before = self.totals.copied
            yield from self._pass(key for key in missing(self._to, self._source) if key not in self._bad)
            if self.totals.copied == before:
                return

    def _pass(self, keys: Iterator[str]) -> Iterator[Finding]:
        # Bytes that a repair took out of use are asked for by nobody.
        for outcome in self._outcomes(key for key in keys if not key.endswith(f".{soundness.ASIDE}")):
            self._count(outcome)
            self._tell(self.totals)
            if outcome.what == "bad":
                self._bad.add(outcome.key)
                yield Finding("storage", "key", outcome.key, outcome.text)

    def _count(self, outcome: Outcome) -> None:
        if outcome.what == "copied":
            self.totals.copied += 1
            self.totals.bytes += outcome.size
        elif outcome.what == "there":
            self.totals.there += 1
        elif outcome.what == "bad":
            self.totals.bad += 1

    def _outcomes(self, keys: Iterator[str]) -> Iterator[Outcome]:
        """Copy keys in parallel, a bounded number of them in line."""
        running: set[Future[Outcome]] = set()
        pool = ThreadPoolExecutor(self._jobs, thread_name_prefix="copy")
        try:
            for key in keys:
                running.add(pool.submit(self._patiently, key))
                if len(running) >= self._jobs * _AHEAD:
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    yield from (one.result() for one in done)
            while running:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                yield from (one.result() for one in done)
        finally:
            # Also when the caller leaves in the middle: what is half-written is dropped by the shelf.
            self._stopping.set()
            pool.shutdown(cancel_futures=True)
            self._stopping.clear()

    def _patiently(self, key: str) -> Outcome:
        for again in range(1, TRIES):
            try:
                return self._one(key)
            except Unavailable:
                if self._stopping.wait(self._pause * 2**again):
                    raise
        return self._one(key)

    def _one(self, key: str) -> Outcome:
        try:
            size = self._source.stat(key).size
        except Missing:
            return Outcome(key, "gone")
        oid = named(key)
        there = _stat(self._to, key)
        if there is not None:
            if there.size == size and not self._verify:
                return Outcome(key, "there")
            known = self._compared(key, oid)
            if known is not None:
                return known
        return self._copied(key, oid)

    def _compared(self, key: str, oid: str | None) -> Outcome | None:
        """Look at bytes that are there already; None if they are damaged, went, and are to be copied again."""
        if oid is None:
            if soundness.digest(self._source, key) == soundness.digest(self._to, key):
                return Outcome(key, "there")
            return Outcome(key, "bad", text="differs on the two shelves, and its key does not say which is right")
        if not soundness.flaw(self._to, key, oid):
            return Outcome(key, "there")
        if text := soundness.flaw(self._source, key, oid):
            return Outcome(key, "bad", text=f"is damaged on both shelves: {text}")
        # Readers find the sound bytes of the source until the copy is there.
        soundness.clear(self._to, key, oid)
        return None

    def _copied(self, key: str, oid: str | None) -> Outcome:
        try:
            with self._source.open(key) as reader:
                verified = self._to.put(key, self._until_stopped(reader), reader.size, oid)
        except Missing:
            return Outcome(key, "gone")
        except DigestMismatch:
            text = "has other bytes than its key says; it was not copied: run `weightroom fsck --read-data --repair`"
            return Outcome(key, "bad", text=text)
        except Damaged as error:
            return Outcome(key, "bad", text=f"cannot be copied: {error.message}")
        if (oid is None or self._verify) and soundness.digest(self._to, key) != verified.sha256:
            self._to.delete(key)
            return Outcome(key, "bad", text="was read back as other bytes than were written; look at the new storage")
        return Outcome(key, "copied", verified.size)

    def _until_stopped(self, reader: Reader) -> Iterator[bytes]:
        for piece in reader:
            if self._stopping.is_set():
                raise Unavailable("The copy was stopped; run it again to go on.")
            yield piece


def missing(to: ObjectStore, source: ObjectStore) -> Iterator[str]:
    """Yield the keys of `source` that `to` lacks, in order; both are listed, and no single key is asked about."""
    there = to.walk()
    ahead: str | None = ""
    for key in source.walk():
        while ahead is not None and ahead < key:
            ahead = next(there, None)
        if ahead != key:
            yield key


def named(key: str) -> str | None:
    """Return the SHA-256 that a key says its bytes have; None if it says nothing."""
    found = _NAMED.fullmatch(key)
    return None if found is None else found["whole"] or found["shard"]


def _stat(store: ObjectStore, key: str) -> Stat | None:
    try:
        return store.stat(key)
    except Missing:
        return None
