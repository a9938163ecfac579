"""Facts of a commit come from its own files, tensors included, and a store that is down does not hide the rest."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from registry.db import Database
from registry.revisions import Resolved
from tests.registry.gate import MAIN
from tests.registry.routes.hub.reader import Reader

CARD = b"---\nlicense: mit\npipeline_tag: text-generation\n---\n"


def _tensors(dtype: str, *shape: int, width: int = 4) -> bytes:
    count = 1
    for side in shape:
        count *= side
    head = json.dumps({"t": {"dtype": dtype, "shape": list(shape), "data_offsets": [0, count * width]}}).encode()
    return len(head).to_bytes(8, "little") + head + bytes(count * width)


@pytest.fixture
def reader(sqlite_database: Database, tmp_path: Path) -> Reader:
    return Reader(sqlite_database, tmp_path)


def _at(reader: Reader, sha: str) -> Resolved:
    return Resolved(1, sha, reader.gate.repositories.snapshot(1).manifest_version)


def test_tensors_are_counted_in_git_and_in_lfs_alike(reader: Reader) -> None:
    data = _tensors("F32", 3, 4)
    small = reader.push({"model.safetensors": data})
    large = reader.push({"model.safetensors": reader.large(data)}, on=small)
    for sha in (small, large):
        facts = reader.facts.read("model", _at(reader, sha))
        assert (dict(facts.tensors), facts.parameters) == ({"F32": 12}, 12)


def test_shards_are_counted_together(reader: Reader) -> None:
    index = json.dumps({"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}).encode()
    sha = reader.push(
        {
            "model.safetensors.index.json": index,
            "model-1.safetensors": reader.large(_tensors("F16", 100, width=2)),
            "model-2.safetensors": reader.large(_tensors("F32", 7)),
        }
    )
    assert dict(reader.facts.read("model", _at(reader, sha)).tensors) == {"F16": 100, "F32": 7}


@pytest.mark.parametrize(
    "files",
    [
        {"model.safetensors": b"not weights at all"},
        {"model.safetensors.index.json": b"{}"},
        {"model.safetensors.index.json": b'{"weight_map": {"a": "absent.safetensors"}}'},
    ],
)
def test_weights_that_are_none_hide_nothing_else(reader: Reader, files: dict[str, bytes]) -> None:
    facts = reader.facts.read("model", _at(reader, reader.push({"README.md": CARD, **files})))
    assert (facts.task, dict(facts.tensors)) == ("text-generation", {})


def test_a_store_that_lost_the_bytes_is_asked_again(reader: Reader) -> None:
    data = _tensors("F32", 2)
    pointer = reader.large(data)
    sha = reader.push({"README.md": CARD, "model.safetensors": pointer})
    oid = pointer.split(b"sha256:")[1][:64].decode()
    key = f"lfs/{oid[:2]}/{oid[2:4]}/{oid}"
    reader.gate.store.delete(key)
    facts = reader.facts.read("model", _at(reader, sha))
    assert (facts.task, dict(facts.tensors)) == ("text-generation", {})
    reader.gate.store.put(key, data, len(data), oid)
    assert dict(reader.facts.read("model", _at(reader, sha)).tensors) == {"F32": 2}


def test_a_readme_that_is_a_folder_or_in_lfs_says_nothing(reader: Reader) -> None:
    folder = reader.push({"README.md/x": CARD})
    stored = reader.push({"README.md": reader.large(CARD)}, on=folder)
    for sha in (folder, stored):
        assert dict(reader.facts.read("model", _at(reader, sha)).card) == {}


def test_each_commit_has_its_own_facts(reader: Reader) -> None:
    first = reader.push({"README.md": CARD})
    second = reader.push({"README.md": b"---\nlicense: apache-2.0\n---\n"}, on=first)
    assert reader.gate.targets() == {MAIN: second}
    licenses = [reader.facts.read("model", _at(reader, sha)).card["license"] for sha in (first, second, first)]
    assert licenses == ["mit", "apache-2.0", "mit"]
