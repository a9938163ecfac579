"""Safetensors files for tests: a header of any kind, and tensors laid out as they must be."""

from __future__ import annotations

import json
from typing import Any

from lfs import tensors
from lfs.tensors import Header

BITS = {"F32": 32, "F16": 16, "I8": 8, "F4": 4}


def file_of(header: object, data: int = 0) -> bytes:
    """A safetensors file with this header and `data` bytes of zeros."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(raw).to_bytes(8, "little") + raw + bytes(data)


def read(content: bytes) -> Header:
    """Read the header of a whole file."""
    return tensors.read_header(lambda start, end: content[start:end], len(content))


def layout(shapes: list[tuple[str, list[int]]]) -> tuple[dict[str, Any], int]:
    """Describe tensors of these dtypes and shapes, one after the other, and say how many bytes they take."""
    made, at = {}, 0
    for number, (dtype, shape) in enumerate(shapes):
        count = 1
        for side in shape:
            count *= side
        end = at + count * BITS[dtype] // 8
        made[f"t{number}"] = {"dtype": dtype, "shape": shape, "data_offsets": [at, end]}
        at = end
    return made, at
