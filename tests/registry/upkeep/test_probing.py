"""What a bucket enforces is asked once a day, for every process, and anew for another bucket."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta

import pytest

from lfs.errors import Unavailable
from lfs.store import Probe
from registry.db import Database, now
from registry.upkeep.probing import Probing
from tests.contracts.memory_store import MemoryStore


class Enforcing(MemoryStore):
    """A shelf in memory that counts how often it was asked, and remembers what it was told."""

    asked = 0
    told: Probe | None = None

    def probe(self) -> Probe:
        self.asked += 1
        return Probe("content_sha256", {"right body": "200"})

    def believe(self, probe: Probe) -> None:
        self.told = probe


class Clock:
    """A clock that the test winds."""

    def __init__(self) -> None:
        self.at = now()

    def __call__(self) -> datetime:
        return self.at


def probing(database: Database, store: MemoryStore, clock: Clock, url: str = "s3://bucket", key: str = "a") -> Probing:
    return Probing(database=database, store=store, url=url, access_key=key, clock=clock)


def test_a_finding_is_told_to_the_shelf_and_asked_again_after_a_day(database: Database) -> None:
    store, clock = Enforcing(), Clock()
    assert probing(database, store, clock).settle() == Probe("content_sha256", {"right body": "200"})
    assert store.told == Probe("content_sha256", {"right body": "200"})
    # Another process, the same day.
    other = Enforcing()
    probing(database, other, clock).settle()
    assert (other.asked, other.told) == (0, store.told)
    clock.at += timedelta(hours=25)
    probing(database, other, clock).settle()
    assert other.asked == 1


@pytest.mark.parametrize(("url", "key"), [("s3://other", "a"), ("s3://bucket", "b")])
def test_another_bucket_or_other_credentials_are_asked_anew(database: Database, url: str, key: str) -> None:
    store, clock = Enforcing(), Clock()
    probing(database, store, clock).settle()
    probing(database, store, clock, url, key).settle()
    assert store.asked == 2


def test_processes_that_ask_at_once_all_find_out(database: Database) -> None:
    store, clock = Enforcing(), Clock()
    found: list[Probe] = []
    threads = [
        threading.Thread(target=lambda: found.append(probing(database, store, clock).settle())) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [Probe("content_sha256", {"right body": "200"})] * 8


def test_a_bucket_that_does_not_answer_is_asked_again_later(database: Database) -> None:
    class Away(Enforcing):
        def probe(self) -> Probe:
            raise Unavailable("The bucket does not answer; try again.")

    clock = Clock()
    asking = probing(database, Away(), clock)
    with pytest.raises(Unavailable):
        asking.settle()
    assert asking.found is None
    assert probing(database, Enforcing(), clock).settle().enforces == "content_sha256"
