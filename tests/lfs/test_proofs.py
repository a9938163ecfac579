"""What arrived is read back and hashed before anybody is shown it, by one process or by the next."""

from __future__ import annotations

import hashlib
import random
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace

import pytest

from lfs.errors import Damaged, ObjectAbsent, QuotaExceeded, Unavailable
from lfs.host import Held, Opening, Proof, Upload, UploadMode, Wanted
from lfs.proofs import Prover
from lfs.reading_back import LEASE
from lfs.store import Reader, Span, Stat, file_key, lfs_key, staging_key
from tests.contracts.memory_store import MemoryStore
from tests.lfs import proving
from tests.lfs.memory_host import MemoryHost
from tests.lfs.ways import until

BODY = random.Random(8).randbytes(3 << 20)
OID = hashlib.sha256(BODY).hexdigest()


def arrived(host: MemoryHost, store: MemoryStore, mode: UploadMode = "multipart", body: bytes = BODY) -> Upload:
    """Make an upload of `BODY`, each by another account, that waits for its proof, with these bytes in the store."""
    upload = host.begin(1, len(host.uploads) + 1, [Opening(Wanted(OID, len(BODY)), mode, 5 << 20)])[OID]
    key = staging_key(upload.id) if mode == "staging" else lfs_key(OID, upload.id)
    store.objects[key] = body
    host.arrive(upload.id, key)
    return host.uploads[upload.id]


def prove(host: MemoryHost, store: MemoryStore, upload: Upload, **more: Callable[[], float]) -> Upload:
    """Prove one upload as a worker does, and return its row."""
    assert host.hold(upload.id, "me", LEASE)
    proving.prove(upload, "me", host=host, store=store, **more)
    return host.uploads[upload.id]


@pytest.fixture
def running() -> Iterator[Callable[..., Prover]]:
    """Start provers that end with the test."""
    provers = []

    def start(host: MemoryHost, store: MemoryStore, every: float = 30.0) -> Prover:
        provers.append(Prover(host=host, store=store, every=every))
        provers[-1].start()
        return provers[-1]

    yield start
    for prover in provers:
        prover.close()


@pytest.mark.parametrize("mode", ["multipart", "staging", "tus"])
def test_the_announced_bytes_are_linked(mode: UploadMode) -> None:
    host, store = MemoryHost(), MemoryStore()
    upload = arrived(host, store, mode)
    key = lfs_key(OID, upload.id)
    assert prove(host, store, upload).state == "done"
    assert host.objects[OID] == Held(len(BODY), key, "stored", linked=False)
    assert host.links == {(1, OID)}
    assert store.objects == {key: BODY}


@pytest.mark.parametrize("mode", ["multipart", "staging"])
@pytest.mark.parametrize(
    "body", [bytes(len(BODY)), BODY[:-1], BODY + b"x", b""], ids=["other", "short", "long", "none"]
)
def test_other_bytes_fail_with_the_reason_and_go(mode: UploadMode, body: bytes) -> None:
    host, store = MemoryHost(), MemoryStore()
    found = prove(host, store, arrived(host, store, mode, body))
    assert found.state == "failed"
    assert "push the file again" in found.reason
    assert (host.links, host.objects, store.objects) == (set(), {}, {})


def test_bytes_that_are_gone_fail() -> None:
    host, store = MemoryHost(), MemoryStore()
    for mode in ("multipart", "staging"):
        upload = arrived(host, store, mode)  # type: ignore[arg-type]  # a mode of the line above
        store.objects.clear()
        found = prove(host, store, upload)
        assert (found.state, found.reason) == ("failed", "The bytes that came are gone; push the file again.")


def test_a_file_of_chunks_is_read_under_its_own_name_which_nobody_deletes() -> None:
    class Files(MemoryStore):
        def delete(self, key: str) -> None:
            raise AssertionError(f"{key} was to be deleted")

    for body, state in ((BODY, "done"), (bytes(len(BODY)), "failed")):
        host, store = MemoryHost(), Files()
        upload = host.begin(1, 1, [Opening(Wanted(OID, len(BODY)), "xet")])[OID]
        store.objects[file_key(OID)] = body
        host.arrive(upload.id, file_key(OID))
        assert prove(host, store, host.uploads[upload.id]).state == state
    assert store.objects


def test_a_quota_that_ran_out_meanwhile_fails() -> None:
    class Full(MemoryHost):
        def finish(self, upload_id: str, key: str, proof: Proof) -> str:
            raise QuotaExceeded("The repo is full; delete something.")

    host, store = Full(), MemoryStore()
    found = prove(host, store, arrived(host, store))
    assert (found.state, found.reason, store.objects) == ("failed", "The repo is full; delete something.", {})


def test_a_repo_that_is_gone_costs_no_bytes_that_others_may_have() -> None:
    host, store = MemoryHost(), MemoryStore()
    upload = arrived(host, store)
    host.hold(upload.id, "me", LEASE)
    # A prover whose lease had lapsed was quicker; what it linked is another repo's too by now.
    host.finish(upload.id, lfs_key(OID, upload.id), Proof(OID, len(BODY), "read-back"))
    host.links.add((2, OID))
    host.repos.pop("org/model")
    with pytest.raises(ObjectAbsent):
        proving.prove(upload, "me", host=host, store=store)
    assert store.objects == {lfs_key(OID, upload.id): BODY}


def test_a_prover_that_reads_amiss_deletes_nothing_that_another_proved_at_that_moment() -> None:
    class Late(MemoryHost):
        def fail(self, upload_id: str, reason: str) -> None:
            self.finish(upload_id, lfs_key(OID, upload_id), Proof(OID, len(BODY), "read-back"))
            super().fail(upload_id, reason)

    class Amiss(MemoryStore):
        def open(self, key: str, span: Span | None = None) -> Reader:
            raise Damaged("The store ended early.")

    host, store = Late(), Amiss()
    upload = arrived(host, store)
    assert prove(host, store, upload).state == "done"
    assert store.objects == {lfs_key(OID, upload.id): BODY}


def test_who_proves_what_another_has_refused_links_nothing() -> None:
    host, store = MemoryHost(), MemoryStore()
    upload = arrived(host, store)
    host.hold(upload.id, "me", LEASE)
    host.fail(upload.id, "The bytes are gone.")
    with pytest.raises(ObjectAbsent):
        proving.prove(upload, "me", host=host, store=store)
    assert host.links == set()


def test_bytes_that_the_store_had_already_are_dropped() -> None:
    host, store = MemoryHost(), MemoryStore()
    first, second = arrived(host, store), arrived(host, store, "staging")
    prove(host, store, first)
    assert prove(host, store, second).state == "done"
    assert store.objects == {lfs_key(OID, first.id): BODY}


def test_a_copy_that_a_crash_left_is_gone_on_with() -> None:
    host, store = MemoryHost(), MemoryStore()
    upload = arrived(host, store, "staging")
    # The copy was made and the crash came before, or after, its source was dropped.
    store.copy(staging_key(upload.id), lfs_key(OID, upload.id))
    store.delete(staging_key(upload.id))
    assert prove(host, store, upload).state == "done"


def test_the_url_of_a_staging_upload_changes_nothing_any_more() -> None:
    class Replayed(MemoryStore):
        def copy(self, source: str, key: str) -> Stat:
            found = super().copy(source, key)
            self.objects[source] = bytes(len(BODY))
            return found

    host, store = MemoryHost(), Replayed()
    upload = arrived(host, store, "staging")
    assert prove(host, store, upload).state == "done"
    assert store.objects == {lfs_key(OID, upload.id): BODY}


class Slow(MemoryStore):
    """A shelf whose every piece takes `seconds` of a clock that only it moves."""

    def __init__(self, seconds: float = 0.0) -> None:
        super().__init__()
        self.seconds, self.now, self.opened = seconds, 0.0, 0
        self.gate: threading.Event | None = None

    def open(self, key: str, span: Span | None = None) -> Reader:
        self.opened += 1
        found, store = super().open(key, span), self

        class Slowly(type(found)):  # type: ignore[misc]  # the reader's own class is private to the shelf
            def _piece(self, limit: int) -> bytes:
                store.now += store.seconds
                if store.gate is not None:
                    store.gate.wait(20)
                return bytes(super()._piece(limit))

        found.__class__ = Slowly
        return found


def test_a_lease_is_prolonged_while_it_is_used() -> None:
    store = Slow(LEASE / 2)
    host = MemoryHost(clock=lambda: store.now)
    upload = arrived(host, store)
    assert prove(host, store, upload, clock=lambda: store.now).state == "done"
    assert store.now > LEASE


def test_who_lost_the_lease_neither_fails_nor_deletes() -> None:
    store = Slow(LEASE / 2)
    host = MemoryHost(clock=lambda: store.now)
    for body in (BODY, bytes(len(BODY))):
        upload = arrived(host, store, body=body)
        host.hold(upload.id, "another", 100 * LEASE)
        proving.prove(upload, "me", host=host, store=store, clock=lambda: store.now)
        assert host.uploads[upload.id].state == "arrived"
        assert store.objects[lfs_key(OID, upload.id)] == body


def test_what_another_process_proved_meanwhile_is_not_failed() -> None:
    host, store = MemoryHost(), MemoryStore()
    upload = arrived(host, store)
    prove(host, store, upload)
    key = lfs_key(OID, upload.id)
    # Read as arrived a moment before; what is read now are other bytes, or none.
    store.objects[key] = b""
    assert prove(host, store, replace(upload, state="arrived")).state == "done"
    assert key in store.objects


def test_work_is_found_when_it_is_told_of_and_also_when_not(running: Callable[..., Prover]) -> None:
    host, store = MemoryHost(), MemoryStore()
    prover = running(host, store)
    upload = arrived(host, store)
    prover.tell()
    until(lambda: host.uploads[upload.id].state == "done")
    running(host, store, 0.05)
    left = arrived(host, store)
    until(lambda: host.uploads[left.id].state == "done")
    assert host.leases == {}


def test_many_uploads_are_all_proven_each_once(running: Callable[..., Prover]) -> None:
    host, store = MemoryHost(), Slow()
    uploads = [arrived(host, store) for _ in range(12)]
    for _ in range(3):
        running(host, store, 0.05).tell()
    until(lambda: all(host.uploads[upload.id].state == "done" for upload in uploads))
    assert store.opened == 12
    until(lambda: len(store.objects) == 1)


def test_a_store_that_is_away_costs_time_and_nothing_else(running: Callable[..., Prover]) -> None:
    class Away(MemoryStore):
        away = True

        def open(self, key: str, span: Span | None = None) -> Reader:
            if self.away:
                raise Unavailable("The bucket does not answer.")
            return super().open(key, span)

    moved = [0.0]
    host, store = MemoryHost(clock=lambda: moved[0]), Away()
    upload = arrived(host, store)
    running(host, store, 0.02).tell()
    until(lambda: host.leases and host.leases[upload.id].until == 10.0)
    # One that cannot be read keeps nobody from their turn.
    store.away = False
    other = arrived(host, store)
    until(lambda: host.uploads[other.id].state == "done")
    assert host.uploads[upload.id].state == "arrived"
    moved[0] = 11.0
    until(lambda: host.uploads[upload.id].state == "done")


def test_what_a_dead_process_held_is_taken_on_when_its_lease_lapses(running: Callable[..., Prover]) -> None:
    class Watched(MemoryHost):
        asked = 0

        def arrived(
            self, holder: str, seconds: float, limit: int, *, largest: int | None = None, besides: Collection[int] = ()
        ) -> Sequence[Upload]:
            self.asked += 1
            return super().arrived(holder, seconds, limit, largest=largest, besides=besides)

    moved = [0.0]
    host, store = Watched(clock=lambda: moved[0]), MemoryStore()
    upload = arrived(host, store)
    assert host.arrived("dead", LEASE, 1)
    running(host, store, 0.02)
    until(lambda: host.asked > 5)
    assert host.uploads[upload.id].state == "arrived"
    moved[0] = LEASE
    until(lambda: host.uploads[upload.id].state == "done")


def test_a_host_that_fails_does_not_end_the_prover(running: Callable[..., Prover]) -> None:
    class Broken(MemoryHost):
        broken = 3

        def finish(self, upload_id: str, key: str, proof: Proof) -> str:
            self.broken -= 1
            if self.broken > 0:
                raise RuntimeError("the database is away")
            return super().finish(upload_id, key, proof)

        def hold(self, upload_id: str, holder: str, seconds: float) -> bool:
            if self.broken > 0:
                self.release(upload_id, holder)
                raise RuntimeError("the database is still away")
            return super().hold(upload_id, holder, seconds)

    host, store = Broken(), MemoryStore()
    upload = arrived(host, store)
    running(host, store, 0.02)
    until(lambda: host.uploads[upload.id].state == "done")


def test_a_prover_ends_in_the_midst_of_an_object(running: Callable[..., Prover]) -> None:
    host, store = MemoryHost(), Slow()
    store.gate = threading.Event()
    upload = arrived(host, store)
    prover = running(host, store)
    prover.tell()
    until(lambda: store.opened)
    closing = threading.Thread(target=prover.close)
    closing.start()
    store.gate.set()
    closing.join(10)
    assert not closing.is_alive()
    assert host.uploads[upload.id].state == "arrived"
    assert host.leases == {}
    assert prove(host, store, upload).state == "done"


def test_provers_that_do_not_end_are_waited_for_together() -> None:
    """Each was given its seconds after the other, and a server with many of them did not stop in time."""

    class Stuck(MemoryStore):
        def open(self, key: str, span: Span | None = None) -> Reader:
            inside.release()
            free.wait(20)
            return super().open(key, span)

    host, store = MemoryHost(), Stuck()
    inside, free = threading.Semaphore(0), threading.Event()
    for _ in range(4):
        arrived(host, store)
    prover = Prover(host=host, store=store, workers=4)
    prover.start()
    for _ in range(4):
        assert inside.acquire(timeout=10)
    began = time.monotonic()
    prover.close(patience=0.5)
    assert time.monotonic() - began < 1.5
    free.set()
    prover.close()
