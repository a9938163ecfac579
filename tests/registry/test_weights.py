"""Numbers are counted by dtype over files, and an index names its shards."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lfs import tensors
from lfs.tensors import Header, HeaderError
from registry import weights

BITS = {"F32": 32, "F16": 16, "I8": 8, "F4": 4}


def _file(header: object, data: int = 0) -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(raw).to_bytes(8, "little") + raw + bytes(data)


def _read(content: bytes) -> Header:
    return tensors.read_header(lambda start, end: content[start:end], len(content))


def _layout(shapes: list[tuple[str, list[int]]]) -> tuple[dict[str, Any], int]:
    made, at = {}, 0
    for number, (dtype, shape) in enumerate(shapes):
        count = 1
        for side in shape:
            count *= side
        end = at + count * BITS[dtype] // 8
        made[f"t{number}"] = {"dtype": dtype, "shape": shape, "data_offsets": [at, end]}
        at = end
    return made, at


@given(st.lists(st.tuples(st.sampled_from(["F32", "F16", "I8"]), st.lists(st.integers(0, 4), max_size=3)), max_size=6))
def test_a_proper_header_is_read_back(shapes: list[tuple[str, list[int]]]) -> None:
    made, data = _layout(shapes)
    header = _read(_file({"__metadata__": {"format": "pt"}, **made}, data))
    assert {name: [t.start, t.end] for name, t in header.tensors.items()} == {
        name: value["data_offsets"] for name, value in made.items()
    }
    assert header.metadata == {"format": "pt"}
    assert sum(weights.totals([header]).values()) == sum(tensor.count for tensor in header.tensors.values())


def test_numbers_are_counted_by_dtype_most_first() -> None:
    made, data = _layout([("F16", [2, 2]), ("F32", [10]), ("F4", [4]), ("F16", [])])
    header = _read(_file(made, data))
    assert list(weights.totals([header, header]).items()) == [("F32", 20), ("F16", 10), ("F4", 8)]


@given(st.binary(max_size=200))
def test_garbage_raises_only_our_error(content: bytes) -> None:
    for file in (content, _file(b"{" + content)):
        try:
            _read(file)
        except HeaderError:
            pass
    try:
        weights.shards(content)
    except HeaderError:
        pass


def test_an_index_names_its_shards_once() -> None:
    index = {"metadata": {}, "weight_map": {"b": "m-2.safetensors", "a": "m-1.safetensors", "c": "m-2.safetensors"}}
    assert weights.shards(json.dumps(index).encode()) == ["m-1.safetensors", "m-2.safetensors"]
    for broken in (b"{}", b'{"weight_map": {"a": 1}}', b"[]", b"{"):
        with pytest.raises(HeaderError):
            weights.shards(broken)
