"""Work in the background holds nobody up, happens once per repo in line, and ends with the server."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable

import pytest

from registry.errors import Busy
from registry.upkeep.background import Background

PATIENCE = 10.0


class Bell:
    """Work that says which repo it is at, and goes on when it is let."""

    def __init__(self) -> None:
        self.begun: queue.SimpleQueue[int] = queue.SimpleQueue()
        self.let = threading.Semaphore(0)
        self.stopping: Callable[[], bool] = lambda: False

    def work(self, repo_id: int, *, stopping: Callable[[], bool]) -> None:
        """Wait to be let."""
        self.stopping = stopping
        self.begun.put(repo_id)
        assert self.let.acquire(timeout=PATIENCE)

    def next(self) -> int:
        """The repo that the work is at."""
        return self.begun.get(timeout=PATIENCE)


def test_a_repo_waits_once_and_is_looked_at_again_if_told_during_its_work() -> None:
    bell = Bell()
    background = Background("test", bell.work)
    background.tell(1)
    assert bell.next() == 1
    for repo_id in (1, 2, 1, 2, 1):
        background.tell(repo_id)
    bell.let.release(3)
    assert (bell.next(), bell.next()) == (1, 2)
    background.close()
    assert bell.begun.empty()


def test_stopping_drops_what_waits_and_tells_what_runs() -> None:
    bell = Bell()
    background = Background("test", bell.work)
    background.tell(1)
    assert bell.next() == 1
    background.tell(2)
    background.close(patience=0.01)
    assert bell.stopping()
    bell.let.release()
    background.close(patience=PATIENCE)
    background.tell(3)
    assert bell.begun.empty()


def test_a_failure_goes_to_the_log_and_the_next_repo_is_done(caplog: pytest.LogCaptureFixture) -> None:
    done: queue.SimpleQueue[int] = queue.SimpleQueue()

    def work(repo_id: int, *, stopping: Callable[[], bool]) -> None:
        if repo_id == 1:
            raise Busy("full up")
        if repo_id == 2:
            raise ZeroDivisionError
        done.put(repo_id)

    background = Background("test", work)
    with caplog.at_level(logging.WARNING):
        for repo_id in (1, 2, 3):
            background.tell(repo_id)
        assert done.get(timeout=PATIENCE) == 3
    background.close()
    first, second = caplog.records
    assert "repo 1 was left as it is: full up" in first.message
    assert second.exc_info is not None


def test_a_thread_that_was_never_needed_is_never_started() -> None:
    before = threading.active_count()
    background = Background("test", Bell().work)
    background.close()
    assert threading.active_count() == before
