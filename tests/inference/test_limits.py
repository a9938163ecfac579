"""Admission: a full line refuses with a time, a place is never lost, and no actor stands in another's way."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.errors import Overloaded
from inference.limits import Lines, Place


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def _join(lines: Lines, actor: str = "a", *, rows: int = 1, ring: Callable[[], None] = lambda: None) -> Place:
    return lines.join(model="m", actor=actor, rows=rows, tokens=100, ring=ring)


def test_a_free_model_is_entered_at_once() -> None:
    lines = Lines(max_queue=2, slots=2)
    assert _join(lines).granted
    assert _join(lines).granted
    assert not _join(lines).granted
    assert lines.counts() == (1, 2)


def test_who_waits_is_rung_when_a_place_is_free() -> None:
    lines = Lines(max_queue=2, slots=1)
    rung: list[str] = []
    first = _join(lines)
    second = _join(lines, ring=lambda: rung.append("second"))
    assert not second.granted
    first.leave(10)
    first.leave(10)
    assert second.granted
    assert rung == ["second"]
    assert lines.counts() == (0, 1)


def test_actors_take_turns() -> None:
    lines = Lines(max_queue=10, slots=1)
    running = _join(lines, "busy")
    busy = [_join(lines, "busy") for _ in range(3)]
    other = _join(lines, "other")
    running.leave()
    assert busy[0].granted
    busy[0].leave()
    assert other.granted
    assert not busy[1].granted


def test_a_full_line_refuses_with_seconds_by_the_measured_rate() -> None:
    clock = Clock()
    lines = Lines(max_queue=2, slots=1, clock=clock)
    for _ in range(3):
        place = _join(lines)
        place.leave(100)
    places = [_join(lines) for _ in range(3)]
    with pytest.raises(Overloaded) as caught:
        _join(lines)
    # 300 tokens in 30 s are 10 a second; 200 tokens wait.
    assert caught.value.retry_after == 20
    assert places[0].granted


def test_who_leaves_the_line_is_not_waited_for() -> None:
    lines = Lines(max_queue=5, slots=1)
    first, second, third = (_join(lines) for _ in range(3))
    second.leave()
    first.leave()
    assert third.granted
    assert not second.granted


def test_many_rows_wait_for_room_and_are_not_overtaken() -> None:
    lines = Lines(max_queue=5, slots=4)
    running = _join(lines, rows=3)
    wide = _join(lines, "wide", rows=4)
    narrow = _join(lines, "narrow")
    assert not wide.granted
    assert not narrow.granted
    running.leave()
    assert wide.granted
    wide.leave()
    assert narrow.granted


def test_a_request_wider_than_the_engine_enters_alone() -> None:
    assert _join(Lines(max_queue=5, slots=4), rows=16).granted


def test_the_house_has_a_limit_over_all_models() -> None:
    lines = Lines(max_queue=1, slots=1)
    for number in range(16):
        lines.join(model=f"m{number}", actor="a", rows=1, tokens=1, ring=lambda: None)
    with pytest.raises(Overloaded):
        lines.join(model="another", actor="a", rows=1, tokens=1, ring=lambda: None)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 4), st.booleans()), max_size=40))
def test_whatever_the_order_every_place_is_served_or_left(steps: list[tuple[str, int, bool]]) -> None:
    lines = Lines(max_queue=1000, slots=4)
    places: list[Place] = []
    for actor, rows, leaves in steps:
        places.append(_join(lines, actor, rows=rows))
        if leaves:
            next(place for place in places if place.granted).leave()
            places = [place for place in places if place in places]
    for _ in range(len(places) + 1):
        for place in places:
            if place.granted:
                place.leave()
    assert all(place.granted for place in places)
    assert lines.counts() == (0, 0)
