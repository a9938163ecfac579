"""Messages become ids through the commit's template; ids become text without ever showing half a character."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.errors import InvalidRequest, ModelNotCapable, ModelRefused
from inference.render import Wording, Wordings
from inference.rendering import Renderer

SHA = "a" * 40


@pytest.fixture(scope="module")
def wording(checkout: Path, renderer: Renderer) -> Wording:
    return Wording(SHA, checkout, renderer)


def test_messages_go_through_the_template(wording: Wording) -> None:
    ids = wording.chat([{"role": "user", "content": "hi"}], (), {})
    assert "".join(wording.token(id_)[0] for id_ in ids) == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"


def test_a_developer_speaks_as_system_to_templates_that_know_no_developer(wording: Wording) -> None:
    turns = {role: wording.chat([{"role": role, "content": "be brief"}], (), {}) for role in ("developer", "system")}
    assert turns["developer"] == turns["system"]


def test_template_variables_may_not_replace_the_messages(wording: Wording) -> None:
    with pytest.raises(InvalidRequest) as caught:
        wording.chat([{"role": "user", "content": "hi"}], (), {"messages": []})
    assert caught.value.param == "chat_template_kwargs"


def test_a_model_without_a_template_says_so(checkout: Path, renderer: Renderer, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes((checkout / "tokenizer.json").read_bytes())
    plain = Wording(SHA, tmp_path, renderer)
    assert plain.stop_ids == frozenset()
    with pytest.raises(ModelNotCapable):
        plain.chat([{"role": "user", "content": "hi"}], (), {})


def test_ends_come_from_the_revision(wording: Wording) -> None:
    assert {wording.token(id_)[0] for id_ in wording.stop_ids} == {"<|end|>", "<|im_end|>"}


def test_half_a_character_is_never_shown(wording: Wording) -> None:
    ids = wording.encode("ü€🙂")
    assert len(ids) > 3
    reading = wording.decoding()
    pieces = [reading.feed(id_) for id_ in ids]
    assert [piece for piece in pieces if piece] == ["ü", "€", "🙂"]
    assert reading.rest() == ""
    cut = wording.decoding()
    assert "".join(cut.feed(id_) for id_ in ids[:-1]) == "ü€"
    assert "\ufffd" in cut.rest()


@given(st.text(max_size=60))
@settings(max_examples=60)
def test_pieces_together_are_the_text(wording: Wording, text: str) -> None:
    reading = wording.decoding()
    ids = wording.encode(text)
    assert "".join(reading.feed(id_) for id_ in ids) + reading.rest() == wording.decode(ids)


@given(st.lists(st.integers(0, 511), max_size=40))
@settings(max_examples=200)
def test_any_ids_are_shown_as_they_decode(wording: Wording, ids: list[int]) -> None:
    reading = wording.decoding()
    assert "".join(reading.feed(id_) for id_ in ids) + reading.rest() == wording.decode(ids)


@given(st.lists(st.integers(0, 511), max_size=20))
@settings(max_examples=100)
def test_tokens_bytes_make_the_text(wording: Wording, ids: list[int]) -> None:
    specials = {id_ for id_ in ids if wording.decode([id_]) == ""}
    plain = [id_ for id_ in ids if id_ not in specials]
    assert b"".join(wording.token(id_)[1] for id_ in plain).decode("utf-8", "replace") == wording.decode(plain)


def test_a_tokenizer_that_cannot_be_read_refuses_the_model(tmp_path: Path, renderer: Renderer) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelRefused, match="tokenizer"):
        Wording(SHA, tmp_path, renderer)


def test_a_commits_wording_is_read_once(checkout: Path, renderer: Renderer) -> None:
    wordings = Wordings(renderer)
    assert wordings.of(SHA, checkout) is wordings.of(SHA, checkout)
