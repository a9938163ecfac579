"""A push while models answer: registry on a socket, checkouts, policy, continuous batching and the pool together."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from inference.checkout import Checkouts
from inference.engine import Engine
from inference.engines import device, weights
from inference.engines.batcher import Settings
from inference.engines.continuous import ContinuousEngine
from inference.errors import ModelRefused
from inference.loading import judge
from inference.pool import Pool
from inference.sampling import Numbers
from inference.tiny import make_chat_model
from tests.contracts.heard import Heard, answers, ask
from tests.inference.echo import wait_until
from tests.inference.hub import Hub, serving

pytestmark = pytest.mark.inference

REPO = "acme/tiny"


def _model(folder: Path, seed: int) -> dict[str, bytes]:
    make_chat_model(folder, seed)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def _build(path: Path, repo: str, sha: str) -> Engine:
    judge(path, repo, sha)
    model = weights.load(path, device.resolve("cpu", "float32"))
    return ContinuousEngine(model, "continuous float32", Settings(rows=32, kv_bytes=40 << 20, page=32))


@pytest.fixture
def hub() -> Hub:
    return Hub()


@pytest.fixture
def pool(hub: Hub, tmp_path: Path) -> Iterator[Pool]:
    with serving(hub) as url:
        checkouts = Checkouts(tmp_path / "checkouts", url)
        pool = Pool(checkouts, _build, budget_bytes=1 << 30, idle_seconds=0, refresh_seconds=0.05)
        yield pool
        pool.close()
        checkouts.close()


def test_a_push_during_32_streams_fails_none_and_the_next_request_has_the_new_commit(
    hub: Hub, pool: Pool, tmp_path: Path
) -> None:
    first = hub.push(REPO, _model(tmp_path / "first", 0))
    asked = [ask((5, 6, 7 + n), 120, numbers=Numbers(seed=n)) for n in range(32)]
    leases = [pool.lease(REPO) for _ in asked]
    heard = [Heard() for _ in asked]
    for lease, request, one in zip(leases, asked, heard, strict=True):
        lease.engine.submit(request, one)
    assert heard[0].first.wait(30)

    second = hub.push(REPO, _model(tmp_path / "second", 1))

    def serves_the_second() -> bool:
        with pool.lease(REPO) as lease:
            return lease.sha == second

    wait_until(serves_the_second, 60)
    assert {lease.sha for lease in leases} == {first}
    assert [(one.done().reason, len(one.ids)) for one in heard] == [("length", 120)] * 32
    with pool.lease(REPO) as lease, pool.lease(f"{REPO}@{first}") as former:
        assert answers(former.engine, asked[3:4])[0].ids == heard[3].ids
        assert answers(lease.engine, asked[3:4])[0].ids != heard[3].ids
    for lease in leases:
        lease.give_back()


def test_the_old_commit_is_gone_soon_after_its_last_lease(hub: Hub, pool: Pool, tmp_path: Path) -> None:
    first = hub.push(REPO, _model(tmp_path / "first", 0))
    with pool.lease(REPO) as lease:
        answers(lease.engine, [ask(max_new=3)])
        second = hub.push(REPO, _model(tmp_path / "second", 1))

        def serves_the_second() -> bool:
            with pool.lease(REPO) as newer:
                return newer.sha == second

        wait_until(serves_the_second, 60)
        assert first in {state.sha for state in pool.states()}
    wait_until(lambda: {state.sha for state in pool.states()} == {second}, 10)


def test_a_poisoned_push_leaves_the_old_commit_serving(hub: Hub, pool: Pool, tmp_path: Path) -> None:
    files = _model(tmp_path / "first", 0)
    first = hub.push(REPO, files)
    pool.lease(REPO).give_back()
    config = json.loads(files["config.json"]) | {"auto_map": {"AutoModelForCausalLM": "evil.Model"}}
    poisoned = hub.push(REPO, files | {"config.json": json.dumps(config).encode()})

    def has_refused() -> bool:
        with pool.lease(REPO) as lease:
            assert lease.sha == first
        return any(state.sha == poisoned and state.phase == "failed" for state in pool.states())

    wait_until(has_refused, 60)
    with pool.lease(REPO) as lease:
        assert len(answers(lease.engine, [ask(max_new=3)])[0].ids) == 3
    with pytest.raises(ModelRefused, match="auto_map"):
        pool.lease(f"{REPO}@{poisoned}")
