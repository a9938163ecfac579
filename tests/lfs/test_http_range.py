"""A Range header asks for bytes that exist, or is ignored, or is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lfs.errors import RangeUnsatisfiable
from lfs.http_range import asked, content_range, unsatisfied


@pytest.mark.parametrize(
    ("header", "span"),
    [
        ("bytes=0-0", (0, 1)),
        ("bytes=2-5", (2, 6)),
        ("bytes=2-", (2, 10)),
        ("bytes=2-99", (2, 10)),
        ("bytes=-3", (7, 10)),
        ("bytes=-99", (0, 10)),
        ("Bytes = 1-2", (1, 3)),
        (None, None),
        ("", None),
        ("bytes=5-2", None),
        ("bytes=0-1,3-4", None),
        ("lines=0-1", None),
        ("bytes=a-b", None),
        ("bytes=-", None),
        ("bytes=١-٢", None),
    ],
)
def test_a_range_of_ten_bytes(header: str | None, span: tuple[int, int] | None) -> None:
    assert asked(header, 10) == span


@pytest.mark.parametrize("header", ["bytes=10-", "bytes=10-20", "bytes=-0"])
def test_a_range_that_does_not_exist_is_refused(header: str) -> None:
    with pytest.raises(RangeUnsatisfiable) as refused:
        asked(header, 10)
    assert refused.value.size == 10


@pytest.mark.parametrize("header", ["bytes=0-", "bytes=-1", "bytes=0-0"])
def test_an_empty_object_has_no_range(header: str) -> None:
    with pytest.raises(RangeUnsatisfiable):
        asked(header, 0)


@pytest.mark.parametrize(
    ("if_range", "span"),
    [('"a"', (2, 10)), ('"b"', None), ('W/"a"', None), ("Wed, 21 Oct 2026 07:28:00 GMT", None), (None, (2, 10))],
)
def test_if_range_must_name_this_version(if_range: str | None, span: tuple[int, int] | None) -> None:
    assert asked("bytes=2-", 10, if_range=if_range, etag='"a"') == span


@given(st.integers(1, 2**63), st.data())
def test_every_range_within_comes_back(size: int, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, size - 1))
    end = data.draw(st.integers(start + 1, size))
    assert asked(f"bytes={start}-{end - 1}", size) == (start, end)
    assert content_range(start, end, size) == f"bytes {start}-{end - 1}/{size}"


@given(st.text(max_size=60), st.integers(0, 1000))
def test_garbage_gives_the_whole_or_our_refusal(header: str, size: int) -> None:
    for text in (header, "bytes=" + header):
        try:
            span = asked(text, size)
        except RangeUnsatisfiable:
            continue
        assert span is None or 0 <= span[0] < span[1] <= size


def test_a_refusal_names_the_size() -> None:
    assert unsatisfied(10) == "bytes */10"
