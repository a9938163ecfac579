"""Filters parse as git writes them, combine, and refuse what they do not know."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.errors import BadBody
from registry.git.filters import Filter, parse


@pytest.mark.parametrize(
    ("spec", "meaning"),
    [
        ("blob:none", Filter(blob_limit=0)),
        ("blob:limit=10", Filter(blob_limit=10)),
        ("blob:limit=2k", Filter(blob_limit=2048)),
        ("blob:limit=1M", Filter(blob_limit=1 << 20)),
        ("tree:0", Filter(depth=0)),
        ("object:type=blob", Filter(kinds=frozenset([3]))),
        ("combine:blob:limit=10+tree:3", Filter(blob_limit=10, depth=3)),
        ("combine:blob:none+blob:limit=10", Filter(blob_limit=0)),
        ("combine:tree%3A3+blob%3Anone", Filter(blob_limit=0, depth=3)),
        ("combine:object:type=blob+object:type=tree", Filter(kinds=frozenset())),
    ],
)
def test_filters_mean_what_git_means(spec: str, meaning: Filter) -> None:
    assert parse(spec) == meaning
    assert parse(spec)


@pytest.mark.parametrize(
    "spec",
    ["", "blob", "blob:limit=", "blob:limit=x", "blob:limit=-1", "tree:", "tree:-1", "tree:٣", "object:type=x",
     "sparse:oid=" + "1" * 40, "combine:", "combine:tree:1+", "combine:combine:tree:1", "combine:" + "tree:1+" * 70],
)  # fmt: skip
def test_what_is_not_known_is_refused(spec: str) -> None:
    with pytest.raises(BadBody):
        parse(spec)


@given(spec=st.one_of(st.text(max_size=60), st.from_regex(r"(blob|tree|combine|object):[a-z0-9:=+%]*", fullmatch=True)))
def test_garbage_raises_only_our_error(spec: str) -> None:
    try:
        assert isinstance(parse(spec), Filter)
    except BadBody:
        pass


def test_equal_filters_have_equal_texts() -> None:
    assert parse("combine:tree:3+blob:none").text == parse("combine:blob:none+tree:3").text
    assert not Filter()
