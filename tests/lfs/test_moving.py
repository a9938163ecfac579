"""Two shelves are one: read where bytes are, written where they go, also at the moment when they move."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

import pytest

from lfs.errors import Damaged, DigestMismatch, Missing
from lfs.local import LocalStore
from lfs.moving import Moving
from lfs.store import ObjectStore, Signed, Span, lfs_key
from tests.contracts.memory_store import MemoryStore

BODY = b"weights" * 1000
OID = hashlib.sha256(BODY).hexdigest()
KEY = lfs_key(OID)


@pytest.fixture(params=["disk to memory", "memory to disk", "disk to disk"])
def shelves(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Moving, ObjectStore, ObjectStore]:
    """Two shelves as one, where bytes go, and where they come from."""
    source, _, to = (
        LocalStore(tmp_path / str(at), min_free=0, fsync=False) if kind == "disk" else MemoryStore()
        for at, kind in enumerate(request.param.split())
    )
    return Moving(to=to, source=source), to, source


def read(store: ObjectStore, key: str = KEY, span: Span | None = None) -> bytes:
    with store.open(key, span) as reader:
        return reader.read_all()


def test_what_only_the_source_holds_is_read_and_what_is_written_goes_on(
    shelves: tuple[Moving, ObjectStore, ObjectStore],
) -> None:
    moving, to, source = shelves
    source.put(KEY, BODY, len(BODY), OID)
    assert moving.stat(KEY).size == len(BODY)
    assert read(moving, KEY, Span(7, 14)) == b"weights"
    other = lfs_key(OID, "ab")
    moving.put(other, BODY, len(BODY), OID)
    assert read(to, other) == BODY
    with pytest.raises(Missing):
        source.stat(other)


def test_proven_bytes_take_the_place_of_those_that_the_source_lost(
    shelves: tuple[Moving, ObjectStore, ObjectStore],
) -> None:
    moving, to, source = shelves
    source.put(KEY, b"cut", 3)
    with pytest.raises(DigestMismatch):
        moving.put(KEY, BODY[::-1], len(BODY), OID)
    moving.put(KEY, BODY, len(BODY), OID)
    assert read(moving) == read(to) == BODY


def test_bytes_without_a_hash_never_take_a_key_that_has_some(
    shelves: tuple[Moving, ObjectStore, ObjectStore],
) -> None:
    moving, _, source = shelves
    source.put(KEY, BODY, len(BODY), OID)
    assert moving.put(KEY, BODY[::-1], len(BODY)).size == len(BODY)
    assert read(moving) == BODY
    with pytest.raises(Damaged):
        moving.put(KEY, b"other", 5)


def test_a_second_name_is_given_across_the_shelves(shelves: tuple[Moving, ObjectStore, ObjectStore]) -> None:
    moving, to, source = shelves
    source.put(KEY, BODY, len(BODY), OID)
    other = lfs_key(OID, "cd")
    assert moving.copy(KEY, other).size == len(BODY)
    assert read(to, other) == BODY
    source.delete(KEY)
    assert moving.copy(KEY, other).size == len(BODY)
    third = lfs_key(OID, "ef")
    source.put(third, BODY, len(BODY))
    assert moving.copy(KEY, third).size == len(BODY)


def test_a_deleted_key_is_gone_from_both(shelves: tuple[Moving, ObjectStore, ObjectStore]) -> None:
    moving, to, source = shelves
    for shelf in (to, source):
        shelf.put(KEY, BODY, len(BODY), OID)
    moving.delete(KEY)
    for shelf in (moving, to, source):
        with pytest.raises(Missing):
            shelf.stat(KEY)


def test_each_key_is_listed_once_and_in_order(shelves: tuple[Moving, ObjectStore, ObjectStore]) -> None:
    moving, to, source = shelves
    for at in range(9):
        for shelf in (to, source)[at % 3 - 1 :: 1] if at % 3 else (source,):
            shelf.put(f"lfs/{at}", b"x", 1)
    keys = [f"lfs/{at}" for at in range(9)]
    assert list(moving.walk()) == keys
    assert list(moving.walk("lfs/", "lfs/4")) == keys[5:]


def test_an_upload_in_parts_ends_where_it_began(shelves: tuple[Moving, ObjectStore, ObjectStore]) -> None:
    moving, to, source = shelves
    half = len(BODY) // 2
    begun = source.parts(KEY, half)
    tag = begun.put(1, BODY[:half], half)
    after = moving.parts(KEY, half, begun.session)
    assert after.sent()[1].size == half
    second = moving.parts(KEY, half, begun.session).put(2, BODY[half:], len(BODY) - half)
    listed = [(1, tag), (2, second)]
    assert moving.parts(KEY, half, begun.session).finish(listed).size == len(BODY)
    assert moving.parts(KEY, half, begun.session).finish(listed).size == len(BODY)
    assert read(moving) == read(source) == BODY
    with pytest.raises(Missing):
        to.stat(KEY)


def test_a_new_upload_in_parts_goes_to_the_new_shelf(shelves: tuple[Moving, ObjectStore, ObjectStore]) -> None:
    moving, to, _ = shelves
    parts = moving.parts(KEY, len(BODY))
    parts.begin()
    listed = [(1, parts.put(1, BODY, len(BODY)))]
    assert moving.parts(KEY, len(BODY), parts.session).finish(listed).size == len(BODY)
    assert read(to) == BODY
    dropped = moving.parts(lfs_key(OID, "ab"), 3)
    dropped.put(1, b"abc", 3)
    dropped.abort()
    assert dropped.sent() == {}
    with pytest.raises(Missing):
        moving.parts(lfs_key(OID, "ab"), 3).finish([(1, "x")])


class _Signing(MemoryStore):
    def url(self, key: str, *_: object, **__: object) -> Signed | None:
        return Signed(f"https://bucket/{key}", {})


def test_only_what_was_seen_on_the_new_shelf_is_signed() -> None:
    to, source = _Signing(), MemoryStore()
    moving = Moving(to=to, source=source)
    source.put(KEY, BODY, len(BODY), OID)
    assert moving.stat(KEY).size
    assert moving.url(KEY, "GET", 60) is None
    to.put(KEY, BODY, len(BODY), OID)
    assert read(moving) == BODY
    assert moving.url(KEY, "GET", 60) == Signed(f"https://bucket/{KEY}", {})
    moving.delete(KEY)
    assert moving.url(KEY, "GET", 60) is None
    assert moving.url(KEY, "PUT", 60) is not None


def test_a_key_that_moves_at_this_moment_is_never_missing(
    shelves: tuple[Moving, ObjectStore, ObjectStore],
) -> None:
    moving, to, source = shelves
    keys = [lfs_key(OID, f"{at:02x}") for at in range(40)]
    for key in keys:
        source.put(key, BODY, len(BODY))
    done, wrong = threading.Event(), list[str]()

    def ask() -> None:
        while not done.is_set():
            for key in keys:
                if read(moving, key) != BODY:
                    wrong.append(key)

    readers = [threading.Thread(target=ask) for _ in range(3)]
    for reader in readers:
        reader.start()
    try:
        for key in keys:
            to.put(key, BODY, len(BODY))
            source.delete(key)
    finally:
        done.set()
        for reader in readers:
            reader.join(20)
    assert wrong == []
    assert [read(to, key) for key in keys] == [BODY] * len(keys)


def test_a_reader_keeps_what_it_opened(shelves: tuple[Moving, ObjectStore, ObjectStore]) -> None:
    moving, to, source = shelves
    source.put(KEY, BODY, len(BODY), OID)
    with moving.open(KEY) as reader:
        first = reader.read(10)
        to.put(KEY, BODY, len(BODY), OID)
        source.delete(KEY)
        assert first + reader.read_all() == BODY
