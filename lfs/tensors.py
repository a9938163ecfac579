"""What stands at the head of a safetensors file: read from its first bytes, before any library sees the rest; pure.

    u64 little-endian n | n bytes of JSON: {"__metadata__"?: {text: text}, name: {dtype, shape, data_offsets}} | data

Stricter than the library: keys are unique, dtypes known, shape × width = span, and the spans cover the data without gap
or overlap. The registry counts parameters by it, the sidecar decides by it what may be loaded.
Source: the safetensors format description.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

MAX_HEADER = 25 << 20
"""Bytes of a header that is still read."""
MAX_DIMENSIONS = 64

# fmt: off
BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "U32": 32, "I32": 32, "U64": 64, "I64": 64,
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "F16": 16, "BF16": 16, "F32": 32, "F64": 64, "C64": 64,
}
# fmt: on
FLOATS = frozenset({"F16", "BF16", "F32", "F64"})

Read = Callable[[int, int], bytes]
"""`read(start, end)` gives exactly these bytes of a file."""


class HeaderError(ValueError):
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

    @property
    def bytes(self) -> int:
        """Bytes of all tensors as stored."""
        return max((tensor.end for tensor in self.tensors.values()), default=0)

    @property
    def floats(self) -> int:
        """Numbers that loading may turn into another format."""
        return sum(tensor.count for tensor in self.tensors.values() if tensor.dtype in FLOATS)


def read_header(read: Read, size: int) -> Header:
    """Read the header of a file of `size` bytes.

    Raises: HeaderError, and what `read` raises.
    """
    if size < 10:
        raise HeaderError("too short for a safetensors file")
    length = int.from_bytes(read(0, 8), "little")
    if length > MAX_HEADER:
        raise HeaderError(f"its header is longer than {MAX_HEADER} bytes")
    if length > size - 8:
        raise HeaderError("its header is longer than the file")
    return parse_header(read(8, 8 + length), size - 8 - length)


def parse_header(raw: bytes, data: int) -> Header:
    """Read the JSON of a header, before `data` bytes of tensors.

    Raises: HeaderError.
    """
    if raw[:1] != b"{":
        raise HeaderError("its header does not begin with '{'")
    try:
        found = json.loads(raw, object_pairs_hook=_unique, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise HeaderError(f"its header is not valid: {error}") from error
    metadata = _metadata(found.pop("__metadata__", {}))
    tensors = {name: _tensor(name, value) for name, value in found.items()}
    _check_spans(tensors.values(), data)
    return Header(tensors, metadata)


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise HeaderError("a name stands twice in its header")
    return made


def _refuse(constant: str) -> object:
    raise HeaderError(f"its header holds {constant}")


def _metadata(found: object) -> dict[str, str]:
    if not isinstance(found, dict):
        raise HeaderError("its __metadata__ is no mapping")
    if not all(isinstance(value, str) for value in found.values()):
        raise HeaderError("its __metadata__ holds something else than text")
    return found


def _tensor(name: str, found: object) -> Tensor:
    if not isinstance(found, dict) or set(found) != {"dtype", "shape", "data_offsets"}:
        raise HeaderError(f"tensor {name[:80]!r} is not described by dtype, shape and data_offsets")
    dtype, shape, span = found["dtype"], found["shape"], found["data_offsets"]
    bits = BITS.get(dtype) if isinstance(dtype, str) else None
    if bits is None:
        raise HeaderError(f"tensor {name[:80]!r} has an unknown dtype")
    if not _counts(shape) or len(shape) > MAX_DIMENSIONS or not _counts(span) or len(span) != 2:
        raise HeaderError(f"tensor {name[:80]!r} has no proper shape or data_offsets")
    tensor = Tensor(dtype, tuple(shape), span[0], span[1])
    if tensor.count * bits != (tensor.end - tensor.start) * 8:
        raise HeaderError(f"tensor {name[:80]!r} has another size than its shape says")
    return tensor


def _counts(value: object) -> bool:
    """True for a list of numbers that may be sizes; JSON booleans are not."""
    return isinstance(value, list) and all(type(one) is int and 0 <= one < 1 << 63 for one in value)


def _check_spans(tensors: Iterable[Tensor], data: int) -> None:
    at = 0
    for tensor in sorted(tensors, key=lambda tensor: (tensor.start, tensor.end)):
        if tensor.start != at:
            raise HeaderError("its tensors overlap or leave a gap")
        at = tensor.end
    if at != data:
        raise HeaderError("its tensors do not end where the file ends")
