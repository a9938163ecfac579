"""The YAML block at the head of a card, read without trusting it.

    ---            a line of its own, after blank lines at most
    license: mit   YAML: one mapping
    ---

Bounds: 512 KiB of YAML, 100,000 nodes counted as often as an alias repeats them, 32 levels, numbers of 64 characters.
Values come out as JSON knows them: dates as text, sets as lists, keys as text, no NaN and no binary.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import date
from typing import Any

import yaml

Json = dict[str, "Json"] | list["Json"] | str | int | float | bool | None

MOST_BYTES = 512 << 10
_MOST_NODES = 100_000
_MOST_LEVELS = 32
_MOST_DIGITS = 64
_BLOCK = re.compile(r"\s*---[ \t]*\r?\n(.*?)(?:^|\r?\n)---[ \t]*(?:\r?\n|\Z)", re.DOTALL | re.MULTILINE)
_OPEN = re.compile(r"\s*---[ \t]*\r?\n")
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float", "tag:yaml.org,2002:timestamp")


class CardError(ValueError):
    """A metadata block that cannot be read; the text says why and where."""


def split(text: str) -> tuple[str, str]:
    """Part a card into its metadata block, empty if it has none, and the prose behind it."""
    match = _BLOCK.match(text.removeprefix("\ufeff"))
    if match is None:
        return "", text
    return match[1], text.removeprefix("\ufeff")[match.end() :]


def unclosed(text: str) -> bool:
    """True if a card begins a metadata block and never ends it."""
    plain = text.removeprefix("\ufeff")
    return _OPEN.match(plain) is not None and _BLOCK.match(plain) is None


def read(block: str) -> dict[str, Json]:
    """Read a metadata block; an empty one is an empty mapping.

    Raises: CardError.
    """
    if len(block.encode("utf-8", "surrogatepass")) > MOST_BYTES:
        raise CardError(f"The metadata is larger than {MOST_BYTES} bytes.")
    try:
        _check_events(block)
        loader = _LOADER(block)
        try:
            node = loader.get_single_node()
            if node is None:
                return {}
            _check_nodes(node)
            found = loader.construct_document(node)
        finally:
            loader.dispose()
    except CardError:
        raise
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError, TypeError, AttributeError, KeyError) as error:
        raise CardError(f"The metadata is not valid YAML: {_reason(error)}") from error
    if found is None:
        return {}
    if not isinstance(found, Mapping):
        raise CardError("The metadata must be a mapping of keys to values.")
    return {_key(key): plain(value) for key, value in found.items()}


def _check_events(block: str) -> None:
    """Bound depth before the composer recurses on it."""
    depth = 0
    for count, event in enumerate(yaml.parse(block, Loader=_LOADER)):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > _MOST_LEVELS or count > 2 * _MOST_NODES:
            raise CardError(f"The metadata is nested deeper than {_MOST_LEVELS} levels, or too long.")


def _check_nodes(root: yaml.Node) -> None:
    """Count nodes as often as aliases show them, so that what is built from them is bounded too."""
    pending = [(root, 1)]
    count = 0
    while pending:
        node, depth = pending.pop()
        count += 1
        if count > _MOST_NODES or depth > _MOST_LEVELS:
            raise CardError(f"The metadata has more than {_MOST_NODES} values, or an alias that repeats itself.")
        if isinstance(node, yaml.ScalarNode):
            if node.tag in _NUMBERS and len(node.value) > _MOST_DIGITS:
                raise CardError(f"A number in the metadata is longer than {_MOST_DIGITS} characters.")
        elif isinstance(node, yaml.SequenceNode):
            pending += [(child, depth + 1) for child in node.value]
        elif isinstance(node, yaml.MappingNode):
            pending += [(child, depth + 1) for pair in node.value for child in pair]


def plain(value: Any) -> Json:
    """Reduce a parsed value to what JSON and every database text can hold.

    Raises: RecursionError (nested deeper than the interpreter goes).
    """
    if value is None or isinstance(value, (bool, int, str)):
        return _clean(value) if isinstance(value, str) else value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {_key(key): plain(one) for key, one in value.items()}
    if isinstance(value, (set, frozenset)):
        return [*sorted(_key(one) for one in value)]
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    return None


def _key(key: object) -> str:
    return _clean(key) if isinstance(key, str) else _clean(str(plain(key)))


def _clean(text: str) -> str:
    """Drop what no database text and no UTF-8 answer can hold."""
    return text.replace("\x00", "").encode("utf-8", "replace").decode()


def _reason(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    text = str(getattr(error, "problem", None) or error).split("\n")[0][:200]
    return text if mark is None else f"{text} (line {mark.line + 1})"
