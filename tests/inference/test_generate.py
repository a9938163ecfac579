"""Rows go in, deltas come out: merged for slow readers, cut at stops, and cancelled when they end early."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from inference.engine import Done, Tokens
from inference.errors import EngineFailed, EngineFull, Unavailable
from inference.generate import Choice, Delta, Plan, Row, Run
from inference.render import Wording
from inference.rendering import Renderer
from inference.sampling import Numbers, Top, Usage
from tests.inference.echo import EchoEngine, wait_until

GREEDY = Numbers(temperature=0.0)


@pytest.fixture(scope="module")
def wording(checkout: Path, renderer: Renderer) -> Wording:
    return Wording("a" * 40, checkout, renderer)


class Reader:
    """Reads a run to its end, in a thread of its own if need be."""

    def __init__(self, engine: EchoEngine, wording: Wording, plan: Plan):
        self.bell = threading.Event()
        self.rings = 0
        self.run = Run(id_="r", engine=engine, wording=wording, plan=plan, wake=self._ring)

    def _ring(self) -> None:
        self.rings += 1
        self.bell.set()

    def deltas(self) -> Iterator[Delta]:
        while not self.run.finished:
            assert self.bell.wait(10)
            self.bell.clear()
            yield from self.run.take()


def _plan(wording: Wording, text: str, *, n: int = 1, max_new: int = 50, **more: object) -> Plan:
    ids = wording.encode(text)
    return Plan(tuple(Row(0, ids, max_new, GREEDY) for _ in range(n)), **more)  # type: ignore[arg-type]


def test_deltas_together_are_the_answer(engine: EchoEngine, wording: Wording) -> None:
    text = "The quick brown 🙂 fox"
    reader = Reader(engine, wording, _plan(wording, text, max_new=len(wording.encode(text))))
    reader.run.start()
    deltas = list(reader.deltas())
    assert "".join(delta.text for delta in deltas) == text
    assert [delta.finish for delta in deltas if delta.finish] == ["length"]
    tokens = len(wording.encode(text))
    assert reader.run.usage == Usage(prompt=tokens, completion=tokens)


def test_a_reader_that_stays_away_finds_one_delta_and_was_rung_once(engine: EchoEngine, wording: Wording) -> None:
    reader = Reader(engine, wording, _plan(wording, "The quick brown fox", max_new=200))
    reader.run.start()
    wait_until(lambda: not engine.stats().running)
    deltas = reader.run.take()
    assert len(deltas) == 1
    assert deltas[0].finish == "length"
    assert reader.rings == 1


def test_a_stop_string_cuts_the_text_and_frees_the_row(wording: Wording) -> None:
    engine = EchoEngine(pace=0.005)
    try:
        reader = Reader(engine, wording, _plan(wording, "one two three ", max_new=5000, stops=("three",)))
        reader.run.start()
        deltas = list(reader.deltas())
        assert "".join(delta.text for delta in deltas) == "one two "
        assert deltas[-1].finish == "stop"
        assert reader.run.usage.completion < 5000
        wait_until(lambda: not engine.stats().running)
        assert engine.cancelled
    finally:
        engine.close()


def test_rows_end_each_on_their_own_and_the_prompt_counts_once(engine: EchoEngine, wording: Wording) -> None:
    ids = wording.encode("ab cd ")
    rows = (Row(0, ids, 2, GREEDY), Row(0, ids, 5, GREEDY), Row(1, ids, 3, GREEDY))
    reader = Reader(engine, wording, Plan(rows))
    reader.run.start()
    deltas = list(reader.deltas())
    assert sorted(delta.index for delta in deltas if delta.finish) == [0, 1, 2]
    assert reader.run.usage == Usage(prompt=2 * len(ids), completion=10)


def test_all_rows_enter_or_none(wording: Wording) -> None:
    engine = EchoEngine(capacity=2)
    try:
        reader = Reader(engine, wording, _plan(wording, "x", n=3, max_new=500))
        with pytest.raises(EngineFull):
            reader.run.start()
        wait_until(lambda: not engine.stats().running)
    finally:
        engine.close()


def test_a_broken_engine_is_the_readers_error_and_cancels_the_rest(wording: Wording) -> None:
    engine = EchoEngine(fail_after=3)
    try:
        reader = Reader(engine, wording, _plan(wording, "x y z", n=2, max_new=500))
        reader.run.start()
        with pytest.raises(EngineFailed):
            list(reader.deltas())
        wait_until(lambda: not engine.stats().running)
    finally:
        engine.close()


def test_an_error_from_outside_reaches_the_reader(engine: EchoEngine, wording: Wording) -> None:
    engine.gate.clear()
    reader = Reader(engine, wording, _plan(wording, "x", max_new=500))
    reader.run.start()
    reader.run.fail(Unavailable("closing"))
    with pytest.raises(Unavailable):
        list(reader.deltas())
    engine.gate.set()
    wait_until(lambda: not engine.stats().running)


def test_a_cancelled_run_leaves_the_engine(engine: EchoEngine, wording: Wording) -> None:
    engine.gate.clear()
    reader = Reader(engine, wording, _plan(wording, "x", n=2, max_new=500))
    reader.run.start()
    reader.run.cancel()
    reader.run.cancel()
    engine.gate.set()
    wait_until(lambda: not engine.stats().running)
    assert len(engine.cancelled) == 2


def test_scores_are_shown_with_their_text_and_those_behind_a_stop_are_not(wording: Wording) -> None:
    ids = wording.encode("go STOP now")
    plan = Plan((Row(0, ids, 50, GREEDY),), ("STOP",), frozenset(), 1)
    choice = Choice(0, plan.rows[0], plan, wording)
    top = Top(((5, -0.1),))
    deltas = [choice.read([Tokens((id_,), (-0.5,), (top,))]) for id_ in ids]
    shown = [scored for delta in deltas if delta for scored in delta.scored]
    assert "".join(wording.token(scored.id)[0] for scored in shown).strip() == "go"
    assert [scored.at for scored in shown] == sorted(scored.at for scored in shown)
    assert shown[0].top == ((5, -0.1),)
    assert choice.finish == "stop"


def test_text_held_back_for_a_stop_string_comes_at_the_end(wording: Wording) -> None:
    ids = wording.encode("it is ST")
    plan = Plan((Row(0, ids, 50, GREEDY),), ("STOP",), frozenset(), 0)
    choice = Choice(0, plan.rows[0], plan, wording)
    first = choice.read([Tokens((id_,), (-0.5,), (Top(),)) for id_ in ids])
    last = choice.read([Done("length", Usage(1, len(ids)))])
    assert first is not None
    assert last is not None
    assert (first.text + last.text, last.finish) == ("it is ST", "length")
    assert len(first.scored) + len(last.scored) == len(ids)


def test_no_stop_string_ends_an_answer_before_its_least_length(wording: Wording) -> None:
    ids = wording.encode("STOP STOP STOP")
    row = Row(0, ids, 50, GREEDY, len(ids) // 2 + 1)
    choice = Choice(0, row, Plan((row,), ("STOP",)), wording)
    delta = choice.read([Tokens(ids)])
    assert delta is not None
    assert delta.text.startswith("STOP")
    assert delta.finish == "stop"
    assert len(delta.text) < len("STOP STOP STOP")
