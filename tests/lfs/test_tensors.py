"""Heads of safetensors files are read strictly, and only they."""

from __future__ import annotations

import pytest

from lfs import tensors
from lfs.tensors import HeaderError
from tests.lfs.heads import file_of, layout, read

ONE = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


def test_only_the_head_is_asked_for() -> None:
    made, data = layout([("F32", [1000])])
    content = file_of(made, data)
    asked = []

    def read(start: int, end: int) -> bytes:
        asked.append((start, end))
        return content[start:end]

    tensors.read_header(read, len(content))
    assert asked == [(0, 8), (8, len(content) - data)]


@pytest.mark.parametrize(
    ("header", "data"),
    [
        pytest.param(b'{"a":1,"a":1}', 0, id="a name twice"),
        pytest.param(b'{"t":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}}', 4, id="a key twice"),
        pytest.param({"t": {**ONE, "dtype": "Q4"}}, 4, id="unknown dtype"),
        pytest.param({"t": {**ONE, "shape": [2]}}, 4, id="shape larger than span"),
        pytest.param({"t": {**ONE, "shape": [True]}}, 4, id="boolean as size"),
        pytest.param({"t": {**ONE, "shape": [-1]}}, 4, id="negative size"),
        pytest.param({"t": {**ONE, "shape": [1.0]}}, 4, id="fraction as size"),
        pytest.param({"t": {**ONE, "shape": [1] * 65}}, 4, id="too many dimensions"),
        pytest.param({"t": {**ONE, "data_offsets": [4, 0]}}, 4, id="span backwards"),
        pytest.param({"t": {**ONE, "data_offsets": [1, 5]}}, 5, id="gap"),
        pytest.param({"t": ONE, "u": ONE}, 4, id="overlap"),
        pytest.param({"t": ONE}, 5, id="data behind the last tensor"),
        pytest.param({"t": {**ONE, "more": 1}}, 4, id="unknown key"),
        pytest.param({"t": [1]}, 4, id="no description"),
        pytest.param({"__metadata__": {"a": 1}}, 0, id="metadata that is no text"),
        pytest.param({"__metadata__": []}, 0, id="metadata that is no mapping"),
        pytest.param(b'{"t":NaN}', 0, id="not a number"),
        pytest.param(b" {}", 0, id="space first"),
        pytest.param(b"[]", 0, id="a list"),
        pytest.param(b"{" * 50_000, 0, id="deep"),
        pytest.param(b'{"a":' * 20_000, 0, id="deeper"),
        pytest.param(b"\xff", 0, id="no text"),
    ],
)
def test_a_header_that_breaks_a_rule_is_refused(header: object, data: int) -> None:
    with pytest.raises(HeaderError):
        read(file_of(header, data))


@pytest.mark.parametrize("content", [b"", b"1234567", b"\xff" * 8 + b"{}", (26 << 20).to_bytes(8, "little") + b"{}"])
def test_a_length_that_lies_is_refused_before_it_is_believed(content: bytes) -> None:
    with pytest.raises(HeaderError):
        read(content)
