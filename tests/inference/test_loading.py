"""Loading policy: a plain model passes; each way to smuggle code, addresses or broken files in is refused by name."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from inference import loading
from inference.errors import ModelRefused
from inference.tiny import make_chat_model

SHA = "a" * 40


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_chat_model(tmp_path)
    return tmp_path


def _change(path: Path, **changes: object) -> None:
    value = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(value | changes))


def test_a_plain_model_passes_and_is_measured(folder: Path) -> None:
    found = loading.judge(folder, "acme/tiny", SHA)
    assert found.architecture == "LlamaForCausalLM"
    assert found.weights == ("model.safetensors",)
    assert not found.is_pickle
    assert found.bytes == found.floats * 4 == found.estimate(4)
    assert found.estimate(2) == found.bytes // 2


def test_judging_never_imports_torch(folder: Path) -> None:
    import subprocess

    code = (
        "import sys; from pathlib import Path; from inference import loading; "
        f"loading.judge(Path({str(folder)!r}), 'acme/tiny', {SHA!r}); sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2], timeout=60)


POISONS: dict[str, tuple[str, dict[str, object], str]] = {
    "remote code": ("config.json", {"auto_map": {"AutoModelForCausalLM": "evil.Model"}}, "auto_map"),
    "remote code of a tokenizer": ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["e.T", None]}}, "auto_map"),
    "remote code asked for": ("config.json", {"trust_remote_code": True}, "trust_remote_code"),
    "nested deeply": ("config.json", {"text_config": {"parts": [{"auto_map": {"a": "b"}}]}}, "auto_map"),
    "a pipeline": ("config.json", {"custom_pipelines": {"x": {"impl": "evil.P"}}}, "custom_pipelines"),
    "a kernel": ("config.json", {"_attn_implementation": "evil/kernel"}, "_attn_implementation"),
    "a kernel under another name": ("config.json", {"_attn_implementation_internal": "evil/k"}, "_attn_implementation"),
    "a kernel per part": ("config.json", {"attn_implementation": {"text_config": "evil/k"}}, "attn_implementation"),
    "another class's loader": ("config.json", {"_from_auto": True}, "_from_auto"),
    "weights by another name": ("config.json", {"transformers_weights": "adapter.bin"}, "transformers_weights"),
    "an adapter's base": ("adapter_config.json", {"base_model_name_or_path": "evil/base"}, "base_model_name_or_path"),
    "an adapter's base on disk": (
        "adapter_config.json",
        {"base_model_name_or_path": "/etc"},
        "base_model_name_or_path",
    ),
    "an address": ("config.json", {"vision": {"image_url": "https://evil.example/x"}}, "image_url"),
    "an address in a list": ("generation_config.json", {"files": ["a", " http://evil.example"]}, "files"),
    "an address of a file": ("preprocessor_config.json", {"source": "file:///etc/passwd"}, "source"),
    "unknown quantisation": ("config.json", {"quantization_config": {"quant_method": "bitsandbytes"}}, "quant_method"),
    "quantisation without a method": ("config.json", {"quantization_config": {"bits": 4}}, "quant_method"),
    "quantisation of a part": ("config.json", {"text_config": {"quantization_config": {"quant_method": "awq"}}}, "awq"),
    "no model type": ("config.json", {"model_type": None}, "model_type"),
    "no architecture": ("config.json", {"architectures": []}, "architectures"),
}


@pytest.mark.parametrize(("name", "changes", "told"), POISONS.values(), ids=POISONS)
def test_poisoned_configs_are_refused_by_file_and_key(
    folder: Path, name: str, changes: dict[str, object], told: str
) -> None:
    _change(folder / name, **changes)
    with pytest.raises(ModelRefused) as refused:
        loading.judge(folder, "acme/tiny", SHA)
    assert told in refused.value.message
    assert name in refused.value.message


def test_configs_in_folders_are_read_too(folder: Path) -> None:
    (folder / "1_Pooling").mkdir()
    _change(folder / "1_Pooling" / "config.json", auto_map={"a": "b"})
    with pytest.raises(ModelRefused, match=r"1_Pooling/config\.json"):
        loading.judge(folder, "acme/tiny", SHA)


@pytest.mark.parametrize(
    "changes",
    [
        {"trust_remote_code": False, "auto_map": None},
        {"_attn_implementation_autoset": True},
        {"_name_or_path": "someone/else", "note": "see the page at https://example.org for more"},
        {"quantization_config": None},
    ],
)
def test_harmless_lookalikes_pass(folder: Path, changes: dict[str, object]) -> None:
    _change(folder / "config.json", **changes)
    loading.judge(folder, "acme/tiny", SHA)


def test_an_adapter_of_the_same_repo_passes(folder: Path) -> None:
    _change(folder / "adapter_config.json", base_model_name_or_path="acme/tiny")
    loading.judge(folder, "acme/tiny", SHA)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=12,
)


@given(JSON, st.binary(max_size=60))
def test_any_config_passes_or_is_refused_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, value: object, garbage: bytes
) -> None:
    folder = tmp_path_factory.mktemp("any")
    for text in (json.dumps(value).encode(), garbage):
        (folder / "config.json").write_bytes(text)
        with pytest.raises(ModelRefused):
            loading.judge(folder, "acme/tiny", SHA)


@given(JSON.map(lambda value: {"inner": [{"deep": value}]}), st.sampled_from(["auto_map", "custom_pipelines"]))
def test_a_refused_key_is_found_wherever_it_hides(value: dict[str, object], key: str) -> None:
    value["inner"] = [value["inner"], {"more": {key: "evil.Model"}}]
    with pytest.raises(ModelRefused, match=key):
        loading._check_keys(value, "config.json", "acme/tiny")


def test_a_config_nested_beyond_reason_is_refused(folder: Path) -> None:
    for text in ("[" * 100_000, '{"a":' * 1000 + "1" + "}" * 1000):
        (folder / "config.json").write_text(text)
        with pytest.raises(ModelRefused, match=r"config\.json"):
            loading.judge(folder, "acme/tiny", SHA)


def _shard(folder: Path) -> dict[str, str]:
    (folder / "model.safetensors").unlink()
    placed = {"a.weight": "model-00001-of-00002.safetensors", "b.weight": "model-00002-of-00002.safetensors"}
    for tensor, shard in placed.items():
        save_file({tensor: numpy.zeros((2, 2), numpy.float32)}, folder / shard)
    _change(folder / loading.INDEX, metadata={"total_size": 32}, weight_map=placed)
    return placed


def test_shards_are_summed(folder: Path) -> None:
    placed = _shard(folder)
    found = loading.judge(folder, "acme/tiny", SHA)
    assert found.weights == tuple(sorted(placed.values()))
    assert found.bytes == 32


def _lose_a_shard(folder: Path, placed: dict[str, str]) -> str:
    (folder / placed["b.weight"]).unlink()
    return placed["b.weight"]


def _break_a_shard(folder: Path, placed: dict[str, str]) -> str:
    (folder / placed["b.weight"]).write_bytes(b"\x08\0\0\0\0\0\0\0{}      x")
    return placed["b.weight"]


def _place_outside(folder: Path, placed: dict[str, str]) -> str:
    _change(folder / loading.INDEX, weight_map=placed | {"c.weight": "../model.safetensors"})
    return "../model.safetensors"


def _place_in_pickle(folder: Path, placed: dict[str, str]) -> str:
    _change(folder / loading.INDEX, weight_map=placed | {"c.weight": "pytorch_model.bin"})
    return "pytorch_model.bin"


def _place_wrongly(folder: Path, placed: dict[str, str]) -> str:
    _change(folder / loading.INDEX, weight_map=placed | {"c.weight": placed["a.weight"]})
    return "c.weight"


def _no_map(folder: Path, placed: dict[str, str]) -> str:
    (folder / loading.INDEX).write_text("{}")
    return "weight_map"


@pytest.mark.parametrize(
    "spoil", [_lose_a_shard, _break_a_shard, _place_outside, _place_in_pickle, _place_wrongly, _no_map]
)
def test_broken_indexes_are_refused(folder: Path, spoil: Callable[[Path, dict[str, str]], str]) -> None:
    told = spoil(folder, _shard(folder))
    with pytest.raises(ModelRefused) as refused:
        loading.judge(folder, "acme/tiny", SHA)
    assert told in refused.value.message


def test_pickled_weights_need_the_operators_word_for_this_very_commit(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    for allowed in ((), ("acme/tiny",), ("acme/tiny@main",), (f"acme/tiny@{'b' * 40}",), (f"acme/other@{SHA}",)):
        with pytest.raises(ModelRefused, match="pickled"):
            loading.judge(folder, "acme/tiny", SHA, frozenset(allowed))
    assert loading.judge(folder, "acme/tiny", SHA, frozenset({f"acme/tiny@{SHA}"})).is_pickle


def test_a_folder_without_weights_is_refused(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelRefused):
        loading.judge(folder, "acme/tiny", SHA, frozenset({f"acme/tiny@{SHA}"}))


def test_gptq_without_its_packages_is_refused_by_their_names(folder: Path) -> None:
    _change(folder / "config.json", quantization_config={"quant_method": "gptq", "bits": 4})
    with pytest.raises(ModelRefused, match="gptqmodel"):
        loading.judge(folder, "acme/tiny", SHA)
