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
    have = [
        (name, set(range(*span)) & set(range(n)))
        for name, file in zip(names, given, strict=True)
        for xorb, span in file
        if xorb == X
    ]
    have = [(name, chunks) for name, chunks in have if chunks]

    def covered(by: set[bytes]) -> bool:
        return set().union(*(chunks for name, chunks in have if name in by)) >= set(range(n))

    assert uses.whole == ({X} if covered(set(names)) else set())
    assert uses.open != bool(uses.whole)
    assert uses.file == ({X: have[0][0]} if have else {})
    # The files that it rests on are enough, and without one of them it is not believed.
    assert covered(uses.proofs()) or not uses.whole
    assert uses.whole_by(uses.proofs()) == uses.whole
    for name in uses.proofs():
        assert uses.whole_by(set(names) - {name}) == set()


def test_what_there_is_no_room_for_is_not_whole() -> None:
    uses = Uses({X: 8, Y: 8}, room=12)
    uses.read(b"a", packed([Part(X, 0, 4, 0), Part(Y, 0, 8, 0)]))
    uses.read(b"b", packed([Part(Y, 0, 8, 0), Part(X, 4, 8, 0)]))
    assert uses.whole == {X}
    assert not uses.open
