"""Buckets count per user or address, in windows that begin anew, and say so as huggingface_hub reads it."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from registry.limits import USER_FACTOR, WINDOW, Limits


def limits(quota: int, at: list[float]) -> Limits:
    return Limits({"api": quota, "git": 0}, clock=lambda: at[0])


def test_the_request_after_the_last_allowed_one_is_refused_until_the_window_ends() -> None:
    at = [10.0]
    counted = limits(2, at)
    readings = [counted.take("api", "10.0.0.1") for _ in range(3)]
    assert [reading.refused for reading in readings if reading] == [False, False, True]
    assert [reading.left for reading in readings if reading] == [1, 0, 0]
    at[0] = float(WINDOW)
    again = counted.take("api", "10.0.0.1")
    assert again is not None
    assert not again.refused


def test_addresses_and_buckets_do_not_share_a_count() -> None:
    counted = limits(1, [0.0])
    for address in ("10.0.0.1", "10.0.0.2"):
        reading = counted.take("api", address)
        assert reading is not None
        assert not reading.refused
    assert counted.take("git", "10.0.0.1") is None
    assert counted.take("pages", "10.0.0.1") is None


def test_a_known_user_gets_ten_times_as_many_wherever_they_come_from() -> None:
    counted = limits(1, [0.0])
    counted.know("print", 7)
    readings = [counted.take("api", f"10.0.0.{n}", "print") for n in range(USER_FACTOR + 1)]
    assert [reading.refused for reading in readings if reading] == [False] * USER_FACTOR + [True]


def test_guessed_tokens_count_for_their_address() -> None:
    counted = limits(1, [0.0])
    counted.take("api", "10.0.0.1", "guess-1")
    reading = counted.take("api", "10.0.0.1", "guess-2")
    assert reading is not None
    assert reading.refused


@given(st.integers(1, 50), st.integers(1, 60), st.floats(0, 10**6))
def test_headers_have_the_form_that_the_client_parses(quota: int, requests: int, at: float) -> None:
    counted = limits(quota, [at])
    for _ in range(requests):
        reading = counted.take("api", "10.0.0.1")
    assert reading is not None
    headers = dict(reading.headers())
    match = re.fullmatch(r'"(\w+)";r=(\d+);t=(\d+)', headers["ratelimit"])
    assert match is not None
    assert match[1] == "api"
    assert int(match[2]) == max(0, quota - requests)
    assert 1 <= int(match[3]) <= WINDOW
    assert headers["ratelimit-policy"] == f'"fixed window";"api";q={quota};w={WINDOW}'
    assert ("retry-after" in headers) == (requests > quota)
