"""What a model's weight files add up to: numbers by dtype, and the shards of an index; pure."""

from __future__ import annotations

import json
from collections.abc import Iterable

from lfs.tensors import Header, HeaderError


def totals(headers: Iterable[Header]) -> dict[str, int]:
    """Count the numbers of all files together, by dtype, most first."""
    counts: dict[str, int] = {}
    for header in headers:
        for tensor in header.tensors.values():
            counts[tensor.dtype] = counts.get(tensor.dtype, 0) + tensor.count
    return dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))


def shards(index: bytes) -> list[str]:
    """Name the files that a `*.safetensors.index.json` spreads a model over, sorted.

    Raises: HeaderError.
    """
    try:
        found = json.loads(index)
    except (ValueError, RecursionError) as error:
        raise HeaderError("the index is not JSON") from error
    places = found.get("weight_map") if isinstance(found, dict) else None
    if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
        raise HeaderError("the index has no weight_map of names to files")
    return sorted(set(places.values()))
