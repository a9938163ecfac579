"""Waiting for uploads: often at first, then seldom, now and then with a word, never too long and never too many."""

from __future__ import annotations

import itertools

import pytest

from registry.awaiting import Awaiting, Pause
from registry.errors import StillChecked

STILL = StillChecked("wait", repo_id=1, objects={"a" * 64: 1024, "b" * 64: 1024})


class Slow:
    """Uploads that are checked one by one, and a clock that moves only when somebody sleeps."""

    def __init__(self, most: int = 2) -> None:
        self.at = 0.0
        self.left = dict(STILL.objects)
        self.awaiting = Awaiting(lambda repo_id, oids: self.left, seconds=30.0, most=most, clock=lambda: self.at)

    def sleep(self, pause: Pause) -> None:
        """Let the time of a pause pass."""
        self.at += pause.seconds


def test_looks_become_seldom_and_words_come_every_five_seconds() -> None:
    slow, delays, told = Slow(), [], []
    with slow.awaiting.place() as wait:
        while slow.at < 12 and (pause := wait.pause(STILL)):
            delays.append(pause.seconds)
            if pause.line:
                told.append((slow.at, pause.line))
            slow.sleep(pause)
    assert delays[0] == 0.05
    assert delays == sorted(delays)
    assert delays[-1] == 1.0
    assert [line for _, line in told] == ["2 uploaded objects (2 KiB) are being checked"] * 3
    assert all(5 <= later - sooner <= 6 for (sooner, _), (later, _) in itertools.pairwise(told))


def test_it_ends_when_nothing_is_being_checked_any_more() -> None:
    slow = Slow()
    with slow.awaiting.place() as wait:
        pause = wait.pause(STILL)
        assert pause is not None
        slow.left.popitem()
        slow.at += 6
        pause = wait.pause(STILL)
        assert pause is not None
        assert pause.line == "1 uploaded object (1 KiB) is being checked"
        slow.left.clear()
        assert wait.pause(STILL) is None
        assert wait.patient


def test_patience_is_counted_over_all_rounds() -> None:
    slow = Slow()
    with slow.awaiting.place() as wait:
        left, slow.left = slow.left, {}
        assert wait.pause(STILL) is None
        slow.left, slow.at = left, 29.9
        pause = wait.pause(STILL)
        assert pause is not None
        assert slow.at + pause.seconds == pytest.approx(29.95)
        slow.at = 30.0
        assert wait.pause(STILL) is None
        assert not wait.patient


def test_places_are_bounded_and_given_back() -> None:
    slow = Slow(most=1)
    with slow.awaiting.place() as first, slow.awaiting.place() as second:
        assert first.pause(STILL) is not None
        assert second.pause(STILL) is None
        assert not second.patient
    with slow.awaiting.place() as third:
        assert third.pause(STILL) is not None


def test_who_never_waits_takes_no_place() -> None:
    slow = Slow(most=1)
    with slow.awaiting.place(), slow.awaiting.place() as wait:
        assert wait.pause(STILL) is not None
