"""`/v1/completions` over a socket: prompts of every kind, echo, scores, and their streams."""

from __future__ import annotations

import json

import httpx

URL = "/v1/completions"


def _post(sidecar: str, **fields: object) -> httpx.Response:
    body = {"model": "acme/echo", "prompt": "fox ", "temperature": 0, "max_tokens": 4, **fields}
    return httpx.post(sidecar + URL, json=body)


def test_text_and_its_ids_give_one_answer(sidecar: str) -> None:
    text = _post(sidecar, logprobs=0).json()
    assert text["object"] == "text_completion"
    assert text["choices"][0]["text"].startswith("fox ")
    assert len(text["choices"][0]["logprobs"]["tokens"]) == 4
    ids = _post(sidecar, prompt=[40, 41]).json()
    listed = _post(sidecar, prompt=[[40, 41], [40, 41]]).json()
    assert [choice["text"] for choice in listed["choices"]] == [ids["choices"][0]["text"]] * 2
    assert listed["usage"]["prompt_tokens"] == 4


def test_choices_are_numbered_prompt_by_prompt(sidecar: str) -> None:
    body = _post(sidecar, prompt=["a", "b"], n=2, echo=True).json()
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2, 3]
    assert [choice["text"][0] for choice in body["choices"]] == list("aabb")


def test_an_echo_stands_before_the_answer_also_in_a_stream(sidecar: str) -> None:
    whole = _post(sidecar, echo=True).json()["choices"][0]["text"]
    assert whole.startswith("fox fox ")
    lines = [line[6:] for line in _post(sidecar, echo=True, stream=True).text.split("\n\n") if line]
    assert lines[-1] == "[DONE]"
    chunks = [json.loads(line)["choices"][0] for line in lines[:-1]]
    assert "".join(chunk["text"] for chunk in chunks) == whole
    assert chunks[-1]["finish_reason"] == "length"


def test_scores_name_tokens_alternatives_and_places(sidecar: str) -> None:
    scores = _post(sidecar, logprobs=2).json()["choices"][0]["logprobs"]
    assert len(scores["tokens"]) == len(scores["token_logprobs"]) == len(scores["text_offset"]) == 4
    assert all(len(top) == 2 for top in scores["top_logprobs"])
    assert scores["text_offset"] == sorted(scores["text_offset"])


def test_the_default_is_sixteen_tokens(sidecar: str) -> None:
    assert _post(sidecar, max_tokens=None).json()["usage"]["completion_tokens"] == 16
