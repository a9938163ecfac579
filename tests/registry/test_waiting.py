"""Pushes and commits whose LFS objects arrived and are not proven yet: they wait, and pass or fail with the proof."""

from __future__ import annotations

import random
import threading
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa

from lfs.host import Upload
from lfs.pointer import Pointer, canonical
from registry.access import Actor
from registry.awaiting import Awaiting
from registry.db import Database
from registry.errors import NotAllowed, QuotaExceeded, StillChecked
from registry.git.receive_pack import Command, Push
from registry.git.snapshot import ZERO
from registry.receive import Origin, Outcome, Update
from registry.routes.judging import Judging, Pusher
from registry.tables.identity import namespaces
from registry.uploads import Standing
from tests.registry import people
from tests.registry.gate import MAIN, Gate

OID, OTHER = "a" * 64, "b" * 64
ANN = Actor(1, "ann", 1, None, "write")
SIDE = b"refs/heads/side"


@pytest.fixture
def gate(database: Database, tmp_path: Path) -> Iterator[Gate]:
    """A gate with one repo, still without commits."""
    made = Gate(database, tmp_path)
    yield made
    made.heavy.close()


def _arrived(gate: Gate, oid: str = OID, size: int = 7) -> Upload:
    upload = gate.linked.begin(1, oid, size, "multipart")
    gate.linked.uploads.arrive(upload.id, f"lfs/{oid}.{upload.id}")
    return upload


def _commit(gate: Gate, *oids: str) -> str:
    return gate.commit({f"{oid[0]}.bin": canonical(Pointer(oid, 7)) for oid in oids})


def _accept(gate: Gate, sha: str, pack: Path, *, patient: bool = True, ref: bytes = MAIN) -> Outcome:
    return gate.receiver.accept(1, Origin(ANN), [Update(ref, ZERO, sha)], pack, atomic=False, patient=patient)


def test_a_patient_pusher_is_told_what_is_missing_and_comes_again_with_the_same_pack(gate: Gate) -> None:
    upload = _arrived(gate)
    sha = _commit(gate, OID)
    pack = gate.pack([sha])
    outcome = _accept(gate, sha, pack)
    assert outcome.unproven is not None
    assert outcome.unproven.objects == {OID: 7}
    assert gate.targets() == {}
    gate.linked.finish(upload)
    assert _accept(gate, sha, pack).results == {MAIN: None}
    assert gate.targets() == {MAIN: sha}
    assert list(pack.parent.iterdir()) == []


def test_who_is_not_patient_is_asked_to_push_again(gate: Gate) -> None:
    _arrived(gate)
    sha = _commit(gate, OID)
    outcome = _accept(gate, sha, pack := gate.pack([sha]), patient=False)
    reason = "1 uploaded object (7 bytes) is still being checked; push again in a minute"
    assert outcome.results == {MAIN: reason}
    assert isinstance(outcome.error, StillChecked)
    assert outcome.error.retry_after == 60
    assert outcome.unproven is None
    assert not pack.exists()
    assert gate.targets() == {}


@pytest.mark.parametrize("other", ["absent", "failed", "another size"])
def test_nobody_waits_if_something_else_is_missing(gate: Gate, other: str) -> None:
    _arrived(gate)
    if other == "failed":
        gate.linked.uploads.fail(_arrived(gate, OTHER).id, "its bytes hash to something else.")
    elif other == "another size":
        _arrived(gate, OTHER, size=8)
    sha = _commit(gate, OID, OTHER)
    outcome = _accept(gate, sha, gate.pack([sha]))
    assert outcome.unproven is None
    reason = outcome.results[MAIN]
    assert reason is not None
    assert f"{OTHER} (b.bin)" in reason
    assert ("failed its check: its bytes hash to something else." in reason) == (other == "failed")


def test_a_linked_object_is_sound_whatever_became_of_another_upload_of_it(gate: Gate) -> None:
    gate.link(OID, 7)
    gate.linked.uploads.fail(_arrived(gate).id, "bad")
    sha = _commit(gate, OID)
    assert _accept(gate, sha, gate.pack([sha])).results == {MAIN: None}


def test_uploads_to_another_repo_are_not_waited_for(gate: Gate, database: Database) -> None:
    people.add_repo(database, "ann", "two")
    upload = gate.linked.begin(2, OID, 7)
    gate.linked.uploads.arrive(upload.id, "key")
    sha = _commit(gate, OID)
    outcome = _accept(gate, sha, gate.pack([sha]))
    assert outcome.unproven is None
    assert "was not uploaded" in str(outcome.results[MAIN])


def test_nothing_moves_while_something_waits_and_deletions_do_not_move_ahead(gate: Gate) -> None:
    first = gate.commit({"a": b"1"})
    assert gate.push((SIDE, ZERO, first)).results == {SIDE: None}
    upload = _arrived(gate)
    sha = _commit(gate, OID)
    pack = gate.pack([sha])
    updates = [Update(MAIN, ZERO, sha), Update(SIDE, first, ZERO)]

    def accept() -> Outcome:
        return gate.receiver.accept(1, Origin(ANN), updates, pack, atomic=False, patient=True)

    assert accept().unproven is not None
    assert gate.targets() == {SIDE: first}
    gate.linked.finish(upload)
    assert accept().results == {MAIN: None, SIDE: None}
    assert gate.targets() == {MAIN: sha}


def _judging(gate: Gate, workers: int, *, seconds: float = 20.0) -> tuple[Judging, ThreadPoolExecutor]:
    pool = ThreadPoolExecutor(workers)
    awaiting = Awaiting(gate.linked.uploads.unproven, seconds=seconds)
    return Judging(receiver=gate.receiver, workers=pool, awaiting=awaiting), pool


def _answer(
    gate: Gate, judging: Judging, sha: str, *, ref: bytes = MAIN, pusher: Pusher | None = None
) -> Iterator[bytes]:
    push = Push((Command(ZERO, sha, ref),), frozenset({"report-status", "side-band-64k"}))
    pack = gate.pack([sha])
    return judging.answer(push, pusher or Pusher(1, ANN, ""), pack, lambda: pack.unlink(missing_ok=True))


def _quarantine(gate: Gate) -> list[str]:
    return [path.name for path in (gate.folder / "quarantine").iterdir() if path.suffix == ".pack"]


def test_a_push_waits_in_words_and_then_passes(gate: Gate) -> None:
    upload = _arrived(gate)
    judging, pool = _judging(gate, 1)
    answer = _answer(gate, judging, _commit(gate, OID))
    assert b"1 uploaded object (7 bytes) is being checked" in next(answer)
    gate.linked.finish(upload)
    assert b"ok refs/heads/main" in b"".join(answer)
    pool.shutdown()
    assert _quarantine(gate) == []


def test_a_push_whose_upload_fails_is_refused_with_file_and_reason(gate: Gate) -> None:
    upload = _arrived(gate)
    judging, pool = _judging(gate, 1)
    answer = _answer(gate, judging, _commit(gate, OID))
    next(answer)
    gate.linked.uploads.fail(upload.id, "its bytes hash to something else.")
    said = b"".join(answer)
    assert b"ng refs/heads/main LFS object " + OID.encode() + b" (a.bin) failed its check: its bytes hash" in said
    pool.shutdown()
    assert gate.targets() == {}


def test_a_push_that_waits_holds_none_of_the_places_where_pushes_are_judged(gate: Gate) -> None:
    upload = _arrived(gate)
    judging, pool = _judging(gate, 1)
    answer = _answer(gate, judging, _commit(gate, OID))
    next(answer)
    other = b"".join(_answer(gate, judging, gate.commit({"a": b"1"}), ref=SIDE))
    assert b"ok refs/heads/side" in other
    gate.linked.finish(upload)
    assert b"ok refs/heads/main" in b"".join(answer)
    pool.shutdown()


def test_patience_ends_and_nothing_changed(gate: Gate) -> None:
    _arrived(gate)
    judging, pool = _judging(gate, 1, seconds=0.2)
    said = b"".join(_answer(gate, judging, _commit(gate, OID)))
    assert b"ng refs/heads/main 1 uploaded object (7 bytes) is still being checked; push again in a minute" in said
    pool.shutdown()
    assert gate.targets() == {}
    assert _quarantine(gate) == []


def test_who_leaves_while_waiting_has_not_pushed_and_leaves_nothing_behind(gate: Gate) -> None:
    upload = _arrived(gate)
    judging, pool = _judging(gate, 1)
    answer = _answer(gate, judging, _commit(gate, OID))
    next(answer)
    answer.close()  # type: ignore[attr-defined]  # a generator
    gate.linked.finish(upload)
    pool.shutdown()
    assert gate.targets() == {}
    assert _quarantine(gate) == []


def test_a_client_without_side_band_is_waited_for_in_short_steps(gate: Gate) -> None:
    """Nothing can be told it, so its thread slept through the whole wait, also when it had left."""
    upload = _arrived(gate)
    judging, pool = _judging(gate, 1)
    sha = _commit(gate, OID)
    push = Push((Command(ZERO, sha, MAIN),), frozenset({"report-status"}))
    answer = judging.answer(push, Pusher(1, ANN, ""), pack := gate.pack([sha]), lambda: pack.unlink(missing_ok=True))
    assert next(answer) == b""
    gate.linked.finish(upload)
    assert b"ok refs/heads/main" in b"".join(answer)
    pool.shutdown()


def test_a_right_that_was_taken_away_during_the_wait_counts(gate: Gate) -> None:
    upload = _arrived(gate)
    judging, pool = _judging(gate, 1)

    def enter() -> None:
        raise NotAllowed("ann may no longer write here.")

    answer = _answer(gate, judging, _commit(gate, OID), pusher=Pusher(1, ANN, "", enter))
    next(answer)
    gate.linked.finish(upload)
    assert b"ng refs/heads/main ann may no longer write here." in b"".join(answer)
    pool.shutdown()
    assert gate.targets() == {}


def test_a_pack_that_does_not_fit_into_the_quota_is_refused_with_the_numbers(gate: Gate, database: Database) -> None:
    _allow(database, 10_000)
    gate.linked.begin(1, OID, 9_000)
    sha = gate.commit({"noise": random.Random(1).randbytes(5_000)})
    outcome = gate.push((MAIN, ZERO, sha))
    assert isinstance(outcome.error, QuotaExceeded)
    assert "ann holds 0 bytes and expects uploads of 8.8 KiB" in str(outcome.results[MAIN])
    assert gate.targets() == {}
    _allow(database, 20_000)
    assert gate.push((MAIN, ZERO, sha)).results == {MAIN: None}
    assert gate.linked.quotas.usage(1).used >= 5_000


def test_pushes_at_once_do_not_pass_a_quota_together(gate: Gate, database: Database) -> None:
    _allow(database, 14_000)
    shas = [gate.commit({"noise": random.Random(n).randbytes(5_000)}) for n in range(4)]
    packs = [gate.pack([sha]) for sha in shas]
    start = threading.Barrier(4)

    def push(number: int) -> bool:
        start.wait(timeout=10)
        name = b"refs/heads/%d" % number
        outcome = gate.receiver.accept(1, Origin(ANN), [Update(name, ZERO, shas[number])], packs[number])
        assert outcome.error is None or isinstance(outcome.error, QuotaExceeded), outcome
        return outcome.error is None

    with ThreadPoolExecutor(4) as threads:
        assert sum(threads.map(push, range(4))) == 2
    assert gate.linked.quotas.usage(1).used <= 14_000


def _allow(database: Database, quota: int) -> None:
    with database.write() as connection:
        connection.execute(sa.update(namespaces).where(namespaces.c.id == 1).values(quota=quota))


def test_a_proof_that_ends_while_the_gate_looks_is_seen(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    upload, look = _arrived(gate), gate.linked.uploads.standing

    def overtaken(repo_id: int, oids: Collection[str]) -> dict[str, Standing]:
        gate.linked.finish(upload)
        return look(repo_id, oids)

    monkeypatch.setattr(gate.linked.uploads, "standing", overtaken)
    sha = _commit(gate, OID)
    assert _accept(gate, sha, gate.pack([sha])).results == {MAIN: None}
