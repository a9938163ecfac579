"""Any order of uploads, commits, rewinds, restores, deletions, days and collections, against a model in memory."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from lfs.store import lfs_key
from registry import schema
from registry.db import Database
from registry.git.snapshot import ZERO
from tests.registry.upkeep.collecting import Collected, collected, oid_of, pointer

OBJECTS = tuple(b"object %d" % number * 40 for number in range(3))
REFS = (b"refs/heads/a", b"refs/heads/b")
LOG, LINK = 30, 14
one = st.sampled_from(OBJECTS)
refs = st.sampled_from(REFS)


class Collecting(RuleBasedStateMachine):
    """The model: which object each commit names, where refs stand, when they last stood elsewhere, when links were
    made. A link may go when it has rested and no ref or young log names it; nothing else may."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="gc-model-"))
        self.database = Database(f"sqlite:///{self.folder / 'registry.db'}")
        schema.migrate(self.database)
        self.house: Collected = collected(self.database, self.folder)
        self.day = 0.0
        self.commits: dict[str, bytes] = {}
        self.at: dict[bytes, str] = {}
        self.moves = 0
        self.log: list[tuple[float, str]] = []
        self.links: dict[bytes, float] = {}

    def teardown(self) -> None:
        self.house.gate.heavy.close()
        self.database.dispose()
        shutil.rmtree(self.folder)

    def rows(self, statement: str, *values: object) -> None:
        with self.database.write() as connection:
            connection.exec_driver_sql(statement, tuple(values))

    @rule(data=one)
    def upload(self, data: bytes) -> None:
        self.house.upload(data)
        moment = self.house.moment.strftime("%Y-%m-%d %H:%M:%S.%f")
        self.rows("UPDATE lfs_links SET seen_at = ?, linked_at = ? WHERE oid = ?", moment, moment, oid_of(data))
        self.rows("UPDATE lfs_objects SET stored_at = ? WHERE oid = ?", moment, oid_of(data))
        self.rows("UPDATE lfs_uploads SET created_at = ?, expires_at = ? WHERE oid = ?", moment, moment, oid_of(data))
        self.links[data] = self.day

    def move(self, ref: bytes, sha: str) -> bool:
        old = self.at.get(ref, ZERO)
        done = self.house.gate.push((ref, old, sha)).error is None
        if done:
            moment = self.house.moment.strftime("%Y-%m-%d %H:%M:%S.%f")
            self.log.append((self.day, old))
            self.log.append((self.day, sha))
            self.rows("UPDATE ref_log SET at = ? WHERE id > ?", moment, self.moves)
            self.moves += 1
            self.at = {**self.at, ref: sha} if sha != ZERO else {k: v for k, v in self.at.items() if k != ref}
        return done

    @rule(data=one, ref=refs)
    def commit(self, data: bytes, ref: bytes) -> None:
        sha = self.house.gate.commit({"w.bin": pointer(data), "n": b"%d" % len(self.commits)})
        linked = data in self.links
        assert self.move(ref, sha) == linked
        if linked:
            self.commits[sha] = data

    @precondition(lambda self: self.commits)
    @rule(pick=st.integers(0, 1000), ref=refs)
    def restore(self, pick: int, ref: bytes) -> None:
        sha = sorted(self.commits)[pick % len(self.commits)]
        if self.at.get(ref) != sha:
            assert self.move(ref, sha) == (self.commits[sha] in self.links)

    @precondition(lambda self: self.at)
    @rule(ref=refs)
    def delete(self, ref: bytes) -> None:
        if ref in self.at:
            # HEAD of the repo is refs/heads/main, so neither of these is protected.
            assert self.move(ref, ZERO)

    @rule(days=st.sampled_from([1, 8, 16, 31]))
    def wait(self, days: int) -> None:
        self.day += days
        self.house.later(days=days)

    @rule()
    def collect(self) -> None:
        planned = self.house.plan()
        assert self.house.run() == planned
        named = {self.commits[sha] for sha in self.at.values()}
        named |= {self.commits[sha] for day, sha in self.log if sha != ZERO and day >= self.day - LOG}
        self.links = {data: day for data, day in self.links.items() if data in named or day > self.day - LINK}

    @invariant()
    def links_are_those_of_the_model_and_have_their_bytes(self) -> None:
        assert self.house.linked() == {oid_of(data) for data in self.links}
        states = self.house.states()
        assert {states[oid_of(data)] for data in self.links} <= {"stored"}
        assert set(self.house.gate.links.find(1, [oid_of(data) for data in OBJECTS])) == self.house.linked()
        assert self.house.lfs_bytes() == sum(len(data) for data in self.links)

    @rule()
    def check(self) -> None:
        assert self.house.findings() == []
        assert {key[:70] for key in self.house.keys("lfs/")} <= {lfs_key(oid_of(data))[:70] for data in OBJECTS}


TestCollecting = Collecting.TestCase
TestCollecting.settings = settings(
    max_examples=5, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
TestCollecting = pytest.mark.timeout(200)(TestCollecting)
