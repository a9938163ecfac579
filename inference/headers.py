"""Headers of safetensors files, read and proven before a library sees them.

8 bytes   n, little-endian
n bytes   {"<tensor>": {"dtype", "shape", "data_offsets": [start, end]}, …, "__metadata__": {text: text}}
rest      the tensors; the spans cover it from 0 to its end, one after the other
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import NoReturn

from inference.errors import ModelRefused

MAX_HEADER = 25 * 2**20
MAX_DIMENSIONS = 16

# fmt: off
BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "U32": 32, "I32": 32, "U64": 64, "I64": 64,
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "F16": 16, "BF16": 16, "F32": 32, "F64": 64, "C64": 64,
}
# fmt: on
FLOATS = frozenset({"F16", "BF16", "F32", "F64"})


@dataclass(frozen=True, slots=True)
class Tensor:
    """Where one tensor lies; the span counts from the end of the header."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Header:
    """A sound header."""

    tensors: dict[str, Tensor]
    metadata: dict[str, str]

    @property
    def bytes(self) -> int:
        """Bytes of all tensors as stored."""
        return max((tensor.end for tensor in self.tensors.values()), default=0)

    @property
    def floats(self) -> int:
        """Numbers that loading may turn into another format."""
        return sum(prod(tensor.shape) for tensor in self.tensors.values() if tensor.dtype in FLOATS)


class _Unsound(ValueError):
    """Why a header is refused."""


def read(path: Path) -> Header:
    """Read and check the header of a file; the tensors themselves are not read.

    Raises: ModelRefused, naming the file.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with open(fd, "rb") as file:
            size = os.fstat(fd).st_size
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(MAX_HEADER, size - 8):
                raise _Unsound(f"its header of {length} bytes does not fit ({MAX_HEADER} at most)")
            text = file.read(length)
        return parse(text, size - 8 - length)
    except (OSError, ValueError, RecursionError) as error:
        raise ModelRefused(f"{path.name} is not a sound safetensors file: {error}") from error


def parse(text: bytes, size: int) -> Header:
    """Check a header's text against the `size` bytes that follow it.

    Raises: ValueError.
    """
    if not text.startswith(b"{"):
        raise _Unsound("its header is not an object")
    found = json.loads(text.decode(), object_pairs_hook=_once, parse_constant=_no_constant, parse_float=_no_float)
    metadata = found.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _Unsound("its metadata holds more than texts")
    tensors = {name: _tensor(name, entry) for name, entry in found.items()}
    _check_spans(tensors, size)
    return Header(tensors, metadata)


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _Unsound("its header has a key twice")
    return found


def _no_constant(text: str) -> NoReturn:
    raise _Unsound(f"its header has {text}")


def _no_float(text: str) -> NoReturn:
    raise _Unsound("its header has a fraction")


def _tensor(name: str, entry: object) -> Tensor:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise _Unsound(f"tensor {name[:80]!r} has other keys than dtype, shape, data_offsets")
    dtype, shape, span = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in BITS:
        raise _Unsound(f"tensor {name[:80]!r} has an unknown dtype")
    if not _are_sizes(shape) or len(shape) > MAX_DIMENSIONS or not _are_sizes(span) or len(span) != 2:
        raise _Unsound(f"tensor {name[:80]!r} has a broken shape or span")
    if prod(shape) * BITS[dtype] != (span[1] - span[0]) * 8:
        raise _Unsound(f"tensor {name[:80]!r} does not fill its span")
    return Tensor(dtype, tuple(shape), span[0], span[1])


def _are_sizes(value: object) -> bool:
    return isinstance(value, list) and all(type(size) is int and 0 <= size < 2**63 for size in value)


def _check_spans(tensors: dict[str, Tensor], size: int) -> None:
    """Require the spans to cover the data, each byte once."""
    at = 0
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].end)):
        if tensor.start != at:
            raise _Unsound(f"tensor {name[:80]!r} leaves a gap or an overlap before it")
        at = tensor.end
    if at != size:
        raise _Unsound(f"its tensors fill {at} of {size} bytes")
