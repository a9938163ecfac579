"""The hash beside a write: whole, in order, heard of when it refuses, and gone when its block ends."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lfs.beside import BEHIND, LARGE, Beside
from lfs.errors import DigestMismatch, SizeMismatch
from lfs.store import Judge

SIZES = st.lists(st.sampled_from([0, 1, 100, LARGE - 1, LARGE, LARGE + 1]), max_size=2 * BEHIND)


def threads() -> set[int]:
    """Other tests may have left an upload that hangs in this process."""
    return {each.native_id or 0 for each in threading.enumerate() if each.name == "hash"}


def bodies(sizes: Sequence[int]) -> list[bytes]:
    return [bytes([number % 256]) * size for number, size in enumerate(sizes)]


@given(sizes=SIZES)
def test_all_pieces_are_hashed_in_their_order(sizes: list[int]) -> None:
    before = threads()
    pieces = bodies(sizes)
    whole = b"".join(pieces)
    judge = Judge(len(whole), hashlib.sha256(whole).hexdigest())
    with Beside(judge) as hashing:
        for piece in pieces:
            hashing.feed(piece)
    assert judge.verdict("key").sha256 == hashlib.sha256(whole).hexdigest()
    assert threads() <= before


def fed(judge: Judge, count: int, then: Callable[[], object] = lambda: None) -> Iterator[int]:
    """Feed so many large pieces, then do something else in the same block; count the pieces that were taken."""
    with Beside(judge) as hashing:
        for number in range(count):
            hashing.feed(bytes(LARGE))
            yield number
        then()


def test_a_byte_too_many_is_refused_at_the_latest_when_the_block_ends() -> None:
    before = threads()
    with pytest.raises(SizeMismatch, match="More than the announced"):
        list(fed(Judge(LARGE, None), 2))
    assert threads() <= before


def test_a_body_without_an_end_is_refused_before_it_is_all_taken() -> None:
    before = threads()
    with pytest.raises(SizeMismatch):
        list(fed(Judge(LARGE, None), 10_000, lambda: pytest.fail("all of it was taken")))
    assert threads() <= before


def test_whoever_fails_beside_it_leaves_no_thread() -> None:
    before = threads()
    with pytest.raises(ZeroDivisionError):
        list(fed(Judge(10 * LARGE, None), 1, lambda: 1 / 0))
    assert threads() <= before


def test_a_hash_that_breaks_is_heard_of(monkeypatch: pytest.MonkeyPatch) -> None:
    before = threads()

    def broken(self: Judge, piece: bytes) -> None:
        raise MemoryError

    monkeypatch.setattr(Judge, "feed", broken)
    with pytest.raises(MemoryError):
        list(fed(Judge(100 * LARGE, None), 100))
    assert threads() <= before


def test_other_bytes_are_found_out() -> None:
    judge = Judge(2 * LARGE, "0" * 64)
    with Beside(judge) as hashing:
        for _ in range(2):
            hashing.feed(bytes(LARGE))
    with pytest.raises(DigestMismatch):
        judge.verdict("key")
