"""Patterns match as git's do, and cost no more than they are given."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.globs import Budget, TooCostly, match_name, pattern_of


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("*.bin", "a/b.bin", True),
        ("*.bin", "a.bin/b", False),
        ("a", "b/a", True),
        ("/a", "b/a", False),
        ("b/a", "b/a", True),
        ("b/*", "b/a/c", False),
        ("b/**", "b/a/c", True),
        ("b/**", "b", False),
        ("**/c", "c", True),
        ("a/**/c", "a/c", True),
        ("a/**/c", "a/x/y/c", True),
        ("a**c", "a/c", False),
        ("**", "a/b/c", True),
        ("?.[a-c]", "x.b", True),
        ("[!a]", "a", False),
        ("[]]", "]", True),
        ("[", "[", False),
        ("[a", "a", False),
        ("[[:digit:]]*", "7x", True),
        ("[[:nothing:]]", "7", False),
        ("\\*", "*", True),
        ("\\*", "x", False),
    ],
)
def test_patterns_mean_what_git_says(pattern, path, matches):
    assert pattern_of(pattern).matches(path, Budget()) is matches


@given(st.text(min_size=1), st.text(min_size=1))
def test_any_pattern_matches_or_does_not(pattern, path):
    assert pattern_of(pattern).matches(path, Budget()) in (True, False)


@given(st.text(alphabet="ab*", min_size=1, max_size=8), st.text(alphabet="ab", max_size=8))
def test_stars_match_as_a_regular_expression_would(pattern, name):
    def slow(rest, left):
        if not rest:
            return not left
        if rest[0] == "*":
            return any(slow(rest[1:], left[cut:]) for cut in range(len(left) + 1))
        return left[:1] == rest[0] and slow(rest[1:], left[1:])

    assert match_name(pattern, name, Budget()) is slow(pattern, name)


def test_a_hostile_pattern_costs_little():
    start = time.perf_counter()
    assert not match_name("*a" * 100 + "b", "a" * 250, Budget())
    assert not pattern_of("/".join(["**"] * 400 + ["x"])).matches("/".join("a" * 100), Budget())
    assert time.perf_counter() - start < 2


def test_a_budget_ends():
    with pytest.raises(TooCostly):
        match_name("*a*b", "a" * 100, Budget(50))
    with pytest.raises(TooCostly):
        pattern_of("a/**/b").matches("a/" * 100, Budget(50))
