"""Files lie on the shelf like objects, for those who read; nobody can put, move or remove one there."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from lfs.errors import BadKey, Missing, RangeUnsatisfiable
from lfs.local import LocalStore
from lfs.soundness import digest, flaw
from lfs.store import ObjectStore, Probe, Span, file_key, lfs_key
from lfs.xet import hashes
from lfs.xet.shelf import WithFiles
from lfs.xet.tables import Tables
from tests.contracts.memory_store import MemoryStore
from tests.lfs.xet.drafts import Draft, Filed
from tests.lfs.xet.memory_index import MemoryIndex
from tests.lfs.xet.xorbs import Signing, random_xorb

OTHER = lfs_key("ab" * 32)


def of_two(store: ObjectStore | None = None) -> Filed:
    return Filed(Draft((random_xorb(1), random_xorb(2)), [(1, 0, 5), (0, 1, 3)]), store)


def test_a_file_is_read_like_an_object(tmp_path: Path) -> None:
    filed = of_two(LocalStore(tmp_path / "shelf", min_free=0, fsync=False))
    found = filed.shelf.stat(filed.key)
    assert (found.size, found.etag, found.path) == (len(filed.body), hashes.text(filed.file.hash), None)
    assert found == filed.shelf.stat(filed.key)
    assert filed.read(Span(5, 50_005)) == filed.body[5:50_005]
    with pytest.raises(RangeUnsatisfiable):
        filed.shelf.open(filed.key, Span(0, len(filed.body) + 1))
    sha256 = hashlib.sha256(filed.body).hexdigest()
    assert digest(filed.shelf, filed.key) == sha256
    assert flaw(filed.shelf, filed.key, sha256, len(filed.body)) == ""
    with filed.shelf.open(filed.key) as reader:
        assert reader.in_file() is None


def test_damage_to_a_file_is_found_by_those_who_look_for_it() -> None:
    store = MemoryStore()
    filed = of_two(store)
    sha256, row = hashlib.sha256(filed.body).hexdigest(), next(iter(filed.rows.values()))
    store.objects[row.key] = bytes(row.size)
    assert "cannot be read to its end" in flaw(filed.shelf, filed.key, sha256)
    assert flaw(filed.shelf, filed.key, sha256, read=False) == ""


def test_a_file_that_nobody_filed_is_missing() -> None:
    shelf = of_two().shelf
    for act in (shelf.stat, shelf.open):
        with pytest.raises(Missing):
            act(file_key("0" * 63 + "1"))


@pytest.mark.parametrize("key", ["xet/files/ab", "xet/files/" + "g" * 64, "xet/files/" + "0" * 64 + "/x", "xet/files/"])
def test_a_key_that_names_no_file_is_refused(key: str) -> None:
    shelf = of_two().shelf
    for act in (shelf.stat, shelf.open):
        with pytest.raises(BadKey):
            act(key)


@pytest.mark.parametrize(
    "act",
    [
        lambda shelf, key: shelf.put(key, b"x", 1),
        lambda shelf, key: shelf.copy(key, OTHER),
        lambda shelf, key: shelf.copy(OTHER, key),
        lambda shelf, key: shelf.parts(key, 5 << 20),
    ],
    ids=["put", "copy from", "copy to", "parts"],
)
def test_nothing_is_stored_under_the_key_of_a_file(act: Callable[[WithFiles, str], object]) -> None:
    store = MemoryStore()
    filed = of_two(store)
    filed.shelf.put(OTHER, b"other", 5)
    before = dict(store.objects)
    with pytest.raises(BadKey, match="put together"):
        act(filed.shelf, filed.key)
    assert store.objects == before


def test_a_file_is_neither_signed_for_nor_removed_nor_walked() -> None:
    store = Signing()
    filed = of_two(store)
    filed.shelf.put(OTHER, b"other", 5)
    assert filed.shelf.url(filed.key, "GET", 60) is None
    assert filed.shelf.url(OTHER, "GET", 60) is not None
    filed.shelf.delete(filed.key)
    assert filed.read() == filed.body
    assert list(filed.shelf.walk()) == sorted(store.objects)
    assert list(filed.shelf.walk("xet/files/")) == []
    assert list(filed.shelf.walk("lfs/", after="lfs/aa")) == [OTHER]
    filed.shelf.delete(OTHER)
    assert OTHER not in store.objects


class Believing(MemoryStore):
    """A shelf that remembers what it was told."""

    waits = True
    told: Probe | None = None

    def probe(self) -> Probe:
        return Probe("content_sha256", {"shelf": "believing"})

    def believe(self, probe: Probe) -> None:
        self.told = probe


def test_all_else_is_the_shelf_below() -> None:
    store = Believing()
    shelf = WithFiles(store, MemoryIndex(), Tables(store))
    assert shelf.waits
    assert not WithFiles(MemoryStore(), MemoryIndex(), Tables(store)).waits
    shelf.believe(shelf.probe())
    assert store.told == store.probe()
    shelf.parts(OTHER, 5 << 20).begin()
    assert shelf.sweep(0) == 1
