"""JSON from the wire is a value or our refusal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lfs.bodies import count_of, document, ref_of, text_of
from lfs.errors import BadRequest


@given(st.binary(max_size=100))
def test_garbage_is_refused_in_our_words(body: bytes) -> None:
    try:
        assert isinstance(document(body), dict)
    except BadRequest:
        pass


@given(st.none() | st.integers() | st.text() | st.lists(st.none()) | st.booleans() | st.floats())
def test_a_field_is_text_or_refused(value: object) -> None:
    for read in (
        text_of,
        lambda fields, name: ref_of({"ref": fields[name]}),
        lambda f, n: ref_of({"ref": {"name": f[n]}}),
    ):
        try:
            text = read({"field": value}, "field")
        except BadRequest:
            assert value is not None
        else:
            assert text.encode() == (value or "").encode()  # type: ignore[union-attr]
            assert "\0" not in text


@pytest.mark.parametrize(("value", "count"), [(None, None), ("", None), (0, 0), (7, 7), ("7", 7)])
def test_a_count_is_a_whole_number(value: object, count: int | None) -> None:
    assert count_of(value, "limit") == count


@pytest.mark.parametrize("value", [-1, "-1", "x", "٣", 1.5, True, [], "9" * 30])
def test_anything_else_is_no_count(value: object) -> None:
    with pytest.raises(BadRequest, match="limit"):
        count_of(value, "limit")
