"""Text is cut where a stop string is first complete, whatever pieces it came in."""

from __future__ import annotations

import time

from hypothesis import given
from hypothesis import strategies as st

from inference.parse import Cutter

LETTERS = st.text("ab.", max_size=40)
STOPS = st.lists(st.text("ab.", min_size=1, max_size=4), max_size=4)


def _all(pieces: list[str], stops: list[str]) -> tuple[str, bool]:
    cutter = Cutter(stops)
    text = "".join(cutter.feed(piece) for piece in pieces)
    return text + cutter.rest(), cutter.stopped


def test_a_stop_string_over_two_pieces_is_never_shown() -> None:
    cutter = Cutter(["END"])
    assert cutter.feed("so E") == "so "
    assert cutter.feed("N") == ""
    assert cutter.feed("D and more") == ""
    assert cutter.stopped
    assert cutter.feed("later") == ""
    assert cutter.rest() == ""


def test_what_only_looked_like_a_stop_string_is_shown_after_all() -> None:
    cutter = Cutter(["END"])
    assert cutter.feed("EN") == ""
    assert cutter.feed("TER E") == "ENTER "
    assert cutter.rest() == "E"
    assert not cutter.stopped


def test_the_stop_string_that_is_complete_first_wins() -> None:
    assert _all(["xabcdy"], ["abcd", "bc"]) == ("xa", True)


@given(LETTERS, STOPS, st.lists(st.integers(1, 5), max_size=40))
def test_pieces_do_not_change_the_cut(text: str, stops: list[str], sizes: list[int]) -> None:
    pieces, rest = [], text
    for size in sizes:
        pieces.append(rest[:size])
        rest = rest[size:]
    one_by_one = _all([*pieces, rest], stops)
    assert one_by_one[0] == _all(list(text), stops)[0]
    shown, stopped = one_by_one
    assert text.startswith(shown)
    assert stopped == any(stop in text for stop in stops)
    assert not any(stop in shown for stop in stops)


@given(st.text("ab", max_size=60), st.lists(st.text("ab", min_size=1, max_size=6), min_size=1, max_size=4))
def test_the_cut_is_where_plain_search_finds_it(text: str, stops: list[str]) -> None:
    ends = [(text.find(stop) + len(stop), text.find(stop)) for stop in stops if stop in text]
    assert _all(list(text), stops) == ((text[: min(ends)[1]], True) if ends else (text, False))


def test_long_stop_strings_that_nearly_match_cost_little() -> None:
    stops = ["a" * (1000 + n) + "b" for n in range(16)]
    cutter = Cutter(stops)
    began = time.process_time()
    shown = "".join(cutter.feed("aaaa") for _ in range(1000))
    assert time.process_time() - began < 2
    assert len(shown) + len(cutter.rest()) == 4000
