"""A request against its model: what fits is cut to fit, what cannot be is refused by the field that is wrong."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from inference.engine import Info
from inference.errors import ContextExceeded, InvalidRequest, ModelNotCapable
from inference.generate import Plan
from inference.planning import plan
from inference.render import Wording
from inference.rendering import Renderer
from inference.shapes.completions import CompletionRequest

INFO = Info(context=20, vocab=512, abilities=frozenset({"generate"}), bytes=1, name="x")


@pytest.fixture(scope="module")
def wording(checkout: Path, renderer: Renderer) -> Wording:
    return Wording("a" * 40, checkout, renderer)


def _plan(wording: Wording, ids: tuple[int, ...], info: Info = INFO, limit: int | None = 5, **fields: object) -> Plan:
    body = CompletionRequest.model_validate({"model": "m", "prompt": "x", **fields})
    return plan(
        body=body, prompts=[ids], limit=limit, likeliest=None, info=info, wording=wording, seed=7, param="prompt"
    )


def test_the_answer_is_cut_to_the_context_and_the_prompt_never(wording: Wording) -> None:
    assert _plan(wording, (1,) * 10, limit=5).rows[0].max_new == 5
    assert _plan(wording, (1,) * 17, limit=5).rows[0].max_new == 3
    assert _plan(wording, (1,) * 10, limit=None).rows[0].max_new == 10
    assert _plan(wording, (1,) * 19, limit=5).rows[0].max_new == 1
    with pytest.raises(ContextExceeded) as caught:
        _plan(wording, (1,) * 20)
    assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "prompt")


def test_each_choice_draws_from_its_own_seed(wording: Wording) -> None:
    assert [row.numbers.seed for row in _plan(wording, (1,), n=3, seed=40).rows] == [40, 41, 42]
    assert [row.numbers.seed for row in _plan(wording, (1,), n=2).rows] == [7, 8]
    assert _plan(wording, (1,), seed=-1).rows[0].numbers.seed == 2**63 - 1


def test_ends_are_the_revisions_and_the_requests(wording: Wording) -> None:
    assert _plan(wording, (1,)).stop_ids == wording.stop_ids
    assert _plan(wording, (1,), stop_token_ids=[9]).stop_ids == wording.stop_ids | {9}
    assert _plan(wording, (1,), ignore_eos=True, stop_token_ids=[9]).stop_ids == {9}


def test_the_requests_numbers_win_over_the_revisions(checkout: Path, renderer: Renderer, tmp_path: Path) -> None:
    shutil.copy(checkout / "tokenizer.json", tmp_path)
    (tmp_path / "generation_config.json").write_text(json.dumps({"temperature": 0.6, "top_k": 20}))
    numbers = _plan(Wording("b" * 40, tmp_path, renderer), (1,), temperature=0.1).rows[0].numbers
    assert (numbers.temperature, numbers.top_k, numbers.top_p) == (0.1, 20, 1.0)


def test_a_model_that_does_not_generate_says_so(wording: Wording) -> None:
    with pytest.raises(ModelNotCapable):
        _plan(wording, (1,), replace(INFO, abilities=frozenset({"vectors"})))


@pytest.mark.parametrize(
    ("ids", "fields", "param"),
    [((), {}, "prompt"), ((512,), {}, "prompt"), ((1,), {"logit_bias": {"512": 1}}, "logit_bias")],
)
def test_ids_beyond_the_vocabulary_are_refused(
    wording: Wording, ids: tuple[int, ...], fields: dict[str, object], param: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        _plan(wording, ids, **fields)
    assert caught.value.param == param


def test_a_least_length_fits_the_answer_and_more_than_was_asked_for_is_refused(wording: Wording) -> None:
    assert _plan(wording, (1,), min_tokens=3).rows[0].min_new == 3
    assert _plan(wording, (1,) * 18, limit=5, min_tokens=5).rows[0].min_new == 2
    with pytest.raises(InvalidRequest) as caught:
        _plan(wording, (1,), limit=5, min_tokens=6)
    assert caught.value.param == "min_tokens"
