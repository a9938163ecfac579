"""What may be loaded: policy over a checked-out folder, before torch sees a byte of it.

Refused: weights that are code (pickle), configs that name code, kernels or addresses, quantisation we cannot run,
missing shards, unsound headers. Every refusal names the file, and the key where there is one.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path, PurePosixPath

from inference import headers
from inference.errors import ModelRefused
from lfs.tensors import Header

MAX_CONFIG = 16 * 2**20
MAX_NESTING = 64

REFUSED_KEYS = frozenset({"auto_map", "custom_pipelines", "trust_remote_code", "_from_auto", "transformers_weights"})
REFUSED_STEMS = ("_attn_implementation", "attn_implementation")
QUANT_METHODS = frozenset({"none", "gptq", "torchao", "compressed-tensors", "fp8", "mxfp4", "quanto-derived"})
NEEDS = {
    "gptq": ("optimum", "gptqmodel"),
    "torchao": ("torchao",),
    "compressed-tensors": ("compressed_tensors",),
}
"""Packages without which Transformers fails late and obscurely, by quantisation method."""

WHOLE, INDEX, PICKLE = "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"

_ADDRESS = re.compile(r"\s*[A-Za-z][A-Za-z0-9+.-]*://")


@dataclass(frozen=True, slots=True)
class Loadable:
    """A folder that policy has passed."""

    architecture: str
    weights: tuple[str, ...]
    bytes: int
    """Bytes of the weights as stored."""
    floats: int
    """Numbers among them that take the width of the loading dtype."""
    quant_method: str
    is_pickle: bool = False

    def estimate(self, width: int) -> int:
        """Guess the bytes of the loaded weights when floats take `width` bytes each."""
        return self.bytes if self.quant_method != "none" else max(self.floats * width, 1)


def judge(folder: Path, repo: str, sha: str, allow_pickle: frozenset[str] = frozenset()) -> Loadable:
    """Pass or refuse a checked-out revision.

    allow_pickle: `namespace/name@sha` of revisions whose pickled weights the operator trusts; a branch never counts.
    Raises: ModelRefused.
    """
    config = _object(folder / "config.json", "config.json")
    for path in sorted(folder.rglob("*.json")):
        name = path.relative_to(folder).as_posix()
        if _is_config(name):
            _check_keys(_parse(path, name), name, repo)
    architecture = _architecture(config)
    method = _quant_method(config)
    if not any(folder.glob("*.safetensors")):
        return _pickled(folder, f"{repo}@{sha}", allow_pickle, architecture, method)
    shards = _shards(folder)
    found = {shard: headers.read(folder / shard) for shard in shards}
    _check_index(folder, found)
    size, floats = sum(one.bytes for one in found.values()), sum(one.floats for one in found.values())
    return Loadable(architecture, shards, size, floats, method)


def _is_config(name: str) -> bool:
    """Say whether loaders act on this file; vocabularies and shard indexes are data, and are read as such."""
    last = PurePosixPath(name).name
    return last.endswith("config.json") or last in ("modules.json", "special_tokens_map.json", "weightroom.json")


def _parse(path: Path, name: str) -> object:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with open(fd, "rb") as file:
            text = file.read(MAX_CONFIG + 1)
        if len(text) > MAX_CONFIG:
            raise ValueError(f"it is larger than {MAX_CONFIG} bytes")
        return json.loads(text)
    except FileNotFoundError as error:
        raise ModelRefused(f"the revision has no {name}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise ModelRefused(f"{name} cannot be read: {error}") from error


def _object(path: Path, name: str) -> dict[str, object]:
    value = _parse(path, name)
    if not isinstance(value, dict):
        raise ModelRefused(f"{name} is not a JSON object")
    return value


def _check_keys(value: object, name: str, repo: str) -> None:
    for key, inner in _pairs(value, name):
        if key in REFUSED_KEYS and inner not in (None, False, "", [], {}):
            raise ModelRefused(f"{name} has the key {key!r}: code or files from elsewhere are never loaded")
        # Older Transformers saved `_attn_implementation_autoset: true`; a boolean names no kernel.
        if key.startswith(REFUSED_STEMS) and inner is not None and not isinstance(inner, bool):
            raise ModelRefused(f"{name} has the key {key!r}: the attention kernel is the operator's choice")
        if key == "base_model_name_or_path" and inner not in (None, "", repo):
            raise ModelRefused(f"{name} has the key {key!r}, which names another repository")
        if isinstance(inner, str) and _ADDRESS.match(inner):
            raise ModelRefused(f"{name} has an address under the key {key!r}; nothing is fetched while loading")


def _pairs(value: object, name: str) -> Iterator[tuple[str, object]]:
    """Walk every key at every depth; a list's elements come under the key of the list."""
    left: list[tuple[str, object, int]] = [("", value, 0)]
    while left:
        key, here, depth = left.pop()
        if depth > MAX_NESTING:
            raise ModelRefused(f"{name} is nested deeper than {MAX_NESTING}")
        yield key, here
        if isinstance(here, dict):
            left.extend((inner, part, depth + 1) for inner, part in here.items())
        elif isinstance(here, list):
            left.extend((key, part, depth + 1) for part in here)


def _architecture(config: dict[str, object]) -> str:
    names = config.get("architectures")
    if not isinstance(config.get("model_type"), str):
        raise ModelRefused("config.json has no 'model_type'; the sidecar loads models of Transformers' own classes")
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise ModelRefused("config.json has no 'architectures'")
    return str(names[0])


def _quant_method(config: dict[str, object]) -> str:
    text = config.get("text_config")
    quantised = config.get("quantization_config") or (
        text.get("quantization_config") if isinstance(text, dict) else None
    )
    if quantised is None:
        return "none"
    method = quantised.get("quant_method") if isinstance(quantised, dict) else None
    if not isinstance(method, str) or method not in QUANT_METHODS:
        listed = ", ".join(sorted(QUANT_METHODS))
        raise ModelRefused(f"config.json has quant_method {str(method)[:40]!r}; this sidecar runs {listed}")
    absent = [package for package in NEEDS.get(method, ()) if find_spec(package) is None]
    if absent:
        raise ModelRefused(
            f"config.json has quant_method {method!r}, which needs {' and '.join(absent)}: not installed"
        )
    return method


def _pickled(folder: Path, name: str, allowed: frozenset[str], architecture: str, method: str) -> Loadable:
    files = sorted(path.name for path in folder.glob("pytorch_model*.bin"))
    if name not in allowed:
        raise ModelRefused(
            f"{name} has no safetensors weights, and pickled weights are code; convert them, or have the operator set "
            f"WEIGHTROOM_ALLOW_PICKLE={name}"
        )
    if not files:
        raise ModelRefused(f"{name} has neither safetensors nor {PICKLE}")
    size = sum((folder / file).stat().st_size for file in files)
    return Loadable(architecture, tuple(files), size, size // 2, method, is_pickle=True)


def _shards(folder: Path) -> tuple[str, ...]:
    """Name the files that Transformers will open: the whole file if there is one, else those of the index."""
    if (folder / WHOLE).is_file():
        return (WHOLE,)
    placed = _weight_map(folder)
    shards = sorted(set(placed.values()))
    for shard in shards:
        if "/" in shard or "\\" in shard or not shard.endswith(".safetensors"):
            raise ModelRefused(f"{INDEX} names {shard[:80]!r}, which is not a safetensors file beside it")
        if not (folder / shard).is_file():
            raise ModelRefused(f"{INDEX} names {shard}, which the revision does not have")
    return tuple(shards)


def _weight_map(folder: Path) -> dict[str, str]:
    placed = _object(folder / INDEX, INDEX).get("weight_map")
    if not isinstance(placed, dict) or not placed or not all(isinstance(shard, str) for shard in placed.values()):
        raise ModelRefused(f"{INDEX} has no 'weight_map' from tensors to files")
    return placed


def _check_index(folder: Path, found: dict[str, Header]) -> None:
    """Require every tensor of the index to be in its shard."""
    if WHOLE in found:
        return
    for tensor, shard in _weight_map(folder).items():
        if tensor not in found[shard].tensors:
            raise ModelRefused(f"{INDEX} places {tensor[:80]!r} in {shard}, whose header does not have it")
