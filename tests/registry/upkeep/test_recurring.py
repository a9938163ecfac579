"""Work that comes round goes on after a failure, and ends when it is told to."""

from __future__ import annotations

import threading

import pytest

from lfs.errors import Unavailable
from registry.upkeep.recurring import Recurring


@pytest.mark.parametrize("error", [Unavailable("later"), RuntimeError("never thought of")])
def test_a_failure_does_not_end_it(error: Exception) -> None:
    times, again = 0, threading.Event()

    def work() -> None:
        nonlocal times
        times += 1
        if times == 1:
            raise error
        again.set()

    recurring = Recurring("test", work, seconds=0.01)
    recurring.start()
    assert again.wait(10)
    recurring.close()


def test_it_ends_at_once_while_it_waits() -> None:
    done = threading.Event()
    recurring = Recurring("test", done.set, seconds=3600)
    recurring.start()
    assert done.wait(10)
    recurring.close(patience=10)
    assert not recurring._thread.is_alive()
    recurring.close()


def test_one_that_never_began_may_be_closed() -> None:
    Recurring("test", lambda: None, seconds=1).close()
