"""Callers share the work of those who wait with them, and nothing else."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from registry.errors import Busy
from registry.together import Together


def test_who_waits_while_others_work_is_served_in_one_group() -> None:
    groups: list[list[int]] = []
    begun, go = threading.Event(), threading.Event()

    def work(asked: Sequence[int]) -> list[int]:
        groups.append(list(asked))
        begun.set()
        assert go.wait(timeout=10)
        return [number * 2 for number in asked]

    together: Together[int, int] = Together(work, most=4)
    with ThreadPoolExecutor(7) as threads:
        first = threads.submit(together.ask, 0)
        assert begun.wait(timeout=10)
        others = [threads.submit(together.ask, number) for number in range(1, 7)]
        while len(together._waiting) < 6:
            threading.Event().wait(0.001)
        go.set()
        assert [done.result(timeout=10) for done in [first, *others]] == [number * 2 for number in range(7)]
    assert [len(group) for group in groups] == [1, 4, 2]


def test_one_caller_waits_for_no_company() -> None:
    together: Together[int, int] = Together(lambda asked: [number + 1 for number in asked])
    assert [together.ask(number) for number in range(3)] == [1, 2, 3]


def test_callers_that_come_again_are_served_together_again() -> None:
    groups: list[int] = []

    def work(asked: Sequence[int]) -> Sequence[int]:
        groups.append(len(asked))
        # A disk that takes its time: long enough for everybody to ask again.
        threading.Event().wait(0.02)
        return asked

    together: Together[int, int] = Together(work)

    def call(number: int) -> None:
        for _ in range(10):
            together.ask(number)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(call, range(8)))
    assert sum(groups) == 80
    # Without a word of who was here before, every second turn would serve one caller.
    assert len(groups) <= 15


def _group(work: object, asked: Sequence[int]) -> list[object]:
    """Ask for all numbers at once, so that all but the first are one group."""
    gate = threading.Event()

    def held(numbers: Sequence[int]) -> Sequence[int | Exception]:
        assert gate.wait(timeout=10)
        return work(numbers)  # type: ignore[operator]

    together: Together[int, int] = Together(held)

    def call(number: int) -> object:
        try:
            return together.ask(number)
        except Exception as error:
            return error

    with ThreadPoolExecutor(len(asked)) as threads:
        calls = [threads.submit(call, number) for number in asked]
        while len(together._waiting) < len(asked) - 1:
            threading.Event().wait(0.001)
        gate.set()
        return [done.result(timeout=10) for done in calls]


def test_an_error_that_nobody_foresaw_is_the_error_of_one() -> None:
    def work(asked: Sequence[int]) -> list[int]:
        if 3 in asked:
            raise ValueError("three")
        return list(asked)

    found = _group(work, [1, 2, 3, 4])
    assert found[:2] + found[3:] == [1, 2, 4]
    assert isinstance(found[2], ValueError)


def test_a_busy_database_is_asked_once_for_all() -> None:
    calls: list[int] = []

    def work(asked: Sequence[int]) -> list[int]:
        calls.append(len(asked))
        raise Busy("not now")

    assert all(isinstance(error, Busy) for error in _group(work, [1, 2, 3, 4]))
    assert len(calls) <= 2


def test_a_leader_that_is_stopped_leaves_nobody_waiting() -> None:
    def work(asked: Sequence[int]) -> list[int]:
        raise KeyboardInterrupt

    together: Together[int, int] = Together(work)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            together.ask(1)


def test_a_caller_with_many_wishes_hears_of_each() -> None:
    def work(asked: Sequence[int]) -> Sequence[int | Exception]:
        if 13 in asked and len(asked) > 1:
            raise ValueError("one of them is unlucky")
        return [ValueError("unlucky") if number == 13 else -number for number in asked]

    together: Together[int, int] = Together(work)
    found = together.ask_all([1, 13, 2])
    assert [found[0], found[2]] == [-1, -2]
    assert isinstance(found[1], ValueError)
    assert together.ask_all([]) == []
