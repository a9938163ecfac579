"""What every shelf promises, asked of each: memory, disk, two at once, one with Xet files, buckets of three servers."""

from __future__ import annotations

import hashlib
import random
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import pytest

from lfs.errors import BadKey, Damaged, Denied, DigestMismatch, Missing, RangeUnsatisfiable, SizeMismatch, Unavailable
from lfs.local import LocalStore
from lfs.moving import Moving
from lfs.store import PIECE, ObjectStore, Parts, Span, lfs_key
from lfs.xet.shelf import WithFiles
from lfs.xet.tables import Tables
from tests.contracts.memory_store import MemoryStore
from tests.lfs.xet.memory_index import MemoryIndex
from tests.services.s3 import S3Endpoint, make_bucket, moto, open_bucket, rclone

MIB = 1 << 20
# More than one part of a streamed upload to a bucket.
LARGE = 17 * MIB + 5
# What Amazon takes at least for a part that is not the last.
PART = 5 * MIB


@pytest.fixture(scope="module")
def moto_server() -> Iterator[S3Endpoint]:
    with moto() as endpoint:
        make_bucket(endpoint, "shelf")
        yield endpoint


@pytest.fixture(scope="module")
def rclone_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Endpoint]:
    folder = tmp_path_factory.mktemp("rclone")
    with rclone(folder) as endpoint:
        make_bucket(endpoint, "shelf")
        yield endpoint


@pytest.fixture(scope="module")
def ceph_bucket(ceph_server: S3Endpoint) -> str:
    name = f"shelf-{uuid4().hex}"
    make_bucket(ceph_server, name)
    return name


@pytest.fixture(
    params=[
        "memory",
        "local",
        "moving",
        "files",
        pytest.param("moto", marks=[pytest.mark.s3, pytest.mark.xdist_group("s3")]),
        pytest.param("rclone", marks=[pytest.mark.s3, pytest.mark.xdist_group("s3")]),
        pytest.param("ceph", marks=[pytest.mark.s3, pytest.mark.xdist_group("ceph")]),
    ]
)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    if request.param == "memory":
        return MemoryStore()
    if request.param == "local":
        return LocalStore(tmp_path / "shelf", min_free=0)
    if request.param == "moving":
        return Moving(to=LocalStore(tmp_path / "new", min_free=0), source=LocalStore(tmp_path / "old", min_free=0))
    if request.param == "files":
        below = LocalStore(tmp_path / "shelf", min_free=0)
        return WithFiles(below, MemoryIndex(), Tables(below))
    # A prefix of its own keeps the tests apart in one bucket.
    name = request.getfixturevalue("ceph_bucket") if request.param == "ceph" else "shelf"
    return open_bucket(request.getfixturevalue(f"{request.param}_server"), name, prefix=uuid4().hex)


def body_of(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def key_of(body: bytes) -> str:
    return lfs_key(hashlib.sha256(body).hexdigest())


def keep(store: ObjectStore, body: bytes) -> str:
    key = key_of(body)
    store.put(key, body, len(body), hashlib.sha256(body).hexdigest())
    return key


def read(store: ObjectStore, key: str, span: Span | None = None) -> bytes:
    with store.open(key, span) as reader:
        return reader.read_all()


@pytest.mark.parametrize("size", [0, 1, PIECE, 3 * MIB + 7])
def test_what_was_put_is_read_back_in_pieces_of_at_most_a_mebibyte(store: ObjectStore, size: int) -> None:
    body = body_of(size)
    verified = store.put(key_of(body), iter([body[: size // 2], body[size // 2 :]]), size)
    assert (verified.size, verified.sha256) == (size, hashlib.sha256(body).hexdigest())
    assert store.stat(verified.key).size == size
    assert store.stat(verified.key).etag
    with store.open(verified.key) as reader:
        assert reader.size == size
        got = list(reader)
    assert all(0 < len(piece) <= PIECE for piece in got)
    assert b"".join(got) == body


def test_an_object_larger_than_a_part_arrives_whole(store: ObjectStore) -> None:
    body = body_of(LARGE)
    key = keep(store, body)
    assert read(store, key) == body


@pytest.mark.parametrize(("start", "end"), [(0, 1), (0, 2 * MIB + 3), (1, 1), (7, MIB + 9), (2 * MIB, 2 * MIB + 3)])
def test_a_span_is_exactly_its_bytes(store: ObjectStore, start: int, end: int) -> None:
    body = body_of(2 * MIB + 3)
    assert read(store, keep(store, body), Span(start, end)) == body[start:end]


@pytest.mark.parametrize(("start", "end"), [(0, 11), (10, 11), (11, 11), (12, 20)])
def test_a_span_beyond_the_object_is_refused(store: ObjectStore, start: int, end: int) -> None:
    key = keep(store, b"0123456789")
    with pytest.raises(RangeUnsatisfiable):
        read(store, key, Span(start, end))


def test_an_absent_key_is_missing(store: ObjectStore) -> None:
    key = key_of(b"never put")
    for act in (
        store.stat,
        store.open,
        lambda key: store.open(key, Span(0, 1)),
        lambda key: store.copy(key, key + "x"),
    ):
        with pytest.raises(Missing):
            act(key)
    store.delete(key)


@pytest.mark.parametrize("size", [10, LARGE])
@pytest.mark.parametrize("fault", ["short", "long", "other"])
def test_bytes_other_than_announced_are_never_visible(store: ObjectStore, size: int, fault: str) -> None:
    body = body_of(size)
    key, oid = key_of(body), hashlib.sha256(body).hexdigest()
    sent = {"short": body[:-1], "long": body + b"x", "other": body_of(size, seed=1)}[fault]
    with pytest.raises(DigestMismatch if fault == "other" else SizeMismatch):
        store.put(key, sent, size, oid)
    with pytest.raises(Missing):
        store.stat(key)
    assert list(store.walk()) == []
    store.put(key, body, size, oid)
    assert read(store, key) == body


def test_a_source_that_breaks_leaves_nothing(store: ObjectStore) -> None:
    def broken() -> Iterator[bytes]:
        yield body_of(LARGE - 1)
        raise ConnectionResetError("the client left")

    with pytest.raises(ConnectionResetError):
        store.put(key_of(b"x"), broken(), LARGE)
    assert list(store.walk()) == []


def test_a_repeated_put_is_judged_and_leaves_the_bytes_alone(store: ObjectStore) -> None:
    body = body_of(1000)
    key, oid = keep(store, body), hashlib.sha256(body).hexdigest()
    with pytest.raises(DigestMismatch):
        store.put(key, body_of(1000, seed=1), 1000, oid)
    assert store.put(key, body, 1000, oid).sha256 == oid
    assert read(store, key) == body


def test_a_key_that_holds_another_size_is_damage(store: ObjectStore) -> None:
    key = keep(store, b"ten bytes.")
    with pytest.raises(Damaged):
        store.put(key, b"eleven byte", 11)
    assert read(store, key) == b"ten bytes."


def test_a_local_file_is_taken_in(store: ObjectStore, tmp_path: Path) -> None:
    body = body_of(2 * MIB)
    path = tmp_path / "pack"
    path.write_bytes(body)
    with pytest.raises(DigestMismatch):
        store.put(key_of(body), path, len(body), "0" * 64)
    assert path.read_bytes() == body
    store.put(key_of(body), path, len(body), hashlib.sha256(body).hexdigest())
    assert read(store, key_of(body)) == body


def test_an_open_file_is_a_source(store: ObjectStore, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"some\nlines\n")
    with path.open("rb") as file:
        store.put(key_of(b"some\nlines\n"), file, 11)
    assert read(store, key_of(b"some\nlines\n")) == b"some\nlines\n"


def test_a_copy_is_whole_and_may_be_repeated_after_its_source_went(store: ObjectStore) -> None:
    body = body_of(MIB + 1)
    source, key = keep(store, body), lfs_key(hashlib.sha256(body).hexdigest(), "a1")
    assert store.copy(source, key).size == len(body)
    assert store.copy(source, key).size == len(body)
    store.delete(source)
    assert store.copy(source, key).size == len(body)
    assert read(store, key) == body


def put(parts: Parts, number: int, body: bytes) -> tuple[int, str]:
    return number, parts.put(number, body, len(body))


def test_parts_join_in_the_order_told_and_the_last_repeat_wins(store: ObjectStore) -> None:
    first, second, third = body_of(PART, 1), body_of(PART, 2), b"the end"
    key = lfs_key("ab" * 32, "b2")
    here = store.parts(key, PART)
    session = here.begin()
    assert here.begin() == here.session == session
    tags = dict([put(here, 2, second), put(here, 1, body_of(PART, 3))])
    # Another handle stands for another process that goes on with the same upload.
    there = store.parts(key, PART, session)
    tags |= [put(there, 3, third)]
    try:
        tags |= [put(there, 1, first)]
    except Denied:
        # rclone has passed the part on already and says so; the upload starts over.
        there.abort()
        session = there.begin()
        tags = dict([put(there, 3, third), put(there, 1, first), put(there, 2, second)])
    with pytest.raises(Missing):
        store.stat(key)
    listed = sorted(tags.items())
    assert store.parts(key, PART, session).finish(listed).size == 2 * PART + 7
    assert read(store, key) == first + second + third
    assert there.finish(listed).size == 2 * PART + 7
    assert store.parts(key, PART, session).finish(listed).size == 2 * PART + 7
    there.abort()
    assert read(store, key) == first + second + third


def test_parts_that_were_sent_are_known_to_another_process(store: ObjectStore) -> None:
    key = lfs_key("ad" * 32, "d4")
    here = store.parts(key, PART)
    session = here.begin()
    assert dict(store.parts(key, PART, session).sent()) == {}
    bodies = {1: body_of(PART, 4), 2: b"a short last one"}
    tags = dict(put(here, number, body) for number, body in bodies.items())
    sent = store.parts(key, PART, session).sent()
    assert {number: part.size for number, part in sent.items()} == {1: PART, 2: 16}
    listed = [(number, part.tag) for number, part in sorted(sent.items())]
    assert listed == sorted(tags.items())
    store.parts(key, PART, session).finish(listed)
    assert read(store, key) == bodies[1] + bodies[2]
    here.abort()
    assert dict(here.sent()) == {}


@pytest.mark.parametrize("fault", [-1, 1])
def test_a_part_of_another_size_than_announced_is_refused(store: ObjectStore, fault: int) -> None:
    parts = store.parts(lfs_key("ae" * 32, "e5"), PART)
    parts.begin()
    with pytest.raises(SizeMismatch):
        parts.put(1, iter([b"0123456789"]), 10 + fault)
    assert dict(parts.sent()) == {}
    parts.abort()


def test_parts_that_were_not_sent_cannot_be_finished(store: ObjectStore) -> None:
    key = lfs_key("ac" * 32, "c3")
    parts = store.parts(key, PART)
    session = parts.begin()
    number, tag = put(parts, 1, b"one")
    with pytest.raises(Missing):
        parts.finish([(number, tag), (2, tag)])
    parts.abort()
    parts.abort()
    # moto fails here instead of saying that there is no such upload.
    with pytest.raises((Missing, Unavailable)):
        store.parts(key, PART, session).finish([(1, tag)])
    with pytest.raises(Missing):
        store.stat(key)


def test_uploads_that_nobody_finished_are_swept_when_they_are_old(store: ObjectStore) -> None:
    key = lfs_key("af" * 32, "f6")
    parts = store.parts(key, PART)
    session = parts.begin()
    _, tag = put(parts, 1, b"half of it")
    # Decades: moto says of every upload that it was begun in 2010.
    assert store.sweep(1e9) == 0
    assert [part.size for part in parts.sent().values()] == [10]
    time.sleep(0.01)
    assert store.sweep(0) >= 1
    assert dict(store.parts(key, PART, session).sent()) == {}
    with pytest.raises((Missing, Unavailable)):
        store.parts(key, PART, session).finish([(1, tag)])


def test_a_deleted_key_is_gone_and_may_be_put_again(store: ObjectStore) -> None:
    key = keep(store, b"short lived")
    store.delete(key)
    store.delete(key)
    with pytest.raises(Missing):
        store.stat(key)
    assert keep(store, b"short lived") == key
    assert read(store, key) == b"short lived"


def test_walk_is_in_byte_order_and_goes_on_after_a_key(store: ObjectStore) -> None:
    keys = ["git/aa/b", "git/aa/b.idx", "lfs/aa/b", "lfs/aa.b/c", "lfs/aa0", "lfs/ab/c", "xet/x"]
    for key in keys:
        store.put(key, key.encode(), len(key))
    ordered = sorted(keys)
    assert list(store.walk()) == ordered
    assert list(store.walk("lfs/aa")) == [key for key in ordered if key.startswith("lfs/aa")]
    assert list(store.walk("nothing/")) == []
    for at, key in enumerate(ordered):
        assert list(store.walk(after=key)) == ordered[at + 1 :]


def test_a_signed_url_opens_that_object_or_there_is_none(store: ObjectStore) -> None:
    key = keep(store, b"by its own address")
    signed = store.url(key, "GET", 60)
    if signed is None:
        return
    request = urllib.request.Request(signed.href, headers=signed.headers)
    with urllib.request.urlopen(request) as answer:
        assert answer.read() == b"by its own address"


def test_a_key_that_no_room_makes_is_refused(store: ObjectStore) -> None:
    in_parts, keep_none = lambda key: store.parts(key, PART), lambda key: store.put(key, b"", 0)
    for key in ("", "/", "a//b", "../x", "a/../b", "a/..", ".hidden", "A", "a b", "tmp/x", "a/", "é"):
        for act in (store.stat, store.open, store.delete, in_parts, keep_none):
            with pytest.raises(BadKey):
                act(key)


def test_eight_writers_of_one_object_all_succeed(store: ObjectStore) -> None:
    body = body_of(MIB)
    with ThreadPoolExecutor(8) as pool:
        keys = set(pool.map(lambda _: keep(store, body), range(8)))
    assert keys == {key_of(body)}
    assert read(store, key_of(body)) == body
