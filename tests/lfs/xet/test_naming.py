"""Files are named a batch at a time as they are named whole."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lfs.xet import hashes, naming
from lfs.xet.naming import here, named, rows

Leaves = list[tuple[bytes, int]]


def leaves(count: int, seed: int = 0, groups: Callable[[int], int] = lambda dice: dice) -> Leaves:
    """Chunks by hash and length; `groups` turns the byte by which groups end."""
    dice = random.Random(seed)
    return [
        (dice.randbytes(24) + bytes([groups(dice.randrange(256))]) + dice.randbytes(7), dice.randrange(1, 131_073))
        for _ in range(count)
    ]


def given_in(files: list[Leaves], size: int) -> Iterator[tuple[int, Iterator[bytes]]]:
    for file in files:
        yield len(file), iter([rows(file[at : at + size]) for at in range(0, len(file), size)])


@given(
    counts=st.lists(st.integers(0, 400), max_size=6),
    batch=st.integers(9, 60),
    piece=st.integers(1, 50),
    groups=st.sampled_from([lambda byte: byte, lambda byte: byte | 1, lambda byte: byte & 0xFC]),
)
def test_batches_of_any_size_give_the_names_of_the_whole(
    counts: list[int], batch: int, piece: int, groups: Callable[[int], int]
) -> None:
    files = [leaves(count, seed, groups) for seed, count in enumerate(counts)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(naming, "BATCH", batch)
        assert list(named(given_in(files, piece), here)) == [hashes.file(file) for file in files]


def test_no_run_has_more_than_a_batch_and_a_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(naming, "BATCH", 100)
    sizes: list[int] = []

    def run(function: Callable[..., object], *args: object, **kwargs: object) -> object:
        given = [args[0]] if isinstance(args[0], bytes) else list(args[0])  # type: ignore[call-overload]  # of bytes
        sizes.extend(len(each) // 40 for each in given)
        return function(*args, **kwargs)

    file = leaves(5000)
    assert list(named(given_in([file], 30), run)) == [hashes.file(file)]  # type: ignore[arg-type]  # as Run
    assert max(sizes) <= 130
