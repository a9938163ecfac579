"""An upload that broke off goes on from what the shelf holds, whoever died in between."""

from __future__ import annotations

import hashlib
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lfs.errors import (
    BadRequest,
    Busy,
    DigestMismatch,
    Interrupted,
    ObjectAbsent,
    OffsetConflict,
    QuotaExceeded,
    SizeMismatch,
)
from lfs.grants import Grant
from lfs.host import Host, Opening, Proof, Wanted
from lfs.local import LocalStore
from lfs.store import ObjectStore, Parts, lfs_key
from tests.contracts.memory_store import MemoryStore
from tests.lfs.memory_host import MemoryHost
from tests.lfs.sender import MIB, Client, pieces
from tests.services.s3 import S3Endpoint, make_bucket, moto, open_bucket

# What a bucket takes at least.
PART = 5 * MIB
BODY = random.Random(5).randbytes(2 * PART + 12345)
OID = hashlib.sha256(BODY).hexdigest()


@pytest.fixture(scope="module")
def endpoint() -> Iterator[S3Endpoint]:
    with moto() as found:
        make_bucket(found, "shelf")
        yield found


@pytest.fixture(params=["memory", "local", pytest.param("moto", marks=[pytest.mark.s3, pytest.mark.xdist_group("s3")])])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    if request.param == "memory":
        return MemoryStore()
    if request.param == "local":
        return LocalStore(tmp_path / "shelf", min_free=0, fsync=False)
    return open_bucket(request.getfixturevalue("endpoint"), "shelf", prefix=uuid4().hex)


def sender(host: MemoryHost, store: ObjectStore) -> Client:
    """Return a client that sends `BODY`."""
    return Client(host, store, BODY, OID, PART)


def test_an_upload_in_one_go_is_linked_at_once(store: ObjectStore) -> None:
    ann = sender(MemoryHost(), store)
    assert ann.offset() == 0
    assert ann.send(0) == len(BODY)
    assert (ann.state, ann.told) == ("done", 0)
    assert ann.linked() == BODY
    assert ann.offset() == len(BODY)


def test_an_upload_that_was_cut_goes_on_after_its_last_whole_part(store: ObjectStore) -> None:
    ann = sender(MemoryHost(), store)
    with pytest.raises(Interrupted):
        ann.send(0, PART + 1000)
    ann.reopen()
    assert ann.offset() == PART
    assert ann.send(PART) == len(BODY)
    assert (ann.state, ann.told) == ("arrived", 1)
    # A client that did not hear of it asks for a batch again, and sends nothing twice.
    ann.reopen()
    assert (ann.state, ann.offset()) == ("arrived", len(BODY))
    ann.prove()
    assert ann.linked() == BODY


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_cuts_anywhere_cost_less_than_a_part_each(data: st.DataObject) -> None:
    part, size = data.draw(st.integers(1, 40)), data.draw(st.integers(0, 200))
    body = random.Random(size).randbytes(size)
    cuts = data.draw(st.lists(st.integers(0, size), max_size=6))
    with tempfile.TemporaryDirectory() as folder:
        shelf = data.draw(st.sampled_from([MemoryStore(), LocalStore(Path(folder), min_free=0, fsync=False)]))
        ann = Client(MemoryHost(), shelf, body, hashlib.sha256(body).hexdigest(), part)
        for cut in cuts:
            before = ann.offset()
            if before < cut:
                with pytest.raises(Interrupted):
                    ann.patch(before, _single(body[before:cut]))
                # The last part counts only when the body ended where it should.
                whole = cut // part * part if cut < size else (size - 1) // part * part
                assert ann.offset() == max(before, whole)
            ann.reopen()
        if ann.offset() < size:
            assert ann.send(ann.offset()) == size
        ann.prove()
        assert ann.linked() == body


def _single(body: bytes) -> Iterator[bytes]:
    yield from (body[at : at + 1] for at in range(len(body)))
    raise Interrupted("The connection closed.")


def test_wrong_bytes_in_one_go_are_dropped_and_the_upload_begins_anew(store: ObjectStore) -> None:
    ann = sender(MemoryHost(), store)
    with pytest.raises(DigestMismatch):
        ann.send(0, body=bytes(len(BODY)))
    assert (ann.offset(), ann.state, list(store.walk())) == (0, "open", [])
    assert ann.send(0) == len(BODY)
    assert ann.linked() == BODY


def test_wrong_bytes_after_a_cut_are_found_when_they_are_read_back(store: ObjectStore) -> None:
    ann = sender(MemoryHost(), store)
    with pytest.raises(Interrupted):
        ann.send(0, PART, body=bytes(len(BODY)))
    assert ann.send(ann.offset()) == len(BODY)
    ann.prove()
    assert (ann.state, ann.host.links, list(store.walk())) == ("failed", set(), [])
    with pytest.raises(ObjectAbsent, match="hash to"):
        ann.offset()
    ann.reopen()
    assert ann.send(ann.offset()) == len(BODY)
    assert ann.linked() == BODY


def test_more_than_was_announced_is_refused_and_what_was_whole_stays(store: ObjectStore) -> None:
    ann = sender(MemoryHost(), store)
    with pytest.raises(SizeMismatch):
        ann.patch(0, pieces(BODY + b"x", broken=False))
    assert ann.offset() == 2 * PART
    assert ann.send(2 * PART) == len(BODY)
    ann.prove()
    assert ann.linked() == BODY


def test_a_body_may_end_after_any_whole_part() -> None:
    ann = Client(MemoryHost(), MemoryStore(), BODY, OID, MIB)
    assert ann.patch(0, pieces(BODY[: 3 * MIB], broken=False)) == 3 * MIB
    assert ann.patch(3 * MIB, pieces(BODY[3 * MIB : 5 * MIB + 9], broken=False)) == 5 * MIB
    with pytest.raises(BadRequest, match="at least 1048576 bytes"):
        ann.patch(5 * MIB, pieces(b"less than a part", broken=False))
    assert ann.send(5 * MIB) == len(BODY)


@pytest.mark.parametrize("offset", [1, PART - 1, PART + 1, 2 * PART, len(BODY), 1 << 62])
def test_another_offset_than_ours_is_refused(offset: int) -> None:
    ann = sender(MemoryHost(), MemoryStore())
    with pytest.raises(Interrupted):
        ann.send(0, PART)
    with pytest.raises(OffsetConflict, match=f"holds {PART} bytes"):
        ann.patch(offset, iter([BODY[PART:]]))
    assert ann.offset() == PART


def test_an_object_of_one_part_comes_whole_or_not_at_all(store: ObjectStore) -> None:
    body = BODY[:1000]
    ann = Client(MemoryHost(), store, body, hashlib.sha256(body).hexdigest(), PART)
    with pytest.raises(Interrupted):
        ann.send(0, 999)
    with pytest.raises(DigestMismatch):
        ann.send(0, body=bytes(1000))
    for wrong in (body[:999], body + b"x"):
        with pytest.raises(SizeMismatch):
            ann.patch(0, pieces(wrong, broken=False))
    assert (ann.offset(), list(store.walk())) == (0, [])
    assert ann.send(0) == 1000
    assert (ann.state, ann.linked()) == ("done", body)


def test_an_object_of_one_part_that_two_send_at_once_is_linked_by_both() -> None:
    ann = Client(MemoryHost(), MemoryStore(), BODY, OID, len(BODY))

    def second() -> Iterator[bytes]:
        yield BODY[:100]
        assert ann.send(0) == len(BODY)
        yield BODY[100:]

    assert ann.patch(0, second()) == len(BODY)
    assert ann.linked() == BODY


def test_an_object_of_no_bytes_is_linked_when_its_offset_is_asked_for(store: ObjectStore) -> None:
    ann = Client(MemoryHost(), store, b"", hashlib.sha256().hexdigest(), PART)
    assert ann.offset() == 0
    assert ann.linked() == b""
    assert ann.offset() == 0


def test_no_bytes_are_no_proof_of_another_object(store: ObjectStore) -> None:
    ann = Client(MemoryHost(), store, b"", "ab" * 32, PART)
    with pytest.raises(DigestMismatch):
        ann.offset()
    assert (ann.host.links, list(store.walk())) == (set(), [])


def test_two_writers_are_never_at_one_upload() -> None:
    ann = sender(MemoryHost(), MemoryStore())

    def second() -> Iterator[bytes]:
        yield BODY[:PART]
        with pytest.raises(Busy) as refused:
            ann.send(0)
        assert refused.value.retry_after == 5
        assert ann.offset() == PART
        yield BODY[PART:]

    assert ann.patch(0, second()) == len(BODY)
    assert ann.linked() == BODY


def test_a_writer_that_died_keeps_others_out_for_a_lease_and_no_longer() -> None:
    now = [0.0]
    ann = sender(MemoryHost(clock=lambda: now[0]), MemoryStore())
    ann.tus.lease(ann.grant)
    with pytest.raises(Busy):
        ann.send(0)
    now[0] = 30.0
    assert ann.send(0) == len(BODY)


def test_a_writer_that_overslept_its_lease_proves_nothing() -> None:
    now = [0.0]
    ann = sender(MemoryHost(clock=lambda: now[0]), MemoryStore())

    def slow() -> Iterator[bytes]:
        yield BODY[:PART]
        now[0] = 31.0
        yield BODY[PART:]

    with pytest.raises(Busy):
        ann.patch(0, slow())
    assert ann.offset() == PART


def test_a_lease_is_prolonged_while_it_lasts_and_not_afterwards() -> None:
    now = [0.0]
    ann = sender(MemoryHost(clock=lambda: now[0]), MemoryStore())
    lease = ann.tus.lease(ann.grant)
    for moment in (20.0, 40.0, 60.0):
        now[0] = moment
        lease.prolong()
        lease.check()
    now[0] = 95.0
    lease.prolong()
    with pytest.raises(Busy):
        lease.check()


class Died(Exception):
    """The process ended here."""


class Dying(MemoryHost):
    """A host whose process dies before it can say that bytes are linked, or that they arrived."""

    def finish(self, upload_id: str, key: str, proof: Proof) -> str:
        raise Died

    def arrive(self, upload_id: str, key: str) -> None:
        raise Died


class NeverJoins:
    """A shelf whose process dies when it should join parts."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def parts(self, key: str, part_size: int, session: str = "") -> Parts:
        parts = self._store.parts(key, part_size, session)
        parts.finish = self._die  # type: ignore[method-assign]
        return parts

    def stat(self, key: str):  # type: ignore[no-untyped-def]
        return self._store.stat(key)

    def _die(self, parts: object) -> None:
        raise Died


@pytest.mark.parametrize("begins", [0, PART])
@pytest.mark.parametrize("dies", ["before the parts are joined", "after it"])
def test_a_server_that_dies_at_the_end_leaves_work_that_the_next_one_finishes(
    store: ObjectStore, begins: int, dies: str
) -> None:
    now = [0.0]
    ann = sender(MemoryHost(clock=lambda: now[0]), store)
    if begins:
        with pytest.raises(Interrupted):
            ann.send(0, begins)
    healthy_host, healthy_store = ann.host, ann.store
    if dies == "after it":
        ann.host = Dying(uploads=ann.host.uploads, leases=ann.host.leases, clock=ann.host.clock)
    else:
        ann.store = NeverJoins(store)  # type: ignore[assignment]
    tus = ann.tus
    lease = tus.lease(ann.grant)
    with pytest.raises(Died):
        tus.take(ann.grant, begins, pieces(BODY[begins:], broken=False), lease)
    ann.host, ann.store = healthy_host, healthy_store
    # The dead server's lease has to lapse.
    with pytest.raises(Busy):
        ann.offset()
    now[0] = 31.0
    ann.reopen()
    assert ann.offset() == len(BODY)
    assert (ann.state, ann.told) == ("arrived", 1)
    ann.prove()
    assert ann.linked() == BODY


@pytest.mark.parametrize("body", [b"", BODY[:1000]])
def test_a_server_that_dies_before_it_links_an_object_of_one_part_has_kept_it(store: ObjectStore, body: bytes) -> None:
    ann = Client(MemoryHost(), store, body, hashlib.sha256(body).hexdigest(), PART)
    healthy, ann.host = ann.host, Dying(uploads=ann.host.uploads)
    with pytest.raises(Died):
        ann.send(0) if body else ann.offset()
    ann.host = healthy
    assert (ann.offset(), ann.state) == (len(body), "arrived")
    ann.prove()
    assert ann.linked() == body


def test_an_upload_that_the_shelf_dropped_begins_anew(store: ObjectStore) -> None:
    ann = sender(MemoryHost(), store)
    with pytest.raises(Interrupted):
        ann.send(0, PART)
    store.sweep(0)
    assert ann.offset() == 0
    assert ann.send(0) == len(BODY)
    assert ann.linked() == BODY


def test_an_object_that_another_upload_brought_meanwhile_is_kept_once() -> None:
    store = MemoryStore()
    ann = sender(MemoryHost(), store)
    bob = sender(ann.host, store)
    bob.grant = Grant("tus", 2, OID, len(BODY), 0, 2, _opened(ann.host, 2).id)
    ann.send(0)
    bob.send(0)
    assert ann.host.links == {(1, OID), (2, OID)}
    assert list(store.objects) == [lfs_key(OID, ann.grant.upload)]


def test_a_repo_that_is_gone_takes_nothing() -> None:
    ann = sender(MemoryHost(), MemoryStore())
    ann.host.repos.clear()
    with pytest.raises(ObjectAbsent):
        ann.offset()
    with pytest.raises(ObjectAbsent):
        ann.send(0)


def test_a_quota_that_filled_meanwhile_links_nothing() -> None:
    class Full(MemoryHost):
        def finish(self, upload_id: str, key: str, proof: Proof) -> str:
            raise QuotaExceeded("The repo is full.")

    ann = sender(Full(), MemoryStore())
    with pytest.raises(QuotaExceeded):
        ann.send(0)
    assert ann.host.links == set()


def _opened(host: Host, actor: int):  # type: ignore[no-untyped-def]
    return host.begin(2, actor, [Opening(Wanted(OID, len(BODY)), "tus", PART)])[OID]
