"""Values are made once, however many ask, and failures are not remembered."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from lfs.memory import Memory


def test_threads_that_ask_together_wait_for_one_maker() -> None:
    memory: Memory[str, int] = Memory(10_000, lambda _: 100)
    everybody, made = threading.Barrier(8), []
    allowed = threading.Event()

    def make() -> int:
        made.append(1)
        allowed.wait(10)
        return 7

    def ask(_: int) -> int:
        everybody.wait(10)
        return memory.get("key", make)

    with ThreadPoolExecutor(8) as pool:
        answers = pool.map(ask, range(8))
        allowed.set()
        assert list(answers) == [7] * 8
    # A thread that came after the value was kept found it; none came in between.
    assert len(made) == 1


def test_a_failure_reaches_who_waits_and_is_tried_again() -> None:
    memory: Memory[str, int] = Memory(10_000, lambda _: 100)

    def fail() -> int:
        raise KeyError("gone")

    for _ in range(2):
        with pytest.raises(KeyError):
            memory.get("key", fail)
    assert memory.peek("key") is None
    assert memory.get("key", lambda: 3) == 3
    assert memory.peek("key") == 3


def test_the_least_recently_used_value_leaves_first() -> None:
    memory: Memory[int, int] = Memory(1600, lambda _: 100)
    for key in range(16):
        memory.get(key, lambda key=key: key)
    memory.get(0, lambda: -1)
    memory.get(99, lambda: 99)
    assert memory.peek(0) == 0
    assert memory.peek(1) is None


def test_a_giant_is_given_and_not_kept() -> None:
    memory: Memory[str, bytes] = Memory(1600, len)
    assert memory.get("big", lambda: bytes(101)) == bytes(101)
    assert memory.peek("big") is None


def test_false_is_a_value_like_any_other() -> None:
    memory: Memory[str, bool] = Memory(1600, lambda _: 1)
    memory.get("no", lambda: False)
    assert memory.get("no", lambda: True) is False


def test_a_value_that_cannot_be_kept_leaves_nobody_waiting() -> None:
    came, allowed = threading.Event(), threading.Event()

    def cost(value: int) -> int:
        came.set()
        allowed.wait(10)
        raise MemoryError

    memory: Memory[str, int] = Memory(10_000, cost)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(memory.get, "key", lambda: 7)
        assert came.wait(10)
        second = pool.submit(memory.get, "key", lambda: 7)
        with pytest.raises(TimeoutError):
            second.result(0.2)
        allowed.set()
        for asked in (first, second):
            with pytest.raises(MemoryError):
                asked.result(10)
