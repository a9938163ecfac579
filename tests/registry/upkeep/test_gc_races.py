"""Whatever happens while the collection works, no ref ends without its objects, with no grace at all to help."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from lfs.errors import LfsError
from lfs.store import lfs_key
from registry.db import Database, lock_repo
from registry.errors import Busy, ObjectAbsent, RegistryError
from registry.git.snapshot import ZERO
from registry.tables.objects import lfs_uploads
from registry.upkeep.gc import Scope
from tests.registry.gate import MAIN
from tests.registry.upkeep.collecting import NO_GRACE, Collected, collected, oid_of, pointer

DATA = b"weights" * 300


@pytest.fixture
def house(database: Database, tmp_path: Path) -> Iterator[Collected]:
    made = collected(database, tmp_path)
    made.graces = NO_GRACE
    yield made
    made.gate.heavy.close()


def runs(house: Collected, count: int) -> Callable[[], None]:
    def run() -> None:
        for _ in range(count):
            house.run()

    return run


@pytest.mark.parametrize("count", range(5))
def test_a_batch_that_said_stored_then_collections_then_the_commit(house: Collected, count: int) -> None:
    """The commit is refused cleanly or kept; after one more upload it stands."""
    house.upload(DATA)
    runs(house, count)()
    sha = house.gate.commit({"w.bin": pointer(DATA)})
    error = house.gate.push((MAIN, ZERO, sha)).error
    if count == 0:
        assert error is None
    else:
        assert isinstance(error, ObjectAbsent)
        house.upload(DATA)
        assert house.gate.push((MAIN, ZERO, sha)).error is None
    runs(house, 3)()
    assert house.findings() == []


@pytest.mark.parametrize("before", range(4))
@pytest.mark.parametrize("at", ["open", "looked", "put"])
def test_an_upload_against_collections_at_each_edge(house: Collected, before: int, at: str) -> None:
    """An object in any state is uploaded, and collections run between any two steps: the link has its bytes."""
    house.upload(DATA)
    runs(house, before)()
    upload = house.begin(DATA)
    if at == "open":
        runs(house, 3)()
    known = house.gate.links.look(1, [upload.oid]).get(upload.oid)
    key = lfs_key(upload.oid, "" if known is None or known.state == "stored" else upload.id)
    if at == "looked":
        runs(house, 3)()
    house.store.put(key, DATA, len(DATA), upload.oid)
    if at == "put":
        runs(house, 3)()
    house.finish(upload, key)
    assert house.linked() == {upload.oid}
    assert house.findings() == []


def test_an_upload_that_is_done_cannot_be_used_again_after_its_link_went(house: Collected) -> None:
    house.graces = replace(NO_GRACE, row=timedelta(days=1))
    upload = house.begin(DATA)
    key = house.put(upload, DATA)
    house.finish(upload, key)
    runs(house, 1)()
    house.store.put(key, DATA, len(DATA), upload.oid)
    with pytest.raises(ObjectAbsent, match="closed"):
        house.finish(upload, key)
    runs(house, 3)()
    assert house.findings() == []
    assert house.keys() == []


def test_an_upload_that_is_closed_while_its_proof_waits_makes_no_link(house: Collected) -> None:
    """The proof has read the upload's row and waits for the repo, whose lock the collection holds."""
    upload = house.begin(DATA)
    key = house.put(upload, DATA)
    met: list[BaseException] = []

    def finish() -> None:
        try:
            house.finish(upload, key)
        except ObjectAbsent as error:
            met.append(error)

    prover = threading.Thread(target=finish)
    with house.database.write() as connection:
        lock_repo(connection, 1)
        prover.start()
        while not house.database.sqlite and not waits_for_lock(house.database):
            pass
        connection.execute(sa.update(lfs_uploads).values(state="failed", reason="It expired."))
    prover.join()
    assert met
    assert house.linked() == set()


def waits_for_lock(database: Database) -> bool:
    with database.look() as connection:
        waiting = sa.text(
            "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        return connection.execute(waiting).first() is not None


def test_a_push_that_was_judged_before_the_unlinking_is_judged_again(house: Collected) -> None:
    house.upload(DATA)
    sha = house.gate.commit({"w.bin": pointer(DATA)})
    judge = house.gate.receiver._policy.judge
    judged: list[object] = []

    def late(*arguments: Any) -> Any:
        found = judge(*arguments)
        if not judged:
            house.run()
        judged.append(found)
        return found

    house.gate.receiver._policy.judge = late  # type: ignore[method-assign]
    assert isinstance(house.gate.push((MAIN, ZERO, sha)).error, ObjectAbsent)
    assert len(judged) == 2
    assert house.findings() == []


def test_a_push_upon_a_branch_that_goes_meanwhile_is_judged_again(house: Collected) -> None:
    """What the push builds upon was reachable when it was judged: only the epoch tells that it was collected since."""
    house.push({"n.bin": b"another"})
    side = house.push({"w.bin": DATA}, ref=b"refs/heads/side")
    sha = house.gate.commit({"plain": b"1"}, on=side)
    judge, judged = house.gate.receiver._policy.judge, []

    def late(*arguments: Any) -> Any:
        found = judge(*arguments)
        judged.append(found)
        if len(judged) == 1:
            assert house.gate.push((b"refs/heads/side", side, ZERO)).error is None
            house.run()
        return found

    house.gate.receiver._policy.judge = late  # type: ignore[method-assign]
    assert isinstance(house.gate.push((b"refs/heads/new", ZERO, sha)).error, ObjectAbsent)
    assert house.linked() == {oid_of(b"another")}
    assert house.findings() == []


def test_a_commit_between_plan_and_unlinking_keeps_its_objects(house: Collected) -> None:
    house.upload(DATA)
    gc, moment = house.gc(), house.clock()
    (step,) = gc._unlink.steps(moment, allow=True)
    sha = house.gate.commit({"w.bin": pointer(DATA)})
    assert house.gate.push((MAIN, ZERO, sha)).error is None
    assert {line.act for line in step.do(gc.runs.begin(moment, {}))} == {"skip"}
    assert house.linked() == {oid_of(DATA)}
    assert house.findings() == []


@pytest.mark.timeout(120)
def test_pushes_uploads_and_collections_at_the_same_time_lose_nothing(house: Collected) -> None:
    """Threads upload and push a handful of objects over and over while collections without grace run."""
    numbers, stop = itertools.count(), threading.Event()
    failed: list[BaseException] = []
    landed, lock = [], threading.Lock()

    def collect() -> None:
        while not stop.is_set():
            try:
                list(house.gc().run(Scope(yes=True)))
            except Busy:
                continue
            except BaseException as error:
                failed.append(error)
                return

    def work(name: int) -> None:
        ref = b"refs/heads/b%d" % name
        try:
            for round in range(8):
                data = b"object %d" % (round % 3) * 200
                try:
                    house.upload(data)
                except (RegistryError, LfsError):
                    continue
                with lock:
                    sha = house.gate.commit({"w.bin": pointer(data), "n": b"%d" % next(numbers)})
                    pack = house.gate.pack([sha])
                old = house.gate.targets().get(ref, ZERO)
                if house.gate.push((ref, old, sha), pack=pack).error is None:
                    landed.append(sha)
        except BaseException as error:
            failed.append(error)

    collectors = [threading.Thread(target=collect) for _ in range(2)]
    workers = [threading.Thread(target=work, args=(name,)) for name in range(3)]
    for thread in (*collectors, *workers):
        thread.start()
    for thread in workers:
        thread.join()
    stop.set()
    for thread in collectors:
        thread.join()
    assert failed == []
    assert landed
    assert house.findings() == []
    runs(house, 3)()
    assert house.findings() == []
