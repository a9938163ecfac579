"""Roll-ups keep the list of packs short and lose nothing: not to a push, not to each other, not to a crash."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import pytest
import sqlalchemy as sa

from lfs.errors import Unavailable
from registry.db import Database
from registry.git.objects import ManifestStore
from registry.git.reach import walk
from registry.git.repository import Repositories
from registry.git.snapshot import ZERO, PackRow, Snapshot, tips_digest
from registry.git.verdict import PackFacts
from registry.publish import Publisher
from registry.tables.objects import packs, repo_packs
from registry.tables.repos import repos
from registry.upkeep.fsck import Fsck
from registry.upkeep.repack import LARGEST, MOST_PACKS, Repack, due
from tests.registry import people
from tests.registry.gate import MAIN, Gate


@pytest.fixture
def gate(database: Database, tmp_path: Path) -> Iterator[Gate]:
    made = Gate(database, tmp_path)
    yield made
    made.heavy.close()


class Watched(Publisher):
    """A publisher that does something else once, between durable bytes and the transaction."""

    def __init__(self, gate: Gate, then: Callable[[], object]) -> None:
        super().__init__(gate.database, gate.store, gate.linked.quotas)
        self._then = then

    def keep(self, pack: PackFacts) -> datetime:
        """Keep the pack, then do it."""
        kept = super().keep(pack)
        self._then()
        return kept


def desk(gate: Gate, publisher: Publisher | None = None) -> Repack:
    """A desk as another process would have it."""
    return Repack(
        database=gate.database,
        repositories=Repositories(gate.database),
        packs=gate.packs,
        publisher=publisher or gate.publisher,
        heavy=gate.heavy,
        folder=gate.folder / "quarantine",
    )


def push_many(gate: Gate, count: int, *, since: int = 0, each: Callable[[], object] = lambda: None) -> list[str]:
    """Push so many commits on main, one by one."""
    old = gate.targets().get(MAIN, ZERO)
    made = []
    text = b"".join(b"line %d\n" % line for line in range(300))
    for number in range(since, since + count):
        files = {"a.txt": text + b"%d" % number, "b/c.txt": b"%d" % (number % 5)}
        sha = gate.commit(files, on=None if old == ZERO else old)
        thin = [] if old == ZERO else [old]
        assert gate.push((MAIN, old, sha), pack=gate.pack([sha], thin, thin=True)).error is None
        made.append(sha)
        old = sha
        each()
    return made


def fresh(gate: Gate) -> Snapshot:
    """What a process that has cached nothing reads."""
    return Repositories(gate.database).snapshot(1)


def assert_whole(gate: Gate, commits: list[str]) -> None:
    """Every commit and all that it reaches is there, and a check finds nothing wrong."""
    snapshot = fresh(gate)
    manifest = ManifestStore(gate.packs).manifest(snapshot.packs)
    assert [manifest.kind(sha) for sha in commits] == [1] * len(commits)
    assert list(walk(manifest, commits)) == []
    listed = gate.git("rev-list", "--objects", "--no-object-names", *commits).split()
    for sha in listed:
        kind, content = manifest.read(sha)
        assert gate.git("hash-object", "-t", ("", "commit", "tree", "blob")[kind], "--stdin", data=content) == sha
    checked = Fsck(
        database=gate.database,
        store=gate.store,
        packs=gate.packs,
        manifests=ManifestStore(gate.packs),
        repositories=Repositories(gate.database),
    )
    assert list(checked.run(read_data=True)) == []


def states(gate: Gate) -> dict[str, str]:
    with gate.database.read() as connection:
        return {row.id: row.state for row in connection.execute(sa.select(packs.c.id, packs.c.state))}


def test_forty_pushes_end_with_few_packs_and_the_whole_history(gate: Gate) -> None:
    roll = desk(gate)
    commits = push_many(gate, 40, each=lambda: roll.run(1))
    snapshot = fresh(gate)
    assert len(snapshot.packs) <= MOST_PACKS
    assert snapshot.closure_tips == tips_digest(snapshot.refs)
    assert (snapshot.refs_version, snapshot.gc_epoch) == (40, 0)
    live = {id for id, state in states(gate).items() if state == "live"}
    assert live == {pack.id for pack in snapshot.packs}
    with gate.database.read() as connection:
        size = connection.execute(sa.select(repos.c.git_bytes)).scalar_one()
    assert size == sum(pack.bytes for pack in snapshot.packs)
    assert list((gate.folder / "quarantine").iterdir()) == []
    assert_whole(gate, commits)


def test_a_short_list_is_left_alone(gate: Gate) -> None:
    push_many(gate, 3)
    before = fresh(gate)
    assert not desk(gate).run(1)
    assert fresh(gate) == before
    assert not desk(gate).run(77)


def test_a_push_during_a_roll_up_keeps_its_pack(gate: Gate) -> None:
    commits = push_many(gate, MOST_PACKS + 1)
    pushed: list[str] = []
    racing = Watched(gate, lambda: pushed.extend(push_many(gate, 2, since=90)))
    assert desk(gate, racing).run(1)
    snapshot = fresh(gate)
    assert len(snapshot.packs) == 3
    # The packs of the pushes are newer and read first.
    assert ManifestStore(gate.packs).manifest(snapshot.packs[:1]).contains(pushed[1])
    assert gate.targets()[MAIN] == pushed[1]
    assert_whole(gate, commits + pushed)


def test_a_push_that_was_checked_before_a_roll_up_is_taken_after_it(gate: Gate) -> None:
    commits = push_many(gate, MOST_PACKS + 1)
    sha = gate.commit({"a.txt": b"late"}, on=commits[-1])
    pack = gate.pack([sha], [commits[-1]])
    taken = threading.Event()
    checked, check = threading.Event(), gate.receiver._check

    def slow(*arguments: object) -> object:
        verdict = check(*arguments)  # type: ignore[arg-type]
        checked.set()
        assert taken.wait(30)
        return verdict

    gate.receiver._check = slow  # type: ignore[assignment]
    outcomes: list[object] = []
    pusher = threading.Thread(target=lambda: outcomes.append(gate.push((MAIN, commits[-1], sha), pack=pack).error))
    pusher.start()
    assert checked.wait(30)
    assert desk(gate).run(1)
    taken.set()
    pusher.join()
    assert outcomes == [None]
    assert len(fresh(gate).packs) == 2
    assert_whole(gate, [*commits, sha])


def test_of_two_roll_ups_one_wins_and_the_other_gives_up(gate: Gate) -> None:
    commits = push_many(gate, MOST_PACKS + 1)
    won: list[bool] = []
    first = Watched(gate, lambda: won.append(desk(gate).run(1)))
    won.insert(0, desk(gate, first).run(1))
    assert won == [False, True]
    assert len(fresh(gate).packs) == 1
    assert_whole(gate, commits)


def test_roll_ups_and_pushes_at_the_same_time_lose_nothing(gate: Gate) -> None:
    commits = push_many(gate, MOST_PACKS)
    stop = threading.Event()
    failed: list[BaseException] = []

    def roll(one: Repack) -> None:
        try:
            while not stop.is_set():
                one.run(1)
        except BaseException as error:
            failed.append(error)

    rollers = [threading.Thread(target=roll, args=(desk(gate),)) for _ in range(2)]
    for roller in rollers:
        roller.start()
    try:
        commits += push_many(gate, 25, since=50)
    finally:
        stop.set()
        for roller in rollers:
            roller.join()
    assert failed == []
    desk(gate).run(1)
    assert len(fresh(gate).packs) <= MOST_PACKS
    assert_whole(gate, commits)


class Killed(BaseException):
    """The process ends here."""


def test_a_death_between_store_and_transaction_leaves_the_old_list(gate: Gate) -> None:
    def die() -> None:
        raise Killed

    commits = push_many(gate, MOST_PACKS + 1)
    before = fresh(gate)
    with pytest.raises(Killed):
        desk(gate, Watched(gate, die)).run(1)
    assert fresh(gate) == before
    assert {state for id, state in states(gate).items() if id in {pack.id for pack in before.packs}} == {"live"}
    assert_whole(gate, commits)
    assert desk(gate).run(1)
    assert_whole(gate, commits)


def test_a_store_that_refuses_leaves_the_old_list(gate: Gate) -> None:
    def refuse() -> None:
        raise Unavailable("down")

    push_many(gate, MOST_PACKS + 1)
    before = fresh(gate)
    with pytest.raises(Unavailable):
        desk(gate, Watched(gate, refuse)).run(1)
    assert fresh(gate) == before
    assert list((gate.folder / "quarantine").iterdir()) == []


def test_a_server_that_stops_publishes_no_roll_up(gate: Gate) -> None:
    push_many(gate, MOST_PACKS + 1)
    before = fresh(gate)
    assert not desk(gate).run(1, stopping=lambda: True)
    assert fresh(gate) == before


def test_packs_that_another_repo_lists_stay_live(gate: Gate) -> None:
    commits = push_many(gate, MOST_PACKS + 1)
    fork = people.add_repo(gate.database, "bob", "fork")
    shared = {pack.id for pack in fresh(gate).packs}
    with gate.database.write() as connection:
        chosen = sa.select(sa.literal(fork), repo_packs.c.pack_id, repo_packs.c.ordinal, repo_packs.c.added_at).where(
            repo_packs.c.repo_id == 1
        )
        connection.execute(sa.insert(repo_packs).from_select(list(repo_packs.c), chosen))
        counted = sa.select(sa.func.sum(packs.c.bytes)).where(packs.c.id.in_(shared)).scalar_subquery()
        connection.execute(sa.update(repos).where(repos.c.id == fork).values(git_bytes=counted))
    assert desk(gate).run(1)
    assert {state for id, state in states(gate).items() if id in shared} == {"live"}
    assert desk(gate).run(fork)
    assert {state for id, state in states(gate).items() if id in shared} == {"condemned"}
    assert_whole(gate, commits)


def test_a_condemned_pack_that_is_pushed_again_lives(gate: Gate) -> None:
    first = gate.commit({"a.txt": b"one"})
    again = gate.pack([first]).read_bytes()
    assert gate.push((MAIN, ZERO, first)).error is None
    push_many(gate, MOST_PACKS)
    assert desk(gate).run(1)
    path = gate.folder / "quarantine" / "again.pack"
    path.write_bytes(again)
    assert gate.push((b"refs/heads/again", ZERO, first), pack=path).error is None
    assert sorted(states(gate).values()).count("live") == len(fresh(gate).packs) == 2


def test_a_deleted_repo_is_not_rolled_up(gate: Gate) -> None:
    push_many(gate, MOST_PACKS + 1)

    def delete() -> None:
        with gate.database.write() as connection:
            connection.execute(sa.update(repos).values(deleted_at=people.START))

    before = {pack.id for pack in fresh(gate).packs}
    assert not desk(gate, Watched(gate, delete)).run(1)
    assert {state for id, state in states(gate).items() if id in before} == {"live"}


def row(number: int, size: int) -> PackRow:
    return PackRow(f"{number:064x}", size, 1, 1, "", 0, "", 0)


@pytest.mark.parametrize("seed", range(20))
def test_what_is_left_is_few_and_each_twice_what_is_smaller(seed: int) -> None:
    chance = random.Random(seed)
    rows = [row(number, int(10 ** chance.uniform(2, 9))) for number in range(chance.randint(17, 60))]
    chosen = due(rows)
    assert [one for one in rows if one in chosen] == list(chosen)
    left = sorted(one.bytes for one in rows if one not in chosen)
    smaller = sum(one.bytes for one in chosen)
    assert len(left) < MOST_PACKS // 2
    for size in left:
        assert 2 * smaller <= size
        smaller += size


def test_packs_that_are_large_already_are_left_alone() -> None:
    rows = [row(number, LARGEST + number) for number in range(1, 40)]
    assert due(rows) == ()
    small = [row(100 + number, 1000) for number in range(MOST_PACKS + 1)]
    assert due(rows + small) == tuple(small)


def test_a_byte_is_copied_few_times_over_many_pushes() -> None:
    rows: list[PackRow] = []
    copied = 0
    for number in range(1000):
        rows.insert(0, row(number, 1000))
        chosen = due(rows)
        if chosen:
            size = sum(one.bytes for one in chosen)
            copied += size
            rows = [row(10_000 + number, size), *(one for one in rows if one not in chosen)]
    assert len(rows) <= MOST_PACKS
    assert copied < 8 * 1000 * 1000
