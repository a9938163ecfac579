"""One wrong field, one error that names it as clients write it; garbage is refused in our words only."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.errors import InvalidRequest
from inference.shapes import chat, completions
from inference.shapes.chat import ChatRequest
from inference.shapes.completions import CompletionRequest
from inference.shapes.fields import parse

HI = [{"role": "user", "content": "hi"}]


def _chat(**fields: object) -> ChatRequest:
    body = {"model": "acme/m", "messages": HI, **fields}
    return parse(json.dumps(body).encode(), ChatRequest, chat.REFUSED)


def _complete(**fields: object) -> CompletionRequest:
    body = {"model": "acme/m", "prompt": "hi", **fields}
    return parse(json.dumps(body).encode(), CompletionRequest, completions.REFUSED)


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"temperature": 2.1}, "temperature", "invalid_value"),
        ({"temperature": "1"}, "temperature", "invalid_type"),
        ({"top_p": 0}, "top_p", "invalid_value"),
        ({"n": 0}, "n", "invalid_value"),
        ({"n": 17}, "n", "invalid_value"),
        ({"max_tokens": -1}, "max_tokens", "invalid_value"),
        ({"max_completion_tokens": 1.5}, "max_completion_tokens", "invalid_type"),
        ({"stop": ["a"] * 17}, "stop", "invalid_value"),
        ({"stop": ["a", 1]}, "stop[1]", "invalid_type"),
        ({"logit_bias": {"1": 101}}, "logit_bias.1", "invalid_value"),
        ({"logit_bias": {"x": 1}}, "logit_bias", "invalid_value"),
        ({"logit_bias": {"9" * 5000: 1}}, "logit_bias", "invalid_value"),
        ({"frequency_penalty": -3}, "frequency_penalty", "invalid_value"),
        ({"top_logprobs": 3}, "top_logprobs", "invalid_value"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "invalid_value"),
        ({"stream_options": {"include": True}}, "stream_options.include", "unknown_parameter"),
        ({"colour": "red"}, "colour", "unknown_parameter"),
        ({"messages": []}, "messages", "invalid_value"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role", "invalid_value"),
        ({"messages": [{"role": "user", "content": 3}]}, "messages[0].content", "invalid_type"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "missing_required_parameter"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id", "missing_required_parameter"),
        ({"messages": [{"content": "x"}]}, "messages[0].role", "missing_required_parameter"),
        (
            {"messages": [*HI, {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            "messages[1].content[0].type",
            "invalid_value",
        ),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools", "unsupported_parameter"),
        ({"tool_choice": "required"}, "tool_choice", "unsupported_parameter"),
        ({"response_format": {"type": "json_object"}}, "response_format", "unsupported_parameter"),
        ({"functions": [{"name": "f"}]}, "functions", "unsupported_parameter"),
        ({"audio": {"voice": "x"}}, "audio", "unsupported_parameter"),
        ({"store": True}, "store", "unsupported_parameter"),
        ({"min_tokens": -1}, "min_tokens", "invalid_value"),
        ({"reasoning_effort": "huge"}, "reasoning_effort", "invalid_value"),
        ({"verbosity": 3}, "verbosity", "invalid_value"),
        ({"cache_salt": "s"}, "cache_salt", "unsupported_parameter"),
        ({"priority": 1}, "priority", "unsupported_parameter"),
        ({"keep_alive": "5m"}, "keep_alive", "unsupported_parameter"),
        ({"service_tier": "flex"}, "service_tier", "invalid_value"),
        ({"model": ""}, "model", "invalid_value"),
        ({"temperature": None, "model": None}, "model", "invalid_type"),
    ],
)
def test_a_wrong_chat_field_is_named(fields: dict[str, object], param: str, code: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        _chat(**fields)
    assert (caught.value.param, caught.value.code) == (param, code)


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"prompt": []}, "prompt", "invalid_value"),
        ({"prompt": [[1, "a"]]}, "prompt[0][1]", "invalid_type"),
        ({"prompt": [-1]}, "prompt[0][0]", "invalid_value"),
        ({"logprobs": 6}, "logprobs", "invalid_value"),
        ({"suffix": "end"}, "suffix", "unsupported_parameter"),
        ({"best_of": 2}, "best_of", "unsupported_value"),
        ({"max_tokens": 0}, "max_tokens", "invalid_value"),
        ({"echo": True, "logprobs": 1}, "logprobs", "unsupported_value"),
        ({"prompt": ["a"] * 20, "n": 2}, "n", "unsupported_value"),
        ({"messages": HI}, "messages", "unknown_parameter"),
    ],
)
def test_a_wrong_completion_field_is_named(fields: dict[str, object], param: str, code: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        _complete(**fields)
    assert (caught.value.param, caught.value.code) == (param, code)


def test_nulls_and_fields_without_effect_are_taken() -> None:
    body = _chat(
        temperature=None, stop=None, logit_bias=None, user="u", metadata={"a": "b"}, store=False, service_tier="auto",
        safety_identifier="x", prompt_cache_key="k", tools=[], tool_choice="none", response_format={"type": "text"},
        parallel_tool_calls=True, functions=None, modalities=["text"], reasoning_effort=None, n=1,
    )  # fmt: skip
    assert body.choices == 1


def test_tools_may_be_shown_to_a_model_that_is_not_to_call_them() -> None:
    assert _chat(tools=[{"type": "function", "function": {"name": "f"}}], tool_choice="none").tools


def test_messages_become_what_templates_know() -> None:
    turns = [
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "name": "ann"},
        {
            "role": "assistant",
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
        },
        {"role": "tool", "content": "42", "tool_call_id": "c1"},
    ]
    user, assistant, tool = (turn.plain() for turn in _chat(messages=turns).messages)
    assert user == {"role": "user", "content": "a\nb", "name": "ann"}
    assert assistant["content"] == ""
    assert "tool_calls" in assistant
    assert tool == {"role": "tool", "content": "42", "tool_call_id": "c1"}


@pytest.mark.parametrize(
    ("prompt", "parsed"),
    [
        ("a", ["a"]),
        (["a", "b"], ["a", "b"]),
        ([1, 2], [[1, 2]]),
        ([[1], [2, 3]], [[1], [2, 3]]),
        (["a", [1]], ["a", [1]]),
    ],
)
def test_prompts_are_text_or_ids_or_lists_of_either(prompt: object, parsed: object) -> None:
    assert _complete(prompt=prompt).prompt == parsed


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'"x"', b"\xff\xfe", b'{"model": NaN}', b"[" * 200_000, b'{"model": "\\ud800"}']
)
def test_what_is_no_json_object_is_invalid_json(body: bytes) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse(body, ChatRequest, chat.REFUSED)
    assert caught.value.code == "invalid_json"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from([*ChatRequest.model_fields, *CompletionRequest.model_fields, *chat.REFUSED])


@given(st.dictionaries(NAMES, JSON, max_size=5))
def test_any_body_is_a_request_or_our_refusal(fields: dict[str, object]) -> None:
    for read in (_chat, _complete):
        with suppress(InvalidRequest):
            read(**fields)


def test_templates_are_told_effort_and_verbosity_and_names_given_by_themselves_win() -> None:
    asked = _chat(reasoning_effort="low", verbosity="high", chat_template_kwargs={"verbosity": "mine", "x": 1})
    assert asked.variables == {"reasoning_effort": "low", "verbosity": "mine", "x": 1}
    assert _chat().variables == {}


def test_templates_get_the_arguments_of_a_call_as_an_object_and_a_wrong_text_as_it_is() -> None:
    for arguments, told in (('{"a": 1}', {"a": 1}), ("{broken", "{broken"), ("[1]", "[1]"), ("[" * 5000, "[" * 5000)):
        call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}
        turn = _chat(messages=[{"role": "assistant", "tool_calls": [call]}]).messages[0].plain()
        assert turn["tool_calls"] == [{"id": "c", "type": "function", "function": {"name": "f", "arguments": told}}]
