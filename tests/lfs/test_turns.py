"""Who waits for a proof waits for a share of the time of those before, and never for all that these have queued."""

from __future__ import annotations

import functools
import hashlib
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import pytest

from lfs.errors import Busy
from lfs.host import Arrival, Opening, Upload, Wanted
from lfs.proofs import Prover
from lfs.reading_back import LEASE
from lfs.store import Reader, Span, lfs_key
from lfs.turns import SLICE, Seat
from tests.contracts.memory_store import MemoryStore
from tests.lfs.memory_host import MemoryHost

MIB, GIB = 1 << 20, 1 << 30
RATE = 2 * MIB
"""Bytes that the shelf gives in a second of its clock."""
LARGE = 80 * MIB
ALONE = LARGE / RATE
"""Seconds that a large object takes whoever has the shelf for himself."""
ANN, BOB, EVE = 1, 2, 3


class Zeros(MemoryStore):
    """A shelf of nothing but zeros, as many as were announced; its clock moves as it is read."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.sizes: dict[str, int] = {}
        self.opened: Counter[str] = Counter()
        self.read: Counter[str] = Counter()

    def open(self, key: str, span: Span | None = None) -> Reader:
        self.opened[key] += 1
        return _Zeros(self, key, (span or Span(0, self.sizes[key])).size)


class _Zeros(Reader):
    def __init__(self, store: Zeros, key: str, size: int) -> None:
        super().__init__(size)
        self._store, self._key = store, key

    def _piece(self, limit: int) -> bytes:
        self._store.now += limit / RATE
        self._store.read[self._key] += limit
        return bytes(limit)

    def close(self) -> None:
        pass


@dataclass(slots=True)
class Counting(MemoryHost):
    """Counts transactions; does not answer as often as it is told not to."""

    finished: int = 0
    leased: int = 0
    busy: int = 0

    def hold(self, upload_id: str, holder: str, seconds: float) -> bool:
        self.leased += 1
        self._answer()
        return MemoryHost.hold(self, upload_id, holder, seconds)

    def hold_all(self, upload_ids: Collection[str], holder: str, seconds: float) -> Collection[str]:
        self.leased += 1
        self._answer()
        return MemoryHost.hold_all(self, upload_ids, holder, seconds)

    def finish_all(self, arrivals: Sequence[Arrival]) -> Sequence[str | Exception]:
        self.finished += 1
        try:
            self._answer()
        except Busy as error:
            return [error] * len(arrivals)
        return MemoryHost.finish_all(self, arrivals)

    def _answer(self) -> None:
        self.busy -= 1
        if self.busy >= 0:
            raise Busy("The database does not answer.")


class Scene:
    """A prover whose seats only tests move, on a clock that only the shelf moves."""

    def __init__(self, workers: int = 1) -> None:
        self.store = Zeros()
        self.host = Counting(clock=lambda: self.store.now)
        self.prover = Prover(host=self.host, store=self.store, workers=workers, clock=lambda: self.store.now)
        self.seats = self.prover.seats[:-1]
        self.small = self.prover.seats[-1]

    def arrive(self, actor_id: int, size: int = LARGE, oid: str = "") -> Upload:
        """Let an object of zeros arrive; with `oid` its bytes are not the announced ones."""
        wanted = Wanted(oid or zeros(size), size)
        upload = self.host.begin(1, actor_id, [Opening(wanted, "tus", len(self.host.uploads))])[wanted.oid]
        key = lfs_key(upload.oid, upload.id)
        self.store.sizes[key] = size
        self.host.arrive(upload.id, key)
        return self.host.uploads[upload.id]

    def queue(self, actor_id: int, count: int, size: int = 400 * GIB) -> list[Upload]:
        """Let many objects arrive that nobody sees the end of."""
        return [self.arrive(actor_id, size, f"{actor_id:032x}{number:032x}") for number in range(count)]

    def until_done(self, upload: Upload) -> float:
        """Take turns until an upload is proven; return the seconds that it took."""
        began = self.store.now
        while self.host.uploads[upload.id].state == "arrived":
            for seat in self.seats:
                seat.turn()
        assert self.host.uploads[upload.id].state == "done"
        return self.store.now - began

    def bytes_of(self, uploads: Sequence[Upload]) -> int:
        """Say how much was read of uploads."""
        return sum(self.store.read[lfs_key(upload.oid, upload.id)] for upload in uploads)


@functools.cache
def zeros(size: int) -> str:
    """Return the SHA-256 of so many zeros."""
    digest = hashlib.sha256()
    for at in range(0, size, MIB):
        digest.update(bytes(min(MIB, size - at)))
    return digest.hexdigest()


def turn(seat: Seat, times: int) -> None:
    for _ in range(times):
        assert seat.turn()


def test_a_thousand_huge_uploads_of_one_account_cost_another_half_of_the_time() -> None:
    scene = Scene()
    scene.queue(EVE, 1000)
    turn(scene.seats[0], 5)
    assert scene.until_done(scene.arrive(BOB)) <= 2 * ALONE + SLICE


@pytest.mark.parametrize("others", [3, 6])
def test_each_account_at_work_costs_its_share_and_no_more(others: int) -> None:
    scene = Scene()
    for number in range(others):
        scene.queue(10 + number, 5)
    turn(scene.seats[0], 3 * others)
    assert scene.until_done(scene.arrive(BOB)) <= (others + 1) * ALONE + others * SLICE


def test_nothing_is_read_twice_and_what_was_set_aside_is_proven() -> None:
    scene = Scene()
    uploads = [scene.arrive(actor_id) for actor_id in (ANN, BOB, EVE)]
    while scene.seats[0].turn():
        pass
    assert {scene.host.uploads[upload.id].state for upload in uploads} == {"done"}
    keys = [lfs_key(upload.oid, upload.id) for upload in uploads]
    assert [scene.store.read[key] for key in keys] == [LARGE] * 3
    assert all(scene.store.opened[key] > 1 for key in keys)
    assert scene.host.leases == {}


def test_one_account_alone_has_every_seat_and_is_not_interrupted() -> None:
    scene = Scene(workers=3)
    uploads = scene.queue(ANN, 5)
    for _ in range(10):
        for seat in scene.seats:
            turn(seat, 1)
    assert sorted(scene.store.opened.values()) == [1, 1, 1]
    assert scene.bytes_of(uploads) == pytest.approx(scene.store.now * RATE)


def test_two_accounts_with_much_to_prove_have_the_seats_by_halves() -> None:
    scene = Scene(workers=2)
    eve = scene.queue(EVE, 50)
    for seat in scene.seats:
        turn(seat, 3)
    before, ann = scene.bytes_of(eve), scene.queue(ANN, 50)
    for _ in range(40):
        for seat in scene.seats:
            turn(seat, 1)
    assert scene.bytes_of(ann) / (scene.bytes_of(eve) - before) == pytest.approx(1, abs=0.2)


def test_a_stream_of_small_uploads_keeps_no_large_one_waiting() -> None:
    scene = Scene()
    large = scene.queue(ANN, 1)
    turn(scene.seats[0], 1)
    before = scene.store.now
    for _ in range(30):
        scene.queue(EVE, 2, MIB)
        turn(scene.seats[0], 1)
    assert scene.bytes_of(large) > 0.4 * (scene.store.now - before) * RATE


def test_small_uploads_have_a_seat_where_no_large_one_ever_sits() -> None:
    scene = Scene()
    scene.queue(ANN, 3)
    small = scene.arrive(ANN, MIB)
    turn(scene.seats[0], 5)
    assert scene.small.turn()
    assert scene.host.uploads[small.id].state == "done"
    assert not scene.small.turn()


def test_small_uploads_are_settled_together_and_one_bad_one_spoils_no_other() -> None:
    scene = Scene()
    good = [scene.arrive(ANN, size) for size in range(1000, 1020)]
    bad = scene.arrive(ANN, 5, "b" * 64)
    assert scene.seats[0].turn()
    assert {scene.host.uploads[upload.id].state for upload in good} == {"done"}
    assert scene.host.uploads[bad.id].state == "failed"
    assert (scene.host.finished, scene.host.leases) == (1, {})


@pytest.mark.parametrize("calls", range(7))
def test_a_group_outlives_the_process_that_began_it(calls: int) -> None:
    class Died(BaseException):
        """The process is gone; nothing catches that."""

    scene = Scene()
    uploads = [scene.arrive(ANN, size) for size in range(1000, 1005)]
    opened, finish_all = scene.store.open, scene.host.finish_all

    class Mortal(Zeros):
        def open(self, key: str, span: Span | None = None) -> Reader:
            if sum(scene.store.opened.values()) == calls:
                raise Died
            return opened(key, span)

    class Last(Counting):
        def finish_all(self, arrivals: Sequence[Arrival]) -> Sequence[str | Exception]:
            found = finish_all(arrivals) if calls == 5 else []
            if calls >= 5:
                raise Died
            return found

    host = Last(clock=scene.host.clock, uploads=scene.host.uploads, leases=scene.host.leases)
    dying = Prover(host=host, store=Mortal(), workers=1, clock=scene.host.clock)
    with pytest.raises(Died):
        dying.seats[0].turn()
    assert scene.seats[0].turn() is False
    scene.store.now += LEASE
    while scene.seats[0].turn():
        pass
    assert {scene.host.uploads[upload.id].state for upload in uploads} == {"done"}
    assert len(scene.host.links) == len(uploads)
    assert scene.host.leases == {}


def test_rows_that_do_not_answer_for_a_while_cost_no_reading() -> None:
    scene = Scene()
    upload = scene.arrive(ANN)
    scene.host.busy = 2
    turn(scene.seats[0], int(LEASE / SLICE) - 4)
    assert scene.host.busy <= 0
    while scene.bytes_of([upload]) < LARGE - 2 * MIB * SLICE:
        turn(scene.seats[0], 1)
    scene.host.busy = 2
    turn(scene.seats[0], 1)
    assert scene.host.uploads[upload.id].state == "done"
    assert scene.bytes_of([upload]) == LARGE
    assert scene.host.finished > 1


def test_what_is_set_aside_stays_leased_however_long_a_round_is() -> None:
    scene = Scene()
    uploads = [scene.queue(actor_id, 1)[0] for actor_id in range(10, 40)]
    assert len(uploads) * SLICE > LEASE
    turn(scene.seats[0], len(uploads))
    holders = {upload_id: lease.holder for upload_id, lease in scene.host.leases.items()}
    for _ in range(2 * len(uploads)):
        turn(scene.seats[0], 1)
        assert all(lease.until > scene.store.now for lease in scene.host.leases.values())
    assert {upload_id: lease.holder for upload_id, lease in scene.host.leases.items()} == holders
    assert len(holders) == len(uploads)


def test_leases_of_what_is_set_aside_cost_a_statement_for_each_account_and_not_for_each_upload() -> None:
    scene = Scene()
    accounts = range(10, 30)
    for actor_id in accounts:
        for number in range(20):
            scene.arrive(actor_id, 3 * MIB + number)
    turn(scene.seats[0], len(accounts))
    assert scene.store.now > LEASE
    assert len(scene.host.leases) > 10 * len(accounts)
    assert all(lease.until > scene.store.now for lease in scene.host.leases.values())
    assert scene.host.leased <= len(accounts) * scene.store.now / (LEASE / 4)


def test_what_another_process_took_on_meanwhile_is_left_to_it() -> None:
    scene = Scene()
    lost = scene.queue(EVE, 1)[0]
    turn(scene.seats[0], 1)
    first = scene.arrive(ANN)
    turn(scene.seats[0], 1)
    # The lease lapsed, as that of a process that stood still for long.
    scene.host.release(lost.id, scene.host.leases[lost.id].holder)
    assert scene.host.hold(lost.id, "another", 10 * LEASE)
    scene.until_done(first)
    read = scene.bytes_of([lost])
    while scene.seats[0].turn():
        pass
    # No more than what passes until the next look at the lease.
    assert scene.bytes_of([lost]) <= read + LEASE / 4 * RATE + MIB
    assert scene.host.uploads[lost.id].state == "arrived"
    assert scene.host.leases[lost.id].holder == "another"


def test_who_leaves_gives_back_what_was_set_aside_too() -> None:
    scene = Scene()
    scene.queue(EVE, 1)
    turn(scene.seats[0], 1)
    scene.queue(ANN, 1)
    turn(scene.seats[0], 1)
    assert len(scene.host.leases) == 2
    scene.seats[0].leave()
    assert scene.host.leases == {}
