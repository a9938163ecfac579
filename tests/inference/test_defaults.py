"""A revision's own files give sampling numbers, end tokens and the template; wrong ones are refused by name."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.defaults import read_defaults, read_specials
from inference.errors import ModelRefused


def _write(folder: Path, name: str, value: object) -> None:
    (folder / name).write_text(json.dumps(value))


def test_numbers_and_ends_come_from_generation_config(tmp_path: Path) -> None:
    given = {"temperature": 0.6, "top_k": 20, "top_p": 0.95, "do_sample": True, "eos_token_id": [3, 5], "max_length": 9}
    _write(tmp_path, "generation_config.json", given)
    _write(tmp_path, "config.json", {"eos_token_id": 7})
    found = read_defaults(tmp_path)
    assert found.numbers == {"temperature": 0.6, "top_k": 20, "top_p": 0.95}
    assert found.stop_ids == {3, 5}


def test_config_json_names_the_end_when_nothing_else_does(tmp_path: Path) -> None:
    _write(tmp_path, "config.json", {"eos_token_id": 7})
    assert read_defaults(tmp_path).stop_ids == {7}
    assert read_defaults(tmp_path / "absent").stop_ids == frozenset()


def test_a_greedy_model_stays_greedy(tmp_path: Path) -> None:
    _write(tmp_path, "generation_config.json", {"do_sample": False})
    assert read_defaults(tmp_path).numbers == {"temperature": 0.0}


@pytest.mark.parametrize(
    "bad", [{"temperature": "hot"}, {"top_p": 2}, {"top_k": True}, {"eos_token_id": "x"}, [1], "x"]
)
def test_a_number_no_sampler_can_use_is_refused_by_name(tmp_path: Path, bad: object) -> None:
    _write(tmp_path, "generation_config.json", bad)
    with pytest.raises(ModelRefused, match=r"generation_config\.json"):
        read_defaults(tmp_path)


def test_the_template_is_found_wherever_it_stands(tmp_path: Path) -> None:
    named = [{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D"}]
    _write(
        tmp_path, "tokenizer_config.json", {"chat_template": named, "eos_token": {"content": "<e>"}, "bos_token": "<b>"}
    )
    found = read_specials(tmp_path)
    assert (found.template, found.tokens) == ("D", {"eos_token": "<e>", "bos_token": "<b>"})
    _write(tmp_path, "chat_template.json", {"chat_template": "J"})
    assert read_specials(tmp_path).template == "J"
    (tmp_path / "chat_template.jinja").write_text("F")
    assert read_specials(tmp_path).template == "F"


@given(content=st.binary(max_size=200))
def test_garbage_is_refused_in_our_words(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    folder = tmp_path_factory.mktemp("garbage")
    (folder / "generation_config.json").write_bytes(content)
    (folder / "tokenizer_config.json").write_bytes(content)
    for read in (read_defaults, read_specials):
        with suppress(ModelRefused):
            read(folder)
