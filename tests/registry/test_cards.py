"""Cards become the tags, tasks and libraries that the Hub's users filter by."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry import cards
from registry.cards import Facts
from registry.names import RepoType


def _facts(files: Mapping[str, bytes | str], kind: RepoType = "model", **tensors: int) -> Facts:
    def read(path: str, limit: int) -> bytes | None:
        found = files.get(path)
        return found.encode() if isinstance(found, str) else found

    return cards.describe(kind, set(files), read, tensors)


CARD = """---
license: apache-2.0
language: [en, de]
tags: [exbert, chat]
datasets: [bookcorpus, org/wiki]
base_model: org/base
base_model_relation: finetune
pipeline_tag: text-generation
---
See [the paper](https://arxiv.org/abs/1810.04805v2) and arXiv:2301.00001.
"""
BERT = json.dumps({"model_type": "bert", "architectures": ["BertForMaskedLM"], "hidden_size": 768})


def test_a_model_gets_the_tags_of_the_hub_in_its_order() -> None:
    facts = _facts({"README.md": CARD, "config.json": BERT, "model.safetensors": b"", "tf_model.h5": b""}, F32=10)
    assert facts.tags == (
        *("transformers", "safetensors", "tf", "bert", "text-generation", "exbert", "chat", "en", "de"),
        *("dataset:bookcorpus", "dataset:org/wiki", "arxiv:1810.04805", "arxiv:2301.00001"),
        *("base_model:org/base", "base_model:finetune:org/base", "license:apache-2.0"),
    )
    assert (facts.library, facts.task, facts.parameters) == ("transformers", "text-generation", 10)
    assert facts.config == {"architectures": ["BertForMaskedLM"], "model_type": "bert"}
    assert facts.card["license"] == "apache-2.0"


@pytest.mark.parametrize(
    ("files", "library", "task"),
    [
        ({"config.json": BERT}, "transformers", "fill-mask"),
        (
            {"config.json": '{"model_type": "llama", "architectures": ["LlamaForCausalLM"]}'},
            "transformers",
            "text-generation",
        ),
        (
            {"config.json": '{"architectures": ["WhisperForConditionalGeneration"]}'},
            "transformers",
            "text2text-generation",
        ),
        ({"config.json": BERT, "modules.json": "[]"}, "sentence-transformers", "sentence-similarity"),
        ({"adapter_config.json": "{}"}, "peft", ""),
        ({"model_index.json": "{}"}, "diffusers", ""),
        ({"model-Q4_K_M.gguf": b""}, "gguf", ""),
        ({"README.md": "---\nlibrary_name: mine\npipeline_tag: depth-estimation\n---\n"}, "mine", "depth-estimation"),
        ({"notes.txt": b""}, "", ""),
    ],
)
def test_library_and_task_follow_from_the_files(files: dict[str, bytes | str], library: str, task: str) -> None:
    facts = _facts(files)
    assert (facts.library, facts.task) == (library, task)


def test_a_dataset_is_tagged_by_its_own_fields() -> None:
    card = "pretty_name: Wiki\ntask_categories: [text-generation]\nlanguage: en\nsize_categories: 1K<n<10K\ntags: [x]"
    facts = _facts({"README.md": f"---\n{card}\n---\n"}, "dataset")
    assert facts.tags == ("task_categories:text-generation", "language:en", "size_categories:1K<n<10K", "x")
    assert (facts.title, facts.library) == ("Wiki", "")


def test_a_space_is_tagged_by_its_sdk() -> None:
    facts = _facts({"README.md": "---\ntitle: Demo\nsdk: gradio\ntags: [y]\nlicense: mit\n---\n"}, "space")
    assert (facts.tags, facts.title) == (("gradio", "y", "license:mit"), "Demo")


@pytest.mark.parametrize(
    "files",
    [
        {"README.md": "---\na: [\n---\n", "config.json": "{"},
        {"README.md": b"\xff\xfe", "config.json": b"\xff"},
        {"config.json": "[" * 100_000},
        {"config.json": '{"architectures": 3, "model_type": ["x"]}'},
        {"README.md": "---\ntags: {a: b}\nlicense: [1, 2]\nlanguage: [[en]]\n---\n"},
        {},
    ],
)
def test_what_cannot_be_read_counts_as_not_said(files: dict[str, bytes | str]) -> None:
    facts = _facts(files)
    assert (facts.task, facts.title) == ("", "")
    assert set(facts.tags) <= {"transformers"}


def test_tags_are_bounded_in_number_and_length() -> None:
    tags = json.dumps([*(f"t{n}" for n in range(2000)), "x" * 500, "t1"])
    facts = _facts({"README.md": f"---\ntags: {tags}\n---\n"})
    assert len(facts.tags) == 400
    assert len(set(facts.tags)) == 400
    assert max(map(len, facts.tags)) <= 128


def test_what_listings_read_of_a_config_or_title_is_small() -> None:
    config = json.dumps({"model_type": "x", "quantization_config": {"a": "b" * 10_000}})
    facts = _facts({"README.md": f"---\ntitle: {'t' * 1000}\n---\n", "config.json": config})
    assert (facts.config, len(facts.title)) == ({"model_type": "x"}, 200)


@given(st.binary(max_size=200), st.binary(max_size=200), st.sampled_from(["model", "dataset", "space"]))
def test_any_bytes_make_facts_that_a_database_can_hold(readme: bytes, config: bytes, kind: RepoType) -> None:
    facts = _facts({"README.md": b"---\n" + readme + b"\n---\n", "config.json": config}, kind)
    text = json.dumps([facts.card, facts.config, facts.tags, facts.library, facts.task], allow_nan=False)
    assert "\\u0000" not in text


@pytest.mark.parametrize(
    ("content", "kind", "errors"),
    [
        ("---\nlicense: mit\n---\n", "model", []),
        ("---\nlicense: 3\n---\n", "model", ['"license" must be a string or an array of strings']),
        ("---\nlanguage: [en, 1]\n---\n", "model", ['"language" must be a string or an array of strings']),
        ("---\nmodel-index: x\n---\n", "model", ['"model-index" must be an array']),
        ("---\nsdk: cobol\n---\n", "space", ['"sdk" must be one of [gradio, docker, static, streamlit]']),
        ("---\nlicense: mit\n", "model", ["The metadata block that begins with '---' has no closing '---' line."]),
    ],
)
def test_a_card_is_judged_before_it_is_committed(content: str, kind: RepoType, errors: list[str]) -> None:
    assert cards.validate(content, kind) == (errors, [])


def test_a_card_without_metadata_is_taken_with_a_warning() -> None:
    assert cards.validate("# hi", "model") == ([], ["empty or missing yaml metadata in repo card"])


def test_broken_yaml_is_refused_with_its_line() -> None:
    errors, _ = cards.validate("---\na: 1\nb: 'x\n---\n", "model")
    assert len(errors) == 1
    assert "line" in errors[0]
