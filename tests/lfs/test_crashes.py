"""A server that dies before or after any call to its host or shelf has linked nothing wrong, and a retry succeeds."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from lfs.actions import Caller
from lfs.batch import Batch, parse
from lfs.choices import Policy
from lfs.grants import Grant, Grants
from lfs.host import Leave, Upload
from lfs.multipart import Multipart
from lfs.reading_back import LEASE
from lfs.store import lfs_key, staging_key
from lfs.uploads import Uploads
from tests.contracts.memory_store import MemoryStore
from tests.lfs import proving
from tests.lfs.memory_host import MemoryHost
from tests.lfs.test_batch import Signing

BODY = random.Random(9).randbytes(2500)
OID = hashlib.sha256(BODY).hexdigest()
ANN = Leave(1, 1, "ann", may_write=True, may_force=False)


class Died(BaseException):
    """The process is gone; nothing catches that."""


@dataclass
class Fuse:
    """Burns down with every call, and once more when it returns."""

    left: int

    def burn(self) -> None:
        if self.left == 0:
            raise Died
        self.left -= 1


class Frail:
    """Something whose every call may be the last; what it returns of a shelf's own is frail too."""

    def __init__(self, real: Any, fuse: Fuse) -> None:
        self._real, self._fuse = real, fuse

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._real, name)
        if not callable(real):
            return real

        def called(*arguments: Any, **named: Any) -> Any:
            self._fuse.burn()
            found = real(*arguments, **named)
            self._fuse.burn()
            return Frail(found, self._fuse) if name == "parts" else found

        return called


@dataclass
class House:
    """What survives a death: rows and bytes."""

    way: str
    now: list[float] = field(default_factory=lambda: [0.0])

    def __post_init__(self) -> None:
        self.host = MemoryHost(clock=lambda: self.now[0])
        self.store = Signing(enforces=self.way == "direct") if self.way in ("direct", "staging") else MemoryStore()

    def push(self, fuse: Fuse) -> None:
        """Do all that a client and the server do for one object, from the batch on."""
        host: Any = Frail(self.host, fuse)
        store: Any = Frail(self.store, fuse)
        policy = Policy(upload="staging" if self.way == "staging" else "direct", multipart_threshold=1, part_size=1000)
        sent = {"operation": "upload", "objects": [{"oid": OID, "size": len(BODY)}]}
        sent["transfers"] = ["multipart"] if self.way == "multipart" else []
        batch = Batch(host=host, store=store, grants=Grants([b"secret"], lambda: 0), policy=policy)
        answer: Any = batch.answer(parse(json.dumps(sent).encode()), ANN, Caller("http://host", agent="git-lfs/3"))
        if "actions" in answer["objects"][0]:
            upload = next(row for row in reversed(self.host.uploads.values()) if row.state == "open")
            SENDERS[self.way](host, store, self.store, upload)
        for upload in host.arrived("a worker", LEASE, 10):
            proving.prove(upload, "a worker", host=host, store=store)

    def sound(self) -> None:
        """Insist that whatever is linked is there, whole."""
        for _, oid in self.host.links:
            assert self.store.objects[self.host.objects[oid].key] == BODY


def _leave(upload: Upload) -> Grant:
    return Grant("put", 1, OID, len(BODY), 0, 1, upload.id)


def _in_parts(host: Any, store: Any, bucket: MemoryStore, upload: Upload) -> None:
    multipart = Multipart(host=host, store=store, told=lambda: None)
    told = []
    for number in (1, 2, 3):
        part = BODY[(number - 1) * 1000 : number * 1000]
        told.append({"partNumber": number, "etag": multipart.take(upload, number, [part])})
    multipart.complete(_leave(upload), json.dumps({"oid": OID, "parts": told}).encode())


def _through_us(host: Any, store: Any, bucket: MemoryStore, upload: Upload) -> None:
    Uploads(host=host, store=store, told=lambda: None).take(_leave(upload), [BODY])


def _past_us(host: Any, store: Any, bucket: MemoryStore, upload: Upload) -> None:
    bucket.objects[staging_key(upload.id) if upload.mode == "staging" else lfs_key(OID, upload.id)] = BODY
    Uploads(host=host, store=store, told=lambda: None).verify(_leave(upload), len(BODY))


SENDERS: dict[str, Callable[[Any, Any, MemoryStore, Upload], None]] = {
    "proxy": _through_us,
    "direct": _past_us,
    "staging": _past_us,
    "multipart": _in_parts,
}


@pytest.mark.parametrize("way", SENDERS)
def test_death_at_any_call_loses_nothing(way: str) -> None:
    steps, dying = 0, True
    while dying:
        house = House(way)
        try:
            house.push(Fuse(steps))
            dying = False
        except Died:
            house.sound()
            # The dead one's lease lapses; its client starts over.
            house.now[0] += 2 * LEASE
            house.push(Fuse(10**9))
        house.sound()
        assert (1, OID) in house.host.links
        steps += 1
    assert steps > 8


@pytest.mark.parametrize("way", SENDERS)
def test_two_deaths_in_a_row_are_no_worse(way: str) -> None:
    for first in range(1, 30, 3):
        for second in range(1, 30, 4):
            house = House(way)
            for steps in (first, second, 10**9):
                try:
                    house.push(Fuse(steps))
                except Died:
                    house.sound()
                house.now[0] += 2 * LEASE
            house.sound()
            assert (1, OID) in house.host.links
