"""What a revision's own files say about sampling, stopping and special tokens; pure over its folder."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from inference.errors import ModelRefused

MAX_JSON = 16 * 2**20
"""Bytes of a JSON file that is read here."""

# Name in generation_config.json → the numbers it may take.
_RANGES: dict[str, tuple[float, float]] = {
    "temperature": (0.0, 2.0),
    "top_p": (0.0, 1.0),
    "top_k": (0, 2**31 - 1),
    "min_p": (0.0, 0.999),
    "repetition_penalty": (0.01, 10.0),
}


@dataclass(frozen=True, slots=True)
class Defaults:
    """Sampling numbers that hold where a request names none, and the ids that end an answer."""

    numbers: dict[str, float] = field(default_factory=dict)
    """Some of temperature, top_p, top_k, min_p, repetition_penalty."""
    stop_ids: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Specials:
    """The special tokens' texts, by the names that templates know, and the chat template."""

    tokens: dict[str, str] = field(default_factory=dict)
    """`bos_token`, `eos_token`, … → text."""
    template: str | None = None


def read_defaults(folder: Path) -> Defaults:
    """Read `generation_config.json`, and `config.json` for the end tokens that the former does not name.

    Raises: ModelRefused: a file is not a JSON object, or names a number that no sampler can use.
    """
    generation = read_json(folder / "generation_config.json")
    numbers: dict[str, float] = {}
    for name, (low, high) in _RANGES.items():
        value = generation.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise ModelRefused(
                f"generation_config.json: {name} is {value!r:.40}; it must be a number {low:g}…{high:g}."
            )
        numbers[name] = int(value) if name == "top_k" else float(value)
    if numbers.get("top_p") == 0.0:
        del numbers["top_p"]
    if generation.get("do_sample") is False:
        numbers["temperature"] = 0.0
    ends = _ids(generation.get("eos_token_id"), "generation_config.json")
    if not ends:
        ends = _ids(read_json(folder / "config.json").get("eos_token_id"), "config.json")
    return Defaults(numbers, ends)


def read_specials(folder: Path) -> Specials:
    """Read special tokens and the chat template, wherever this generation of files keeps them.

    Source: transformers writes `chat_template.jinja`; older releases `chat_template.json` or a key of the config.
    Raises: ModelRefused: a file is not what it should be.
    """
    config = read_json(folder / "tokenizer_config.json")
    tokens = {}
    for name, value in config.items():
        text = value.get("content") if isinstance(value, dict) else value
        if name.endswith("_token") and isinstance(text, str):
            tokens[name] = text
    return Specials(tokens, _template(folder, config))


def _template(folder: Path, config: dict[str, object]) -> str | None:
    path = folder / "chat_template.jinja"
    if path.is_file():
        return _read(path).decode("utf-8", "replace")
    found = read_json(folder / "chat_template.json").get("chat_template", config.get("chat_template"))
    if isinstance(found, list):
        named = {entry.get("name"): entry.get("template") for entry in found if isinstance(entry, dict)}
        found = named.get("default")
    return found if isinstance(found, str) else None


def _ids(value: object, where: str) -> frozenset[int]:
    ids = value if isinstance(value, list) else [] if value is None else [value]
    if any(isinstance(id_, bool) or not isinstance(id_, int) or id_ < 0 for id_ in ids):
        raise ModelRefused(f"{where}: eos_token_id must be a token id or a list of them.")
    return frozenset(ids)


def read_json(path: Path) -> dict[str, object]:
    """Read a JSON object; an absent file is an empty one.

    Raises: ModelRefused: too long, or not a JSON object.
    """
    if not path.is_file():
        return {}
    try:
        value = json.loads(_read(path))
    except (ValueError, RecursionError):
        raise ModelRefused(f"{path.name} is not JSON.") from None
    if not isinstance(value, dict):
        raise ModelRefused(f"{path.name} is not a JSON object.")
    return value


def _read(path: Path) -> bytes:
    if path.stat().st_size > MAX_JSON:
        raise ModelRefused(f"{path.name} is longer than {MAX_JSON} bytes.")
    return path.read_bytes()
