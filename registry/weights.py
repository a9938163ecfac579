"""What stands at the head of a safetensors file, read from its first bytes only.

    u64 little-endian n | n bytes of JSON: {"__metadata__"?: {text: text}, name: {dtype, shape, data_offsets}} | data

Stricter than the library: keys are unique, dtypes known, shape × width = span, and the spans cover the data without gap
or overlap. Source: the safetensors format description.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

MOST_HEADER = 25 << 20
"""Bytes of a header that is still read."""
_BITS = {
    "BOOL": 8,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "U8": 8,
    "I8": 8,
    "F8_E5M2": 8,
    "F8_E4M3": 8,
    "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "C64": 64,
    "F64": 64,
    "I64": 64,
    "U64": 64,
}
_MOST_DIMENSIONS = 64

Read = Callable[[int, int], bytes]
"""`read(start, end)` gives exactly these bytes of a file."""


class WeightsError(ValueError):
    """A file that is not a safetensors file by our rules; the text says why."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor: where it lies, counted from the end of the header, in bytes."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def count(self) -> int:
        """Numbers in it."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Header:
    """Tensors by name, and the file's own notes."""

    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]


def read_header(read: Read, size: int) -> Header:
    """Read the header of a file of `size` bytes.

    Raises: WeightsError, and what `read` raises.
    """
    if size < 10:
        raise WeightsError("too short for a safetensors file")
    length = int.from_bytes(read(0, 8), "little")
    if length > MOST_HEADER:
        raise WeightsError(f"its header is longer than {MOST_HEADER} bytes")
    if length > size - 8:
        raise WeightsError("its header is longer than the file")
    return parse_header(read(8, 8 + length), size - 8 - length)


def parse_header(raw: bytes, data: int) -> Header:
    """Read the JSON of a header, before `data` bytes of tensors.

    Raises: WeightsError.
    """
    if raw[:1] != b"{":
        raise WeightsError("its header does not begin with '{'")
    try:
        found = json.loads(raw, object_pairs_hook=_unique, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"its header is not valid: {error}") from error
    metadata = _metadata(found.pop("__metadata__", {}))
    tensors = {name: _tensor(name, value) for name, value in found.items()}
    _check_spans(tensors.values(), data)
    return Header(tensors, metadata)


def totals(headers: Iterable[Header]) -> dict[str, int]:
    """Count the numbers of all files together, by dtype, most first."""
    counts: dict[str, int] = {}
    for header in headers:
        for tensor in header.tensors.values():
            counts[tensor.dtype] = counts.get(tensor.dtype, 0) + tensor.count
    return dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))


def shards(index: bytes) -> list[str]:
    """Name the files that a `*.safetensors.index.json` spreads a model over, sorted.

    Raises: WeightsError.
    """
    try:
        found = json.loads(index)
    except (ValueError, RecursionError) as error:
        raise WeightsError("the index is not JSON") from error
    places = found.get("weight_map") if isinstance(found, dict) else None
    if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
        raise WeightsError("the index has no weight_map of names to files")
    return sorted(set(places.values()))


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise WeightsError("a name stands twice in its header")
    return made


def _refuse(constant: str) -> object:
    raise WeightsError(f"its header holds {constant}")


def _metadata(found: object) -> dict[str, str]:
    if not isinstance(found, dict):
        raise WeightsError("its __metadata__ is no mapping")
    if not all(isinstance(value, str) for value in found.values()):
        raise WeightsError("its __metadata__ holds something else than text")
    return found


def _tensor(name: str, found: object) -> Tensor:
    if not isinstance(found, dict) or set(found) != {"dtype", "shape", "data_offsets"}:
        raise WeightsError(f"tensor {name[:80]!r} is not described by dtype, shape and data_offsets")
    dtype, shape, span = found["dtype"], found["shape"], found["data_offsets"]
    bits = _BITS.get(dtype) if isinstance(dtype, str) else None
    if bits is None:
        raise WeightsError(f"tensor {name[:80]!r} has an unknown dtype")
    if not _counts(shape) or len(shape) > _MOST_DIMENSIONS or not _counts(span) or len(span) != 2:
        raise WeightsError(f"tensor {name[:80]!r} has no proper shape or data_offsets")
    tensor = Tensor(dtype, tuple(shape), span[0], span[1])
    if tensor.count * bits != (tensor.end - tensor.start) * 8:
        raise WeightsError(f"tensor {name[:80]!r} has another size than its shape says")
    return tensor


def _counts(value: object) -> bool:
    """True for a list of numbers that may be sizes; JSON booleans are not."""
    return isinstance(value, list) and all(type(one) is int and 0 <= one < 1 << 63 for one in value)


def _check_spans(tensors: Iterable[Tensor], data: int) -> None:
    at = 0
    for tensor in sorted(tensors, key=lambda tensor: (tensor.start, tensor.end)):
        if tensor.start != at:
            raise WeightsError("its tensors overlap or leave a gap")
        at = tensor.end
    if at != data:
        raise WeightsError("its tensors do not end where the file ends")
