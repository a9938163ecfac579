"""Continuous batching beside what Transformers' own `generate` says, and what happens when its thread breaks."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from inference.engine import Failed, Tokens
from inference.engines import device, weights
from inference.engines.batcher import Settings
from inference.engines.continuous import ContinuousEngine
from inference.errors import EngineFailed, Overloaded
from inference.sampling import Numbers
from inference.tiny import make_chat_model
from tests.contracts.heard import PATIENCE, Heard, answers, ask

pytestmark = pytest.mark.inference

SMALL = Settings(rows=8, waiting=2, kv_bytes=8 << 20, page=32, batch_tokens=128)
PROMPTS = [
    (5, 6, 7), (9,), tuple(range(3, 100)), (300, 2, 300, 2, 300), tuple(range(500, 3, -1)), (17,) * 40,
    (1, 87, 85, 276, 201, 42), (511, 0, 511), (64, 128, 256, 511), tuple(range(0, 512, 7)),
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("continuous")
    make_chat_model(path)
    return path


def _model(folder: Path) -> Any:
    return weights.load(folder, device.resolve("cpu", "float32"))


@pytest.fixture(scope="module")
def reference(folder: Path) -> Any:
    return _model(folder)


@pytest.fixture(scope="module")
def shared(folder: Path) -> Iterator[ContinuousEngine]:
    engine = ContinuousEngine(_model(folder), "continuous float32", SMALL)
    yield engine
    engine.close()


def _generated(model: Any, prompt: tuple[int, ...], count: int) -> list[int]:
    with torch.no_grad():
        ids = model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            max_new_tokens=count,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )
    return list(map(int, ids[0, len(prompt) :]))


def test_greedy_answers_equal_generate(shared: ContinuousEngine, reference: Any) -> None:
    heard = answers(shared, [ask(prompt, 40) for prompt in PROMPTS])
    assert [one.ids for one in heard] == [_generated(reference, prompt, 40) for prompt in PROMPTS]


def test_logprobs_are_those_of_the_raw_logits(shared: ContinuousEngine, reference: Any) -> None:
    (heard,) = answers(shared, [ask((5, 6, 7), 5, numbers=Numbers(temperature=2.0, seed=4, top_k=40), logprobs=3)])
    with torch.no_grad():
        logits = reference(torch.tensor([[5, 6, 7, *heard.ids]])).logits[0]
    for step, token in enumerate(heard.ids):
        expected = logits[2 + step].log_softmax(-1)
        assert heard.logprobs[step] == pytest.approx(float(expected[token]), abs=1e-4)
        best = expected.topk(3)
        assert [entry[0] for entry in heard.top[step].entries] == best.indices.tolist()
        assert [entry[1] for entry in heard.top[step].entries] == pytest.approx(best.values.tolist(), abs=1e-4)


def test_a_repeated_prompt_is_read_from_shared_pages(shared: ContinuousEngine) -> None:
    prompt = tuple(range(100, 200))
    first, second = (answers(shared, [ask(prompt, 6)])[0] for _ in range(2))
    assert first.ids == second.ids
    assert first.done().usage.cached == 0
    assert second.done().usage.cached == 96


def test_bias_and_penalties_act_on_their_own_row_only(shared: ContinuousEngine) -> None:
    (plain,) = answers(shared, [ask(max_new=16)])
    biased, pushed, beside = answers(
        shared,
        [
            ask(max_new=16, numbers=Numbers(temperature=0.0, bias=((77, 100.0),))),
            ask(max_new=16, numbers=Numbers(temperature=0.0, bias=((77, 100.0),), frequency_penalty=2.0)),
            ask(max_new=16),
        ],
    )
    assert biased.ids == [77] * 16
    assert pushed.ids[:1] == [77]
    assert beside.ids == plain.ids


def test_more_than_the_cache_holds_waits_its_turn(folder: Path) -> None:
    tight = Settings(rows=8, waiting=2, kv_bytes=400 << 10, page=32, batch_tokens=64)
    engine = ContinuousEngine(_model(folder), "continuous float32", tight)
    roomy = ContinuousEngine(_model(folder), "continuous float32", SMALL)
    try:
        assert engine.info().context < 2048
        asked = [ask((n, n + 1, n + 2), 90, numbers=Numbers(seed=n)) for n in range(10)]
        crowded = [heard.ids for heard in answers(engine, asked)]
        # Rows were put back and prefilled anew: their counts, positions and noise must have gone on.
        assert crowded == [heard.ids for heard in answers(roomy, asked)]
    finally:
        engine.close()
        roomy.close()


def test_a_cache_that_cannot_fit_is_refused(folder: Path) -> None:
    model = _model(folder)
    model.config.max_position_embeddings = 1 << 40
    with pytest.raises(Overloaded) as refused:
        ContinuousEngine(model, "continuous float32", Settings(rows=8, kv_bytes=1 << 50))
    assert refused.value.code == "model_capacity"


def test_a_step_that_breaks_fails_its_requests_and_marks_the_engine(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = _model(folder)
    engine = ContinuousEngine(model, "continuous float32", SMALL)
    armed = threading.Event()

    def break_when_armed(*_: object) -> None:
        if armed.is_set():
            raise RuntimeError("the device is gone")

    model.register_forward_pre_hook(break_when_armed)
    heard = [Heard() for _ in range(4)]
    try:
        for one in heard:
            engine.submit(ask(max_new=1500), one)
        assert heard[0].first.wait(PATIENCE)
        assert not engine.broken()
        armed.set()
        for one in heard:
            assert one.over.wait(PATIENCE)
            assert isinstance(one.end, Failed)
            assert isinstance(one.end.error, EngineFailed)
            assert "device" not in one.end.error.message
        assert engine.drain(PATIENCE)
        assert engine.broken()
    finally:
        engine.close()


def test_a_broken_engine_refuses_work(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = _model(folder)

    def break_down(*_: object) -> None:
        raise RuntimeError("the device is gone")

    model.register_forward_pre_hook(break_down)
    engine = ContinuousEngine(model, "continuous float32", SMALL)
    try:
        heard = Heard()
        engine.submit(ask(), heard)
        assert heard.over.wait(PATIENCE)
        assert engine.broken()
        with pytest.raises(EngineFailed):
            engine.submit(ask(), Heard())
    finally:
        engine.close()


def test_closing_frees_the_model_and_stops_the_thread(folder: Path) -> None:
    model = _model(folder)
    weight = weakref.ref(model.lm_head.weight)
    before = set(threading.enumerate())
    engine = ContinuousEngine(model, "continuous float32", SMALL)
    del model
    answers(engine, [ask(max_new=4)])
    engine.close()
    gc.collect()
    assert weight() is None
    # Threads of earlier tests may end meanwhile; none of this engine's is left.
    assert set(threading.enumerate()) <= before
    assert engine.info().bytes > 0


def test_each_step_is_told_at_once(shared: ContinuousEngine) -> None:
    (heard,) = answers(shared, [ask(max_new=10)])
    assert [len(event.ids) for event in heard.events if isinstance(event, Tokens)] == [1] * 10


def test_an_answer_with_a_least_length_does_not_end_before_it(shared: ContinuousEngine) -> None:
    (free,) = answers(shared, [ask(max_new=12)])
    asked = [replace(ask(max_new=12, stop_ids=free.ids), min_new=least) for least in (0, 5, 12)]
    heard = answers(shared, asked)
    assert heard[0].ids == []
    for one, least in zip(heard, (0, 5, 12), strict=True):
        assert len(one.ids) >= least
        assert not set(one.ids[:least]).intersection(free.ids)
    assert heard[2].done().reason == "length"
