"""What every engine promises, asked of each: the echo engine and continuous batching on a tiny random model."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from inference.engine import Done, Engine, Event, Failed, Ticket, Tokens
from inference.engines import device, weights
from inference.engines.batcher import Settings
from inference.engines.continuous import ContinuousEngine
from inference.errors import ContextExceeded, EngineFull, InvalidRequest, Unavailable
from inference.sampling import Numbers
from inference.tiny import make_chat_model
from tests.contracts.echo_engine import EchoEngine
from tests.contracts.heard import PATIENCE, Heard, answers, ask

LONG = 1500


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("engine")
    make_chat_model(path)
    return path


def _continuous(folder: Path) -> Engine:
    model = weights.load(folder, device.resolve("cpu", "float32"))
    return ContinuousEngine(model, "continuous float32", Settings(rows=32, waiting=2, kv_bytes=40 << 20, page=32))


MAKERS: dict[str, Callable[[Path], Engine]] = {"echo": lambda _: EchoEngine(), "continuous": _continuous}


@pytest.fixture(params=["echo", pytest.param("continuous", marks=pytest.mark.inference)])
def engine(request: pytest.FixtureRequest, folder: Path) -> Iterator[Engine]:
    engine = MAKERS[request.param](folder)
    yield engine
    engine.close()


def test_a_request_gives_tokens_and_then_one_end(engine: Engine) -> None:
    (heard,) = answers(engine, [ask(max_new=9)])
    assert all(isinstance(event, Tokens) for event in heard.events[:-1])
    assert len(heard.ids) == 9
    end = heard.done()
    assert (end.reason, end.usage.prompt, end.usage.completion) == ("length", 3, 9)
    assert all(0 <= token < engine.info().vocab for token in heard.ids)


def test_equal_seeds_give_equal_tokens_alone_and_among_others(engine: Engine) -> None:
    asked = [
        ask((9, 8, 7 + n), 24, numbers=Numbers(temperature=1.1, seed=n, top_p=0.9 if n % 2 else 1.0)) for n in range(32)
    ]
    together = [heard.ids for heard in answers(engine, asked)]
    by_eight = [heard.ids for at in range(0, 32, 8) for heard in answers(engine, asked[at : at + 8])]
    alone = [answers(engine, [asked[n]])[0].ids for n in (0, 1, 13, 31)]
    assert together == by_eight
    assert alone == [together[n] for n in (0, 1, 13, 31)]
    assert len({tuple(ids) for ids in together}) == 32


def test_another_seed_gives_another_answer(engine: Engine) -> None:
    first, second = answers(engine, [ask(max_new=24, numbers=Numbers(seed=seed)) for seed in (1, 2)])
    assert first.ids != second.ids


def test_a_stop_id_ends_the_answer_and_is_not_part_of_it(engine: Engine) -> None:
    (plain,) = answers(engine, [ask(max_new=20)])
    at = next(n for n in range(2, 20) if plain.ids[n] not in plain.ids[:n])
    (stopped,) = answers(engine, [ask(max_new=20, stop_ids={plain.ids[at]})])
    assert stopped.ids == plain.ids[:at]
    assert stopped.done().reason == "stop"


def test_logprobs_come_with_each_token_when_asked_for(engine: Engine) -> None:
    asked, plain = answers(engine, [ask(max_new=6, logprobs=1), ask(max_new=6)])
    assert len(asked.logprobs) == len(asked.top) == 6
    assert all(value <= 0 for value in asked.logprobs)
    # The likeliest token is what greedy chose, with the probability that is told of it.
    assert [top.entries[0] for top in asked.top] == list(zip(asked.ids, asked.logprobs, strict=True))
    assert not plain.logprobs
    assert not plain.top


def test_a_cancelled_request_ends_within_a_step(engine: Engine) -> None:
    heard = Heard()
    ticket = engine.submit(ask(max_new=LONG), heard)
    assert heard.first.wait(PATIENCE)
    engine.cancel(ticket)
    seen = len(heard.ids)
    assert heard.done().reason == "cancelled"
    assert len(heard.ids) <= seen + 1
    engine.cancel(ticket)
    engine.cancel(Ticket("never submitted"))
    assert len([event for event in heard.events if not isinstance(event, Tokens)]) == 1


def test_a_request_cancelled_before_its_first_step_ends_too(engine: Engine) -> None:
    heard = [Heard() for _ in range(20)]
    for one in heard:
        engine.cancel(engine.submit(ask(max_new=LONG), one))
    assert all(one.done().reason in ("cancelled", "length") for one in heard)
    assert engine.drain(PATIENCE)


def test_submit_refuses_at_once_when_full_and_takes_work_again_after(engine: Engine) -> None:
    taken: list[tuple[Ticket, Heard]] = []
    slowest, refusal = 0.0, None
    while refusal is None and len(taken) < 1000:
        one, before = Heard(), time.monotonic()
        try:
            taken.append((engine.submit(ask(max_new=LONG), one), one))
        except EngineFull as error:
            refusal = error
        slowest = max(slowest, time.monotonic() - before)
    assert refusal is not None
    assert refusal.retry_after is not None
    assert slowest < 1.0
    for ticket, _ in taken:
        engine.cancel(ticket)
    for _, one in taken:
        one.done()
    assert len(answers(engine, [ask(max_new=3)])[0].ids) == 3


def test_who_hears_the_end_may_submit_at_once(engine: Engine) -> None:
    second = Heard()

    class Again(Heard):
        def __call__(self, event: Event) -> None:
            if isinstance(event, Done):
                engine.submit(ask(max_new=4), second)
            super().__call__(event)

    engine.submit(ask(max_new=2), Again())
    assert second.done().usage.completion == 4


def test_a_sink_that_breaks_hurts_no_other_request(engine: Engine) -> None:
    def broken(event: Event) -> None:
        raise RuntimeError("this sink is broken")

    engine.submit(ask(max_new=LONG), broken)
    assert len(answers(engine, [ask(max_new=8)])[0].ids) == 8
    assert engine.drain(PATIENCE)


def test_what_the_model_cannot_take_is_refused_before_it_runs(engine: Engine) -> None:
    info = engine.info()
    with pytest.raises(ContextExceeded):
        engine.submit(ask(range(1, 50), info.context - 48), Heard())
    for ids in ((), (info.vocab,), (-1,)):
        with pytest.raises(InvalidRequest):
            engine.submit(ask(ids), Heard())
    assert len(answers(engine, [ask(range(1, 50), 5)])[0].ids) == 5


def test_draining_finishes_the_old_and_refuses_the_new(engine: Engine) -> None:
    heard = Heard()
    engine.submit(ask(max_new=40), heard)
    assert engine.drain(PATIENCE)
    assert heard.done().usage.completion == 40
    with pytest.raises(Unavailable):
        engine.submit(ask(), Heard())
    assert engine.drain(0)


def test_draining_gives_up_at_its_deadline(engine: Engine) -> None:
    heard = Heard()
    ticket = engine.submit(ask(max_new=LONG), heard)
    assert heard.first.wait(PATIENCE)
    is_over = engine.drain(0)
    assert is_over == heard.over.is_set()
    engine.cancel(ticket)
    assert engine.drain(PATIENCE)


def test_closing_fails_what_runs_and_may_be_repeated(engine: Engine) -> None:
    heard = [Heard() for _ in range(3)]
    for one in heard:
        engine.submit(ask(max_new=LONG), one)
    engine.close()
    engine.close()
    for one in heard:
        assert one.over.wait(PATIENCE)
        assert isinstance(one.end, Failed | Done)
    with pytest.raises(Unavailable):
        engine.submit(ask(), Heard())
    assert engine.stats().running == 0
