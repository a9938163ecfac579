"""Heavy work ends: with its value, its error, or a named refusal; and never takes the server with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lfs.errors import Busy, HeavyCrashed, HeavyOutOfMemory, HeavyTimeout
from lfs.heavy import Heavy
from tests.lfs import jobs

MIB = 1 << 20


@pytest.fixture
def heavy() -> Iterator[Heavy]:
    pool = Heavy(workers=2, memory_bytes=512 * MIB, deadline=20)
    yield pool
    pool.close()


def test_values_and_large_frames_come_back(heavy: Heavy) -> None:
    assert heavy.submit(jobs.double, 21) == 42
    assert heavy.submit(bytes, 20 * MIB) == bytes(20 * MIB)
    assert heavy.submit(len, bytes(20 * MIB)) == 20 * MIB


def test_an_exception_of_the_function_is_raised_here(heavy: Heavy) -> None:
    with pytest.raises(jobs.Told, match="told"):
        heavy.submit(jobs.fail, "told")
    with pytest.raises(HeavyCrashed, match="Untold: other"):
        heavy.submit(jobs.fail, "other")
    assert heavy.submit(jobs.double, 1) == 2


def test_a_child_is_warm_and_serves_again(heavy: Heavy) -> None:
    first = heavy.submit(jobs.pid)
    assert first != os.getpid()
    assert {heavy.submit(jobs.pid) for _ in range(5)} == {first}


def test_a_child_is_replaced_after_two_hundred_jobs(heavy: Heavy) -> None:
    assert len({heavy.submit(jobs.pid) for _ in range(201)}) == 2


def test_what_a_function_prints_does_not_break_its_answer(heavy: Heavy) -> None:
    assert heavy.submit(jobs.chatter) == "value"


def test_a_child_imports_neither_the_test_runner_nor_the_doors(heavy: Heavy) -> None:
    assert not {"pytest", "starlette", "uvicorn", "boto3", "asyncio"} & set(heavy.submit(jobs.modules))


def test_work_beyond_its_deadline_is_killed(heavy: Heavy) -> None:
    with pytest.raises(HeavyTimeout):
        heavy.within(0.5, jobs.burn)
    with pytest.raises(HeavyTimeout):
        heavy.within(0.5, time.sleep, 60)
    assert heavy.submit(jobs.double, 1) == 2


def test_what_does_not_travel_is_refused_before_any_child_starts(heavy: Heavy) -> None:
    with pytest.raises(TypeError):
        heavy.submit(threading.Event().wait)


def test_work_beyond_its_memory_is_refused(heavy: Heavy) -> None:
    with pytest.raises(HeavyOutOfMemory):
        heavy.submit(jobs.fill, 2048 * MIB)
    assert heavy.submit(jobs.double, 1) == 2


def test_a_child_that_dies_is_named_and_replaced(heavy: Heavy) -> None:
    with pytest.raises(HeavyCrashed):
        heavy.submit(os._exit, 3)
    with pytest.raises(HeavyCrashed):
        heavy.submit(os.abort)
    child = heavy.submit(jobs.pid)
    os.kill(child, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while _runs(child) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert heavy.submit(jobs.double, 1) == 2


def test_many_threads_share_few_children(heavy: Heavy) -> None:
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda number: heavy.submit(jobs.double, number), range(100))) == list(range(0, 200, 2))
        assert len(set(pool.map(lambda _: heavy.submit(jobs.pid), range(50)))) <= 2


def test_who_waits_too_long_for_a_child_is_told() -> None:
    pool = Heavy(workers=1, memory_bytes=512 * MIB, deadline=0.3)
    with ThreadPoolExecutor(1) as thread:
        busy = thread.submit(pool.within, 3, time.sleep, 60)
        refused = None
        while refused is None and not busy.done():
            try:
                pool.submit(jobs.double, 1)
            except Busy as error:
                refused = error
        assert refused is not None
        with pytest.raises(HeavyTimeout):
            busy.result()
    pool.close()


def test_a_closed_pool_takes_nothing() -> None:
    pool = Heavy(workers=1, memory_bytes=512 * MIB, deadline=5)
    pool.submit(jobs.double, 1)
    pool.close()
    pool.close()
    with pytest.raises(HeavyCrashed):
        pool.submit(jobs.double, 1)


def test_children_die_with_their_parent_in_the_middle_of_a_job(tmp_path: Path) -> None:
    told = tmp_path / "pid"
    program = (
        "import sys; from lfs.heavy import Heavy; from tests.lfs import jobs;"
        "Heavy(workers=1, memory_bytes=1 << 29, deadline=600).submit(jobs.sleep_beside, sys.argv[1])"
    )
    parent = subprocess.Popen([sys.executable, "-c", program, str(told)], cwd=Path(__file__).parents[2])
    deadline = time.monotonic() + 20
    while not (told.exists() and told.read_text()) and time.monotonic() < deadline:
        time.sleep(0.02)
    child = int(told.read_text())
    parent.kill()
    parent.wait()
    while _runs(child) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not _runs(child)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
