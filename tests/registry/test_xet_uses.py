"""A xorb is one's own if one's files have every chunk of it, in whatever order and overlap."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lfs.xet.index import Part, packed
from registry.xet_uses import Uses

X, Y = b"x" * 32, b"y" * 32
spans = st.tuples(st.integers(0, 9), st.integers(1, 5)).map(lambda span: (span[0], span[0] + span[1]))
files = st.lists(st.lists(st.tuples(st.sampled_from([X, Y]), spans), max_size=4), max_size=6)


@given(files, st.integers(1, 10))
def test_a_xorb_is_whole_when_no_chunk_of_it_is_left_out(
    given: list[list[tuple[bytes, tuple[int, int]]]], n: int
) -> None:
    names = [bytes([at]) * 32 for at in range(len(given))]
    terms = {
        name: packed([Part(xorb, start, end, 0) for xorb, (start, end) in file])
        for name, file in zip(names, given, strict=True)
    }
    uses = Uses({X: n})
    for name in names:
        uses.read(name, terms[name])
    here = [
        (name, set(range(*span))) for name, file in zip(names, given, strict=True) for xorb, span in file if xorb == X
    ]
    assert uses.whole == ({X} if set().union(*(chunks for _, chunks in here)) >= set(range(n)) else set())
    assert uses.file == ({X: here[0][0]} if here else {})
    assert uses.files == set(names)
