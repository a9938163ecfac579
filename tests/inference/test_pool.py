"""The pool over a shelf in memory: single loads, swaps without a gap, eviction by bytes, failures that stay apart."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from inference.engine import Engine
from inference.errors import EngineFailed, ModelAbsent, ModelRefused, Overloaded, SidecarError, Unavailable
from inference.loaded import Lease
from inference.pool import CRASH_SECONDS, FAILED_SECONDS, SETTLE_SECONDS, SOON_SECONDS, Pool
from tests.inference.echo import wait_until
from tests.inference.yard import FIRST, SECOND, THIRD, MakePool, Yard, phases


@pytest.fixture
def yard() -> Iterator[Yard]:
    yard = Yard()
    yield yard
    for gate in yard.gates.values():
        gate.set()


@pytest.fixture
def make(yard: Yard) -> Iterator[MakePool]:
    made: list[Pool] = []

    def make(budget: int = 1000, idle: float = 0.0, load_seconds: float = 300.0) -> Pool:
        made.append(
            Pool(yard, yard.build, budget, idle, load_seconds=load_seconds, estimate=yard.estimate, clock=yard.clock)
        )
        return made[-1]

    yield make
    for gate in yard.gates.values():
        gate.set()
    for pool in made:
        pool.close()


def test_a_lease_loads_once_and_shares(yard: Yard, make: MakePool) -> None:
    pool = make()
    with pool.lease("acme/a") as first, pool.lease(f"acme/a@{FIRST}") as second:
        assert first.engine is second.engine
        assert (first.repo, first.sha, first.path) == ("acme/a", FIRST, Path("/checkouts") / FIRST)
        assert pool.states()[0].leases == 2
    assert pool.states()[0].leases == 0
    assert len(yard.built) == 1


def test_many_at_once_are_one_load(yard: Yard, make: MakePool) -> None:
    pool, found = make(), list[Lease]()
    yard.gates[FIRST] = threading.Event()
    threads = [threading.Thread(target=lambda: found.append(pool.lease("acme/a"))) for _ in range(16)]
    for thread in threads:
        thread.start()
    wait_until(lambda: phases(pool) == {FIRST: "loading"})
    yard.gates[FIRST].set()
    for thread in threads:
        thread.join(30)
    assert len(found) == 16
    assert len(yard.built) == 1
    assert pool.states()[0].leases == 16


def test_giving_back_twice_counts_once(make: MakePool) -> None:
    pool = make()
    lease = pool.lease("acme/a")
    with pool.lease("acme/a"):
        lease.give_back()
        lease.give_back()
        assert pool.states()[0].leases == 1


def test_who_waits_too_long_is_told_to_come_back(yard: Yard, make: MakePool) -> None:
    pool = make()
    yard.gates[FIRST] = threading.Event()
    with pytest.raises(Unavailable) as told:
        pool.lease("acme/a", seconds=0)
    assert told.value.code == "model_loading"
    assert told.value.retry_after
    yard.gates[FIRST].set()
    with pool.lease("acme/a") as lease:
        assert lease.sha == FIRST
    assert len(yard.built) == 1


def test_a_moved_branch_serves_the_old_commit_until_the_new_one_is_ready(yard: Yard, make: MakePool) -> None:
    pool = make()
    old = pool.lease("acme/a")
    yard.tips["acme/a"], yard.gates[SECOND] = SECOND, threading.Event()
    yard.now += 3
    with pool.lease("acme/a") as during:
        assert during.sha == FIRST
    assert phases(pool) == {FIRST: "ready", SECOND: "loading"}
    yard.gates[SECOND].set()
    wait_until(lambda: phases(pool).get(SECOND) == "ready")
    with pool.lease("acme/a") as after:
        assert after.sha == SECOND
    # The old one outlives its swap for as long as someone uses it, and is gone soon after.
    yard.now += 100
    pool.tidy()
    assert yard.engines(FIRST)[0].closed == 0
    old.give_back()
    yard.now += SETTLE_SECONDS
    pool.tidy()
    wait_until(lambda: FIRST not in phases(pool))
    assert yard.engines(FIRST)[0].closed == 1
    assert yard.engines(SECOND)[0].closed == 0


def test_a_commit_that_another_name_still_means_is_kept(yard: Yard, make: MakePool) -> None:
    pool = make()
    pool.lease("acme/a").give_back()
    yard.tips["acme/a"] = SECOND
    yard.now += 3
    pool.lease("acme/a").give_back()
    wait_until(lambda: phases(pool).get(SECOND) == "ready")
    pool.lease("acme/a").give_back()
    pool.lease(f"acme/a@{FIRST}").give_back()
    yard.now += 100
    pool.tidy()
    assert yard.engines(FIRST)[0].closed == 0


def test_a_push_that_cannot_be_loaded_keeps_the_old_commit_serving(yard: Yard, make: MakePool) -> None:
    pool = make()
    pool.lease("acme/a").give_back()
    yard.tips["acme/a"] = SECOND
    yard.failing[SECOND] = ModelRefused("config.json has the key 'auto_map'")
    yard.now += 3
    pool.lease("acme/a").give_back()
    wait_until(lambda: phases(pool).get(SECOND) == "failed")
    with pool.lease("acme/a") as lease:
        assert lease.sha == FIRST
    failed = next(state for state in pool.states() if state.sha == SECOND)
    assert "auto_map" in str(failed.error)
    assert failed.names == ("acme/a",)
    # The next push heals it.
    yard.tips["acme/a"] = THIRD
    yard.now += 3
    pool.lease("acme/a").give_back()
    wait_until(lambda: phases(pool).get(THIRD) == "ready")
    with pool.lease("acme/a") as lease:
        assert lease.sha == THIRD


def test_a_refusal_by_policy_is_told_each_time_and_tried_once(yard: Yard, make: MakePool) -> None:
    pool, tries = make(), []
    yard.failing[FIRST] = ModelRefused("no safetensors")
    build = yard.build
    pool._build = lambda *asked: tries.append(asked) or build(*asked)
    for _ in range(3):
        with pytest.raises(ModelRefused, match="no safetensors"):
            pool.lease("acme/a")
        yard.now += 10 * FAILED_SECONDS
    assert len(tries) == 1


def test_a_surprise_while_loading_is_told_without_its_inside_and_tried_again_later(
    yard: Yard, make: MakePool, caplog: pytest.LogCaptureFixture
) -> None:
    pool = make()
    yard.failing[FIRST] = OSError("/secret/path is broken")
    with pytest.raises(EngineFailed) as told:
        pool.lease("acme/a")
    assert "secret" not in told.value.message
    yard.failing.clear()
    with pytest.raises(EngineFailed):
        pool.lease("acme/a")
    yard.now += FAILED_SECONDS
    with pool.lease("acme/a") as lease:
        assert lease.sha == FIRST


@pytest.mark.parametrize("error", [Unavailable("away", code="registry_unavailable"), Overloaded("full")])
def test_what_may_be_over_soon_is_tried_again_soon(yard: Yard, make: MakePool, error: SidecarError) -> None:
    pool = make()
    yard.failing[FIRST] = error
    for _ in range(3):
        with pytest.raises(type(error)):
            pool.lease("acme/a")
    # The failed tries of a burst of requests are one try.
    assert len(yard.pinned_with) == 1
    yard.failing.clear()
    yard.now += SOON_SECONDS
    pool.lease("acme/a").give_back()


def test_room_is_made_by_closing_what_was_used_longest_ago(yard: Yard, make: MakePool) -> None:
    pool = make(budget=250)
    yard.tips |= {"acme/b": SECOND, "acme/c": THIRD}
    for name in ("acme/a", "acme/b"):
        pool.lease(name).give_back()
        yard.now += 1
    pool.lease("acme/a").give_back()
    yard.now += 1
    pool.lease("acme/c").give_back()
    assert phases(pool) == {FIRST: "ready", THIRD: "ready"}
    assert yard.engines(SECOND)[0].closed == 1


def test_when_all_that_fits_is_in_use_the_newcomer_is_refused(yard: Yard, make: MakePool) -> None:
    pool = make(budget=150)
    yard.tips["acme/b"] = SECOND
    with pool.lease("acme/a"):
        with pytest.raises(Overloaded) as refused:
            pool.lease("acme/b")
        assert refused.value.code == "model_capacity"
        assert refused.value.retry_after
    yard.now += SOON_SECONDS
    pool.lease("acme/b").give_back()
    assert phases(pool) == {SECOND: "ready"}


def test_a_model_larger_than_the_budget_is_refused_and_evicts_none_that_is_leased(yard: Yard, make: MakePool) -> None:
    pool = make(budget=150)
    yard.tips["acme/b"], yard.estimates[SECOND] = SECOND, 151
    with pool.lease("acme/a"), pytest.raises(Overloaded):
        pool.lease("acme/b")
    assert yard.engines(SECOND) == []


def test_a_model_that_will_never_fit_sends_nobody_away(yard: Yard, make: MakePool) -> None:
    pool = make(budget=250)
    yard.tips |= {"acme/b": SECOND, "acme/c": THIRD}
    yard.estimates[THIRD] = 251
    pool.lease("acme/a").give_back()
    pool.lease("acme/b").give_back()
    with pytest.raises(Overloaded):
        pool.lease("acme/c")
    assert [engine.closed for engine in yard.built] == [0, 0]


def test_of_two_that_load_for_one_place_each_serves_who_waited_for_it(yard: Yard, make: MakePool) -> None:
    pool, found, why = make(budget=150), list[str](), list[SidecarError]()
    yard.tips["acme/b"] = SECOND
    yard.gates |= {FIRST: threading.Event(), SECOND: threading.Event()}

    def use(name: str) -> None:
        try:
            with pool.lease(name, seconds=10**6) as lease:
                found.append(lease.sha)
        except Overloaded as error:
            why.append(error)

    threads = [threading.Thread(target=use, args=(name,)) for name in ("acme/a", "acme/b") for _ in range(4)]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(phases(pool)) == 2)
    for gate in yard.gates.values():
        gate.set()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    assert (len(found) + len(why), len(found) >= 4) == (8, True)


def test_who_waits_for_an_engine_that_broke_at_once_gets_the_next_one(yard: Yard, make: MakePool) -> None:
    pool, found = make(), list[str]()
    build, gate = pool._build, threading.Event()

    def broken_first(path: Path, repo: str, sha: str) -> Engine:
        engine = build(path, repo, sha)
        yard.built[-1].is_broken = len(yard.built) == 1
        assert gate.wait(30)
        return engine

    pool._build = broken_first
    thread = threading.Thread(target=lambda: found.append(pool.lease("acme/a", seconds=10**6).sha))
    thread.start()
    wait_until(lambda: len(yard.built) == 1)
    gate.set()
    thread.join(30)
    assert found == [FIRST]
    assert len(yard.built) == 2


def test_a_pinned_model_that_failed_to_load_is_tried_again_by_pinning(yard: Yard, make: MakePool) -> None:
    pool = make()
    yard.failing[FIRST] = Unavailable("away", code="registry_unavailable")
    assert not pool.pin("acme/a")
    wait_until(lambda: phases(pool) == {FIRST: "failed"})
    with pytest.raises(Unavailable):
        pool.pin("acme/a")
    yard.failing.clear()
    yard.now += SOON_SECONDS
    assert not pool.pin("acme/a")
    wait_until(lambda: phases(pool) == {FIRST: "ready"})
    assert pool.pin("acme/a")


def test_each_checkout_is_let_go_once(yard: Yard, make: MakePool) -> None:
    pool = make(budget=150)
    yard.tips["acme/b"] = SECOND
    pool.lease("acme/a").give_back()
    pool.lease("acme/b").give_back()
    assert yard.released == [FIRST]
    yard.failing[THIRD] = ModelRefused("no")
    yard.tips["acme/c"] = THIRD
    with pytest.raises(ModelRefused):
        pool.lease("acme/c")
    assert yard.released == [FIRST, SECOND, THIRD]
    turnover = pool.turnover()
    assert (turnover.loads, turnover.evictions) == (2, 2)
    pool.close()
    assert yard.released == [FIRST, SECOND, THIRD]


def test_an_engine_that_breaks_while_closing_gives_its_bytes_back(yard: Yard, make: MakePool) -> None:
    pool = make(budget=150)
    pool.lease("acme/a").give_back()
    yard.built[0].close = lambda: 1 / 0  # type: ignore[method-assign, assignment, return-value]
    yard.tips["acme/b"] = SECOND
    pool.lease("acme/b").give_back()
    assert phases(pool) == {SECOND: "ready"}


def test_pinned_models_are_loaded_first_and_never_evicted(yard: Yard, make: MakePool) -> None:
    pool = make(budget=150, idle=10)
    pool.pin("acme/a")
    wait_until(lambda: phases(pool) == {FIRST: "ready"})
    assert pool.states()[0].is_pinned
    assert yard.pinned_with == ["own"]
    yard.now += 1000
    pool.tidy()
    yard.tips["acme/b"] = SECOND
    with pytest.raises(Overloaded):
        pool.lease("acme/b")
    assert yard.engines(FIRST)[0].closed == 0


def test_idle_models_are_unloaded_after_their_time(yard: Yard, make: MakePool) -> None:
    pool = make(idle=10)
    lease = pool.lease("acme/a")
    yard.now += 100
    pool.tidy()
    assert yard.built[0].closed == 0
    lease.give_back()
    yard.now += 9
    pool.tidy()
    assert yard.built[0].closed == 0
    yard.now += 1
    pool.tidy()
    wait_until(lambda: yard.built[0].closed == 1)
    with pool.lease("acme/a"):
        assert len(yard.built) == 2


def test_a_loaded_private_model_is_absent_for_those_who_may_not_read_it(yard: Yard, make: MakePool) -> None:
    pool = make()
    yard.readers["acme/a"] = {"anna"}
    pool.lease("acme/a", "anna").give_back()
    for name in ("acme/a", f"acme/a@{FIRST}"):
        for token in ("bert", None):
            with pytest.raises(ModelAbsent):
                pool.lease(name, token)
    assert yard.pinned_with == ["anna"]


def test_a_broken_engine_is_rebuilt_once_and_then_left_for_a_minute(yard: Yard, make: MakePool) -> None:
    pool = make()
    pool.lease("acme/a").give_back()
    yard.built[0].is_broken = True
    pool.lease("acme/a").give_back()
    assert len(yard.built) == 2
    pool.tidy()
    wait_until(lambda: yard.built[0].closed == 1)
    yard.now += CRASH_SECONDS - 1
    yard.built[1].is_broken = True
    with pytest.raises(EngineFailed):
        pool.lease("acme/a")
    assert phases(pool)[FIRST] == "failed"
    yard.now += CRASH_SECONDS
    pool.lease("acme/a").give_back()
    assert len(yard.built) == 3


def test_files_and_adapters_inside_a_repo_are_not_served(make: MakePool) -> None:
    with pytest.raises(ModelAbsent):
        make().lease("acme/a:q4.gguf")


def test_a_closing_pool_refuses_and_closes_all_even_what_loads_still(yard: Yard, make: MakePool) -> None:
    pool = make()
    yard.tips["acme/b"], yard.gates[SECOND] = SECOND, threading.Event()
    pool.lease("acme/a").give_back()
    with pytest.raises(Unavailable):
        pool.lease("acme/b", seconds=0)
    assert pool.drain(5)
    with pytest.raises(Unavailable) as told:
        pool.lease("acme/a")
    assert told.value.code == "draining"
    pool.close()
    pool.close()
    yard.gates[SECOND].set()
    wait_until(lambda: [engine.closed for engine in yard.built] == [1, 1])
