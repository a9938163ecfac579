"""Numbers are counted by dtype over files, and an index names its shards."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lfs.tensors import HeaderError
from registry import weights
from tests.lfs.heads import file_of, layout, read


@given(st.lists(st.tuples(st.sampled_from(["F32", "F16", "I8"]), st.lists(st.integers(0, 4), max_size=3)), max_size=6))
def test_a_proper_header_is_read_back(shapes: list[tuple[str, list[int]]]) -> None:
    made, data = layout(shapes)
    header = read(file_of({"__metadata__": {"format": "pt"}, **made}, data))
    assert {name: [t.start, t.end] for name, t in header.tensors.items()} == {
        name: value["data_offsets"] for name, value in made.items()
    }
    assert header.metadata == {"format": "pt"}
    assert sum(weights.totals([header]).values()) == sum(tensor.count for tensor in header.tensors.values())


def test_numbers_are_counted_by_dtype_most_first() -> None:
    made, data = layout([("F16", [2, 2]), ("F32", [10]), ("F4", [4]), ("F16", [])])
    header = read(file_of(made, data))
    assert list(weights.totals([header, header]).items()) == [("F32", 20), ("F16", 10), ("F4", 8)]


@given(st.binary(max_size=200))
def test_garbage_raises_only_our_error(content: bytes) -> None:
    for file in (content, file_of(b"{" + content)):
        try:
            read(file)
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
