"""What was filed is found by its chunks: who asks for one is told of the xorbs around it, and of no hash."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lfs.xet import dedup, hashes, shards
from lfs.xet.dedup import WEEK
from lfs.xet.index import File, Leave, Marked, Part, packed
from tests.lfs.xet.memory_index import DOMAIN
from tests.lfs.xet.test_filing import ANN, FAR, GOOD, ONE, TWIN, TWO, House, block_of, file_of, shard_of
from tests.lfs.xet.xorbs import random_xorb


@pytest.fixture
def house() -> House:
    made_one = House()
    made_one.keep(ONE, TWO)
    return made_one


def ask(house: House, chunk: bytes, leave: Leave = ANN) -> bytes | None:
    return house.filing.dedup(leave, hashes.chunk(chunk))


def xorbs_in(answer: bytes | None) -> list[bytes]:
    """Name the xorbs of an answer, in its order."""
    assert answer is not None
    return [xorb.hash for xorb in shards.parse(answer).xorbs]


def test_a_marked_chunk_leads_to_its_xorb_then_those_after_it_then_those_before(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = [random_xorb(10 + at, 2, 500) for at in range(4)]
    house.keep(*others)
    runs = [(xorb, 0, 2) for xorb in others]
    house.file(shard_of(file_of(*runs), xorbs=tuple(block_of(xorb, 1) for xorb in others)))
    names = [xorb.hash for xorb in others]
    assert xorbs_in(ask(house, others[1].parts[1])) == [names[1], names[2], names[3], names[0]]
    monkeypatch.setattr(dedup, "WINDOW", 3)
    assert xorbs_in(ask(house, others[3].parts[1])) == [names[3], names[2], names[1]]
    assert ask(house, others[1].parts[0]) is None


def test_of_a_file_of_many_terms_those_around_the_chunk_are_read(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    others = [random_xorb(20 + at, 2, 9_000) for at in range(5)]
    house.keep(*others)
    names = [xorb.hash for xorb in others]
    runs = [(xorb, 0, 1) for xorb in (others[0], others[0], others[1], others[2], others[2], others[3], others[4])]
    house.file(shard_of(file_of(*runs), xorbs=tuple(block_of(xorb, 0) for xorb in others)))
    assert xorbs_in(ask(house, others[2].parts[0])) == [names[2], names[3], names[4], names[1], names[0]]
    # Three terms on, from the first that names the xorb, and three back.
    monkeypatch.setattr(dedup, "WALK", 3)
    assert xorbs_in(ask(house, others[2].parts[0])) == [names[2], names[3], names[1], names[0]]
    monkeypatch.setattr(dedup, "WALK", 2)
    assert xorbs_in(ask(house, others[2].parts[0])) == [names[2], names[1], names[0]]


@given(st.lists(st.integers(0, 9), min_size=1, max_size=40), st.integers(0, 9))
def test_a_window_is_the_xorb_those_after_it_and_those_before_each_once(order: list[int], asked: int) -> None:
    names = [bytes([number]) * 32 for number in range(10)]
    parts = [Part(names[number], at, at + 1, at) for at, number in enumerate(order)]
    at = order.index(asked) if asked in order else 0
    expected = dict.fromkeys([asked, *order[at:], *reversed(order[:at])])
    marked = Marked(File(names[0], len(order), packed(parts)), names[asked])
    assert dedup.window(marked) == [names[number] for number in expected]


def test_two_files_of_a_domain_share_their_chunks_and_no_others_do(house: House) -> None:
    house.keep(ONE, leave=FAR)
    house.file(shard_of(GOOD))
    assert xorbs_in(ask(house, ONE.parts[1], TWIN)) == [ONE.hash, TWO.hash]
    assert ask(house, ONE.parts[1], FAR) is None
    assert house.file(shard_of(file_of((ONE, 1, 3), (TWO, 2, 4))), TWIN)
    assert house.index.around(DOMAIN, hashes.chunk(ONE.parts[1])).file.hash != GOOD.hash  # type: ignore[union-attr]


def test_answers_have_keyed_hashes_only_and_promise_what_they_name(house: House) -> None:
    house.file(shard_of(GOOD))
    house.clock.now += 2 * 24 * 3600
    answer = ask(house, ONE.parts[1])
    assert answer is not None
    key, expires = house.index.answer_key(DOMAIN, int(house.clock()) // WEEK)
    for chunk in map(hashes.chunk, ONE.parts + TWO.parts):
        assert chunk not in answer
        assert hashes.keyed(key, chunk) in answer
    assert expires.to_bytes(8, "little") in answer
    assert {kept.promised for kept in house.index.xorbs.values()} == {house.clock() + 28 * 24 * 3600}


def test_an_answer_is_made_once_a_week_and_names_nothing_that_went(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.file(shard_of(GOOD))
    made_ones: list[object] = []
    make: Callable[..., bytes] = shards.dedup_answer

    def counted(blocks: Any, **rest: Any) -> bytes:
        made_ones.append(blocks)
        return make(blocks, **rest)

    monkeypatch.setattr(shards, "dedup_answer", counted)
    first = ask(house, ONE.parts[1])
    assert ask(house, ONE.parts[1], TWIN) is first
    assert len(made_ones) == 1
    house.clock.now += WEEK
    assert ask(house, ONE.parts[1]) != first
    house.index.quarantine(TWO.hash, house.rows[TWO.hash].key)
    assert xorbs_in(ask(house, ONE.parts[1])) == [ONE.hash]
    house.index.quarantine(ONE.hash, house.rows[ONE.hash].key)
    assert ask(house, ONE.parts[1]) is None
