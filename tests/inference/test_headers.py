"""Safetensors headers: what the library writes is read, and nothing else raises more than a refusal."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save

from inference import headers
from inference.errors import ModelRefused
from lfs import tensors

SHAPES = st.lists(st.integers(0, 4), max_size=3).map(tuple)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
)
DTYPES = st.sampled_from(["float32", "float16", "int8", "int64", "bool", "uint8"])


def _file(path: Path, text: bytes, data: bytes, length: int | None = None) -> Path:
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)
    return path


@given(st.dictionaries(st.text(max_size=8).filter(lambda name: name != "__metadata__"), st.tuples(DTYPES, SHAPES)))
def test_what_the_library_writes_is_read(wanted: dict[str, tuple[str, tuple[int, ...]]]) -> None:
    written = save({name: numpy.zeros(shape, dtype) for name, (dtype, shape) in wanted.items()}, {"format": "pt"})
    length = int.from_bytes(written[:8], "little")
    header = tensors.parse_header(written[8 : 8 + length], len(written) - 8 - length)
    assert {name: tensor.shape for name, tensor in header.tensors.items()} == {
        name: shape for name, (_, shape) in wanted.items()
    }
    assert header.metadata == {"format": "pt"}
    assert header.bytes == len(written) - 8 - length


@given(st.binary(max_size=200), st.integers(0, 2**64 - 1))
def test_garbage_is_refused_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, length: int
) -> None:
    path = tmp_path_factory.mktemp("garbage") / "model.safetensors"
    for content in (data, length.to_bytes(8, "little") + data, len(data).to_bytes(8, "little") + data):
        path.write_bytes(content)
        with pytest.raises(ModelRefused, match=r"model\.safetensors"):
            headers.read(path)


@given(JSON, st.integers(0, 64))
def test_any_json_is_a_header_or_an_error_of_value(value: object, size: int) -> None:
    for text in (value, {"t": value}, {"t": {"dtype": "F32", "shape": value, "data_offsets": [0, size]}}):
        try:
            header = tensors.parse_header(json.dumps(text).encode(), size)
        except ValueError:
            continue
        assert header.bytes == size


def _entry(**changes: object) -> dict[str, object]:
    return {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]} | changes


POISONS: dict[str, bytes] = {
    "a gap before the first": json.dumps({"a": _entry(data_offsets=[4, 20])}).encode(),
    "a gap at the end": json.dumps({"a": _entry(shape=[2], data_offsets=[0, 8])}).encode(),
    "an overlap": json.dumps({"a": _entry(), "b": _entry()}).encode(),
    "a span that ends before it starts": json.dumps({"a": _entry(data_offsets=[16, 0])}).encode(),
    "a negative shape": json.dumps({"a": _entry(shape=[-2, -2])}).encode(),
    "a shape that is not its span": json.dumps({"a": _entry(shape=[3, 2])}).encode(),
    "a shape beyond all memory": json.dumps({"a": _entry(shape=[2**62] * 8)}).encode(),
    "a thousand dimensions": json.dumps({"a": _entry(shape=[1] * 1000 + [4])}).encode(),
    "a truth value for a size": json.dumps({"a": _entry(shape=[True, 4])}).encode(),
    "a fraction for a size": b'{"a":{"dtype":"F32","shape":[4.0],"data_offsets":[0,16]}}',
    "an unknown dtype": json.dumps({"a": _entry(dtype="F31")}).encode(),
    "an extra key": json.dumps({"a": _entry(code="import os")}).encode(),
    "the same tensor twice": b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},'
    b'"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}',
    "metadata that is not text": json.dumps({"__metadata__": {"a": 1}, "a": _entry()}).encode(),
    "metadata that is a list": json.dumps({"__metadata__": [], "a": _entry()}).encode(),
    "a list": b"[]" + b" " * 14,
    "white space first": b" " + json.dumps({"a": _entry()}).encode(),
    "not UTF-8": b'{"\xff":1}',
    "brackets a million deep": b'{"a":' + b"[" * 1_000_000,
    "a number of a million digits": b'{"a":' + b"1" * 1_000_000 + b"}",
    "not a number": b'{"a":NaN}',
}


@pytest.mark.parametrize("text", POISONS.values(), ids=POISONS)
def test_poisoned_headers_are_refused(tmp_path: Path, text: bytes) -> None:
    with pytest.raises(ModelRefused, match=r"model\.safetensors"):
        headers.read(_file(tmp_path / "model.safetensors", text, bytes(16)))


WRONG_LENGTHS: dict[str, Callable[[int], int]] = {
    "longer than the file": lambda length: length + 17,
    "longer than any header": lambda _: tensors.MAX_HEADER + 1,
    "of the whole address space": lambda _: 2**64 - 1,
    "shorter than its text": lambda length: length - 1,
}


@pytest.mark.parametrize("wrong", WRONG_LENGTHS.values(), ids=WRONG_LENGTHS)
def test_wrong_lengths_are_refused(tmp_path: Path, wrong: Callable[[int], int]) -> None:
    text = json.dumps({"a": _entry()}).encode()
    with pytest.raises(ModelRefused):
        headers.read(_file(tmp_path / "model.safetensors", text, bytes(16), wrong(len(text))))


def test_a_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    _file(tmp_path / "elsewhere", json.dumps({"a": _entry()}).encode(), bytes(16))
    (tmp_path / "model.safetensors").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ModelRefused):
        headers.read(tmp_path / "model.safetensors")
