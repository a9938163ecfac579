"""What was used lately stays, within the budget and no longer."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lfs.recent import Recent


def test_the_longest_unused_leaves_first() -> None:
    kept: Recent[str, int] = Recent(160)
    for number in range(16):
        kept.keep(str(number), number, 10)
    assert kept.get("0") == 0
    kept.keep("one more", 1, 10)
    assert kept.get("1") is None
    assert kept.get("0") == 0


def test_a_giant_does_not_empty_the_cache_and_the_first_value_stays() -> None:
    kept: Recent[str, int] = Recent(160)
    kept.keep("small", 1, 10)
    kept.keep("giant", 2, 11)
    kept.keep("small", 3, 10)
    assert (kept.get("small"), kept.get("giant")) == (1, None)


@given(costs=st.lists(st.integers(0, 20), max_size=60))
def test_the_budget_is_never_passed(costs: list[int]) -> None:
    kept: Recent[int, int] = Recent(100)
    for key, cost in enumerate(costs):
        kept.keep(key, cost, cost)
        held = (kept.get(number) for number in range(key + 1))
        assert sum(one for one in held if one is not None) <= 100
