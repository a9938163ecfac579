"""A xorb is live when its bytes were proven and lie in the store, and at no other time."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import lz4.frame
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lfs.errors import (
    BadXet,
    Busy,
    Damaged,
    HeavyCrashed,
    HeavyError,
    HeavyOutOfMemory,
    HeavyTimeout,
    Interrupted,
    NoSpace,
    ObjectAbsent,
    QuotaExceeded,
    TooLarge,
    Unavailable,
)
from lfs.heavy import Heavy
from lfs.local import LocalStore
from lfs.store import Source, Verified, xorb_keys
from lfs.xet import hashes
from lfs.xet.formats import BG4, LZ4, STORED, pack
from lfs.xet.index import Leave
from lfs.xet.proving import LONGEST, prove_file
from lfs.xet.tables import Tables
from lfs.xet.taking import Taking
from tests.contracts.memory_store import MemoryStore
from tests.lfs.xet.memory_index import ANN, DOMAIN, OTHER
from tests.lfs.xet.takers import Bench, bench, read
from tests.lfs.xet.xorbs import Made, Signing, footer, made, random_xorb

BOB = Leave(3, 2, OTHER, "write", 1 << 40)
ONE, TWO = random_xorb(1), random_xorb(2)


@pytest.fixture(scope="module")
def heavy() -> Iterator[Heavy]:
    pool = Heavy(workers=2, memory_bytes=512 << 20, deadline=60)
    yield pool
    pool.close()


@pytest.fixture(params=["disk", "memory"])
def local(request: pytest.FixtureRequest, tmp_path: Path, heavy: Heavy) -> Bench:
    """A place whose store signs nothing."""
    shelf = MemoryStore() if request.param == "memory" else LocalStore(tmp_path / "shelf", min_free=0, fsync=False)
    return bench(shelf, tmp_path / "new", heavy)


@pytest.fixture
def bucket(tmp_path: Path, heavy: Heavy) -> Bench:
    """A place whose store lets clients in."""
    return bench(Signing(), tmp_path / "new", heavy)


def sliced(body: bytes, size: int = 7001) -> Iterable[bytes]:
    return (body[at : at + size] for at in range(0, len(body), size))


FLOATS = struct.pack("<20000f", *(random.Random(3).gauss(0, 0.02) for _ in range(20_000)))


@pytest.mark.parametrize("scheme", [STORED, LZ4, BG4])
def test_a_posted_xorb_is_live_under_keys_of_its_own(local: Bench, scheme: int) -> None:
    xorb = made(b"weights " * 2000, FLOATS, bytes(131_072), scheme=scheme)
    assert local.taking.post(ANN, xorb.hash, sliced(xorb.body))
    assert local.taking.head(ANN, xorb.hash) == len(xorb.body)
    (found,) = local.index.live(DOMAIN, [xorb.hash]).values()
    assert read(local.store, found.key) == xorb.body
    suffix = found.key.rpartition(".")[2]
    assert (found.key, found.table) == xorb_keys(hashes.text(xorb.hash), suffix)
    assert Tables(local.store).load(found).to_bytes() == xorb.table().to_bytes()
    assert not local.taking.post(ANN, xorb.hash, sliced(xorb.body))
    local.sound()


def test_a_footer_is_not_kept(local: Bench) -> None:
    assert local.taking.post(ANN, ONE.hash, sliced(ONE.body + footer(ONE)))
    assert local.taking.head(ANN, ONE.hash) == len(ONE.body)
    local.sound()


def bomb() -> Made:
    """Make a chunk that says it is small and unpacks to 20 MB."""
    payload = lz4.frame.compress(bytes(20 << 20), store_size=False)
    return Made(ONE.hash, struct.pack("<II", len(payload) << 8, LZ4 | 131_072 << 8) + payload, ())


def swollen() -> Made:
    """Make a xorb whose chunks are sound and unpack to more than 64 MiB together."""
    return Made(ONE.hash, pack([bytes(131_072)], LZ4) * 600, ())


FLAWS: dict[str, Callable[[], Made]] = {
    "empty": lambda: Made(ONE.hash, b"", ()),
    "truncated": lambda: Made(ONE.hash, ONE.body[:-1], ()),
    "truncated between chunks": lambda: Made(ONE.hash, pack(ONE.parts[:-1], STORED), ()),
    "only a footer": lambda: Made(ONE.hash, footer(ONE), ()),
    "wrong hash": lambda: Made(ONE.hash, TWO.body, ()),
    "one bit": lambda: Made(ONE.hash, ONE.body[:5000] + bytes([ONE.body[5000] ^ 1]) + ONE.body[5001:], ()),
    "chunks in another order": lambda: Made(ONE.hash, pack(ONE.parts[::-1], STORED), ()),
    "garbage": lambda: Made(ONE.hash, random.Random(4).randbytes(50_000), ()),
    "trailing bytes": lambda: Made(ONE.hash, ONE.body + b"more", ()),
    "bomb": bomb,
    "swollen": swollen,
    "endless footer": lambda: Made(ONE.hash, ONE.body + footer(ONE) + bytes(100_000), ()),
}


@pytest.mark.parametrize("flaw", FLAWS)
def test_a_flawed_post_leaves_nothing_and_a_retry_succeeds(local: Bench, flaw: str) -> None:
    xorb = FLAWS[flaw]()
    with pytest.raises(BadXet):
        local.taking.post(ANN, xorb.hash, sliced(xorb.body))
    assert not local.index.xorbs
    local.sound()
    assert local.taking.post(ANN, ONE.hash, [ONE.body])
    local.sound()


@pytest.mark.parametrize("flaw", FLAWS)
def test_a_flawed_commit_deletes_what_came_and_a_new_grant_succeeds(bucket: Bench, flaw: str) -> None:
    xorb, ticket = FLAWS[flaw](), bucket.ticket(ONE)
    bucket.store.arrive(ticket.url, xorb.body)
    with pytest.raises(BadXet):
        bucket.taking.commit(ANN, ticket.id, ONE.hash)
    assert not bucket.store.objects
    assert not bucket.index.grants
    again = bucket.ticket(ONE)
    bucket.store.arrive(again.url, ONE.body)
    assert bucket.taking.commit(ANN, again.id, ONE.hash)
    bucket.sound()


def test_a_body_is_refused_at_the_first_byte_too_many(local: Bench) -> None:
    given_bytes = 0

    def endless() -> Iterator[bytes]:
        nonlocal given_bytes
        while True:
            given_bytes += 1 << 20
            yield bytes(1 << 20)

    with pytest.raises(TooLarge):
        local.taking.post(ANN, ONE.hash, endless())
    assert given_bytes <= LONGEST + (1 << 20)
    local.taking.post(ANN, ONE.hash, [ONE.body])
    with pytest.raises(TooLarge):
        local.taking.post(ANN, ONE.hash, endless())
    local.sound()


def test_a_client_that_leaves_has_sent_nothing(local: Bench) -> None:
    def leaving() -> Iterator[bytes]:
        yield ONE.body[:3000]
        raise Interrupted("gone")

    with pytest.raises(Interrupted):
        local.taking.post(ANN, ONE.hash, leaving())
    local.sound()


def test_what_another_domain_has_is_taken_as_if_nobody_had_it(local: Bench) -> None:
    local.taking.post(BOB, ONE.hash, [ONE.body])
    with pytest.raises(ObjectAbsent):
        local.taking.head(ANN, ONE.hash)
    with pytest.raises(BadXet):
        local.taking.post(ANN, ONE.hash, [TWO.body])
    assert local.taking.ask_grant(ANN, ONE.hash, len(ONE.body), None) is None
    assert local.taking.post(ANN, ONE.hash, [ONE.body])
    assert local.taking.head(ANN, ONE.hash) == len(ONE.body)
    local.sound()


def test_a_xorb_that_is_there_is_promised_again(local: Bench) -> None:
    local.taking.post(ANN, ONE.hash, [ONE.body])
    for ask in (
        lambda: local.taking.post(ANN, ONE.hash, [ONE.body]) is False,
        lambda: local.taking.ask_grant(ANN, ONE.hash, len(ONE.body), None) == "stored",
    ):
        kept = local.index.xorbs[ONE.hash]
        kept.state, kept.promised = "condemned", 0.0
        assert ask()
        assert (kept.state, kept.promised > 0) == ("live", True)


def test_a_quarantined_xorb_heals_under_new_keys(local: Bench) -> None:
    local.taking.post(ANN, ONE.hash, [ONE.body])
    bad = local.index.xorbs[ONE.hash].xorb
    local.index.quarantine(ONE.hash, bad.key)
    assert local.taking.post(ANN, ONE.hash, [ONE.body])
    assert local.index.xorbs[ONE.hash].xorb.key != bad.key
    assert local.taking.head(ANN, ONE.hash) == len(ONE.body)


def test_a_store_that_signs_nothing_wants_a_post(local: Bench) -> None:
    assert local.taking.ask_grant(ANN, ONE.hash, len(ONE.body), 1) is None
    assert not local.index.grants


def test_a_grant_binds_domain_hash_and_time(bucket: Bench) -> None:
    ticket = bucket.ticket(ONE)
    bucket.store.arrive(ticket.url, ONE.body)
    for leave, id, hash in ((BOB, ticket.id, ONE.hash), (ANN, ticket.id, TWO.hash), (ANN, "0" * 32, ONE.hash)):
        with pytest.raises(ObjectAbsent):
            bucket.taking.commit(leave, id, hash)
    granted = bucket.index.grants[ticket.id]
    bucket.index.expired(ticket.id)
    with pytest.raises(ObjectAbsent):
        bucket.taking.commit(ANN, ticket.id, ONE.hash)
    bucket.index.grant(ANN, granted)
    assert bucket.taking.commit(ANN, ticket.id, ONE.hash)


def test_a_grant_beyond_the_limit_is_refused(bucket: Bench) -> None:
    with pytest.raises(TooLarge):
        bucket.ticket(ONE, LONGEST + 1)


def test_a_commit_without_bytes_asks_for_a_new_grant(bucket: Bench) -> None:
    ticket = bucket.ticket(ONE)
    with pytest.raises(ObjectAbsent):
        bucket.taking.commit(ANN, ticket.id, ONE.hash)
    bucket.store.arrive(ticket.url, ONE.body)
    assert bucket.taking.commit(ANN, ticket.id, ONE.hash)


@pytest.mark.parametrize("tail", [b"", footer(ONE)], ids=["plain", "footer"])
def test_a_second_commit_finds_the_work_done(bucket: Bench, tail: bytes) -> None:
    ticket, later = bucket.ticket(ONE), bucket.ticket(ONE)
    bucket.store.arrive(ticket.url, ONE.body + tail)
    bucket.store.arrive(later.url, ONE.body)
    assert bucket.taking.commit(ANN, ticket.id, ONE.hash)
    assert not bucket.taking.commit(ANN, ticket.id, ONE.hash)
    assert not bucket.taking.commit(ANN, later.id, ONE.hash)
    assert bucket.taking.ask_grant(ANN, ONE.hash, len(ONE.body), None) == "stored"
    assert not bucket.index.grants
    assert not list(bucket.store.walk("staging/"))
    bucket.sound()


def test_bytes_that_are_replaced_after_the_commit_reach_nobody(bucket: Bench) -> None:
    ticket = bucket.ticket(ONE)
    bucket.store.arrive(ticket.url, ONE.body)
    bucket.taking.commit(ANN, ticket.id, ONE.hash)
    bucket.store.arrive(ticket.url, bytes(len(ONE.body)))
    bucket.sound()


class Failing(MemoryStore):
    """A shelf that refuses to put keys with this beginning."""

    refuses, error = "nothing", Unavailable("not now")

    def put(self, key: str, source: Source, size: int, sha256: str | None = None) -> Verified:
        if key.startswith(self.refuses):
            raise self.error
        return super().put(key, source, size, sha256)


@pytest.mark.parametrize("refuses", ["xet/tables/", "xet/xorbs/"])
@pytest.mark.parametrize("error", [Unavailable("not now"), NoSpace("full"), Damaged("odd")])
def test_a_store_that_fails_leaves_nothing_live(tmp_path: Path, heavy: Heavy, refuses: str, error: Any) -> None:
    here = bench(Failing(), tmp_path / "new", heavy)
    here.store.refuses, here.store.error = refuses, error
    with pytest.raises(type(error)):
        here.taking.post(ANN, ONE.hash, [ONE.body])
    assert not here.index.xorbs
    here.sound()
    here.store.refuses = "nothing"
    assert here.taking.post(ANN, ONE.hash, [ONE.body])


def test_a_disk_at_its_floor_takes_no_xorb(tmp_path: Path, heavy: Heavy) -> None:
    here = bench(LocalStore(tmp_path / "shelf", min_free=1 << 60, fsync=False), tmp_path / "new", heavy)
    with pytest.raises(NoSpace):
        here.taking.post(ANN, ONE.hash, [ONE.body])
    here.sound()


class Weary(Heavy):
    """A pool that fails as hostile bytes, or too many callers, make it fail."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def within(self, *_: Any, **__: Any) -> Any:
        raise self._error


def test_a_pool_that_is_taken_keeps_the_grant(bucket: Bench) -> None:
    ticket = bucket.ticket(ONE)
    bucket.store.arrive(ticket.url, ONE.body)
    tired = Taking(index=bucket.index, store=bucket.store, heavy=Weary(Busy("later")), folder=bucket.folder)
    with pytest.raises(Busy):
        tired.commit(ANN, ticket.id, ONE.hash)
    with pytest.raises(Busy):
        tired.post(ANN, ONE.hash, [ONE.body])
    bucket.sound()
    assert bucket.taking.commit(ANN, ticket.id, ONE.hash)


@pytest.mark.parametrize("error", [HeavyOutOfMemory, HeavyTimeout, HeavyCrashed])
def test_a_proof_that_does_not_end_well_refuses_the_xorb(bucket: Bench, error: type[HeavyError]) -> None:
    ticket = bucket.ticket(ONE)
    bucket.store.arrive(ticket.url, ONE.body)
    hurt = Taking(index=bucket.index, store=bucket.store, heavy=Weary(error("It died.")), folder=bucket.folder)
    with pytest.raises(BadXet, match="It died"):
        hurt.post(ANN, ONE.hash, [ONE.body])
    with pytest.raises(BadXet):
        hurt.commit(ANN, ticket.id, ONE.hash)
    assert not bucket.store.objects
    assert not bucket.index.grants


def test_a_body_without_room_is_refused_before_it_is_read(local: Bench) -> None:
    def unread() -> Iterator[bytes]:
        raise AssertionError
        yield b""

    local.index.quota = len(ONE.body) - 1
    with pytest.raises(QuotaExceeded):
        local.taking.post(ANN, ONE.hash, unread(), announced=len(ONE.body))
    # Who does not say how long it is, is refused once that is known.
    with pytest.raises(QuotaExceeded):
        local.taking.post(ANN, ONE.hash, sliced(ONE.body))
    local.index.quota = 0
    with pytest.raises(QuotaExceeded):
        local.taking.post(ANN, ONE.hash, unread())
    assert (local.index.xorbs, local.index.reserved()) == ({}, 0)
    local.sound()
    local.index.quota = len(ONE.body)
    assert local.taking.post(ANN, ONE.hash, sliced(ONE.body), announced=len(ONE.body))
    with pytest.raises(QuotaExceeded):
        local.taking.post(ANN, TWO.hash, unread(), announced=1)
    # What is here is answered as ever.
    assert not local.taking.post(ANN, ONE.hash, sliced(ONE.body), announced=len(ONE.body))


def test_leave_to_bring_counts_until_its_bytes_do(bucket: Bench) -> None:
    bucket.index.quota = len(ONE.body) + 500
    ticket = bucket.ticket(ONE, len(ONE.body) + 500)
    for refused in (ONE, TWO):
        with pytest.raises(QuotaExceeded):
            bucket.taking.ask_grant(ANN, refused.hash, len(refused.body), None)
    assert len(bucket.index.grants) == 1
    bucket.store.arrive(ticket.url, ONE.body)
    assert bucket.taking.commit(ANN, ticket.id, ONE.hash)
    assert bucket.index.reserved() == len(ONE.body)
    bucket.ticket(TWO, 500)


def test_what_was_sent_by_a_grant_and_has_no_room_any_more_is_deleted(bucket: Bench) -> None:
    ticket = bucket.ticket(ONE)
    bucket.store.arrive(ticket.url, ONE.body)
    bucket.index.arrivals.clear()
    bucket.index.quota = 10
    with pytest.raises(QuotaExceeded):
        bucket.taking.commit(ANN, ticket.id, ONE.hash)
    assert (bucket.index.xorbs, bucket.index.grants, bucket.store.objects) == ({}, {}, {})
    bucket.sound()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=400), st.integers(0, 300))
def test_garbage_proves_nothing(tmp_path: Path, garbage: bytes, at: int) -> None:
    path, xorb = tmp_path / "body", made(b"abc" * 40, b"d" * 90)
    path.write_bytes(xorb.body[:at] + garbage + xorb.body[at + len(garbage) :])
    try:
        assert prove_file(str(path), xorb.hash).body_size == len(xorb.body)
    except BadXet:
        pass
