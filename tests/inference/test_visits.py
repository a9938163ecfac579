"""What a request holds is given back once, whenever it ends; a closing house lets nobody in and waits."""

from __future__ import annotations

import threading

import pytest

from inference.errors import SidecarError, Unavailable
from inference.visits import Visits


def test_what_is_kept_is_given_back_in_reverse_and_once() -> None:
    visit = Visits().enter()
    given: list[str] = []
    visit.keep(lambda: given.append("first"))
    visit.keep(lambda: given.append("second"))
    visit.close()
    visit.close()
    assert given == ["second", "first"]


def test_what_comes_after_the_end_is_given_back_at_once() -> None:
    visit = Visits().enter()
    visit.close()
    given: list[str] = []
    visit.keep(lambda: given.append("late"))
    assert given == ["late"]


def test_a_closing_house_lets_nobody_in() -> None:
    visits = Visits()
    assert visits.drain(0.0)
    with pytest.raises(Unavailable) as caught:
        visits.enter()
    assert caught.value.code == "draining"
    assert caught.value.retry_after == 1


def test_a_closing_house_waits_for_those_inside() -> None:
    visits = Visits()
    visit = visits.enter()
    threading.Timer(0.05, visit.close).start()
    assert visits.drain(10.0)


def test_those_who_stay_too_long_are_told_even_if_they_listen_late() -> None:
    visits = Visits()
    listening, late = visits.enter(), visits.enter()
    told: list[SidecarError] = []

    def leave(error: SidecarError) -> None:
        told.append(error)
        listening.close()
        late.on_abort(told.append)
        late.close()

    listening.on_abort(leave)
    assert not visits.drain(0.0)
    wanted = 2 if late.error is not None else 1
    assert len(told) == wanted
    assert all(error.code == "draining" for error in told)
