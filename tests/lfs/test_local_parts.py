"""Parts on a disk: joined without a copy, never mixed, and whole again after a death at any step."""

from __future__ import annotations

import os
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lfs.errors import Missing, NoSpace, SizeMismatch, Unavailable
from lfs.local import LocalStore
from lfs.store import lfs_key
from tests.lfs.test_local import files, killed_at_every

PART = 1 << 16
KEY = lfs_key("ab" * 32, "c0ffee")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "shelf"


@pytest.fixture
def store(folder: Path) -> LocalStore:
    return LocalStore(folder, min_free=0)


def part(seed: int, size: int = PART) -> bytes:
    return bytes([seed]) * size


def test_parts_become_the_object_by_a_rename(store: LocalStore, folder: Path) -> None:
    upload = store.parts(KEY, PART)
    second = upload.put(2, part(2, 10), 10)
    first = upload.put(1, part(1), PART)
    inode = next(folder.glob("tmp/*/bytes")).stat().st_ino
    assert upload.finish([(1, first), (2, second)]).size == PART + 10
    assert (folder / KEY).read_bytes() == part(1) + part(2, 10)
    assert (folder / KEY).stat().st_ino == inode
    assert (folder / KEY).stat().st_mode & 0o777 == 0o444
    assert files(folder) == [KEY]
    assert list((folder / "tmp").iterdir()) == []


def test_an_upload_of_ten_gibibytes_answers_at_once(store: LocalStore, folder: Path) -> None:
    size = 5 << 30
    upload = store.parts(KEY, size)
    tags = [(1, upload.put(1, b"x" * PART, PART)), (2, upload.put(2, b"y", 1))]
    # The first part is given the rest of its bytes as a hole: nobody has to write ten gibibytes to see no copy.
    _stretch(next(folder.glob("tmp/*/sent")), size)
    began = time.monotonic()
    assert upload.finish(tags).size == size + 1
    assert time.monotonic() - began < 2


def test_what_was_sent_is_known_to_any_process(store: LocalStore, folder: Path) -> None:
    upload = store.parts(KEY, PART)
    assert upload.sent() == {}
    assert upload.begin() == "" == upload.session
    assert upload.url(1, PART, 60) is None
    tag = upload.put(3, part(3), PART)
    again = LocalStore(folder, min_free=0).parts(KEY, PART).sent()
    assert {number: (found.tag, found.size) for number, found in again.items()} == {3: (tag, PART)}


@pytest.mark.parametrize("sent", [b"", part(1)[:-1], part(1) + b"x"])
def test_a_part_of_another_size_than_announced_is_not_kept(store: LocalStore, sent: bytes) -> None:
    upload = store.parts(KEY, PART)
    after = upload.put(2, part(2), PART)
    with pytest.raises(SizeMismatch):
        upload.put(1, sent, PART)
    assert list(upload.sent()) == [2]
    first = upload.put(1, part(1), PART)
    upload.finish([(1, first), (2, after)])
    with store.open(KEY) as reader:
        assert reader.read_all() == part(1) + part(2)


def test_a_part_above_its_size_is_refused_before_its_first_byte(store: LocalStore) -> None:
    upload = store.parts(KEY, PART)
    tag = upload.put(1, part(1), PART)
    with pytest.raises(SizeMismatch):
        upload.put(1, _untouched(), PART + 1)
    with pytest.raises(Missing):
        upload.put(10_001, _untouched(), PART)
    assert upload.sent()[1].tag == tag


def test_a_short_part_is_only_ever_the_last(store: LocalStore) -> None:
    upload = store.parts(KEY, PART)
    tags = [(1, upload.put(1, b"short", 5)), (2, upload.put(2, part(2), PART))]
    with pytest.raises(Missing, match="not the last"):
        upload.finish(tags)
    assert upload.finish(tags[:1]).size == 5


@pytest.mark.parametrize("order", [[], [1], [2], [2, 1], [1, 1], [1, 3]])
def test_a_list_that_is_not_the_parts_in_order_is_refused(store: LocalStore, order: list[int]) -> None:
    upload = store.parts(KEY, PART)
    tags = {1: "00000000", 2: upload.put(2, part(2), PART), 3: "x"}
    with pytest.raises(Missing):
        upload.finish([(number, tags[number]) for number in order])


def test_a_part_that_is_not_named_is_not_in_the_object(store: LocalStore) -> None:
    upload = store.parts(KEY, PART)
    tags = [(number, upload.put(number, part(number), PART)) for number in (1, 2, 3)]
    assert upload.finish(tags[:2]).size == 2 * PART


def test_the_later_writer_of_a_part_wins_and_bytes_never_mix(store: LocalStore) -> None:
    upload, half, go = store.parts(KEY, PART), threading.Event(), threading.Event()

    def slow() -> Iterator[bytes]:
        yield part(1, PART // 2)
        half.set()
        assert go.wait(20)
        yield part(1, PART // 2)

    with ThreadPoolExecutor(1) as pool:
        older = pool.submit(upload.put, 1, slow(), PART)
        assert half.wait(20)
        tag = store.parts(KEY, PART).put(1, part(2), PART)
        go.set()
        with pytest.raises(Unavailable):
            older.result()
    upload.finish([(1, tag)])
    with store.open(KEY) as reader:
        assert reader.read_all() == part(2)


@pytest.mark.parametrize("end", ["finish", "abort"])
def test_nobody_writes_to_a_file_that_has_become_an_object(store: LocalStore, folder: Path, end: str) -> None:
    """A request for part 2 hangs while the upload ends with part 1; what it sends later must change nothing."""
    upload, half, go = store.parts(KEY, PART), threading.Event(), threading.Event()
    tag = upload.put(1, part(1), PART)

    def slow() -> Iterator[bytes]:
        yield part(2, 10)
        half.set()
        assert go.wait(20)
        yield part(2, PART - 10)

    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(upload.put, 2, slow(), PART)
        assert half.wait(20)
        if end == "finish":
            upload.finish([(1, tag)])
        else:
            upload.abort()
            upload.begin()
        go.set()
        with pytest.raises((Missing, Unavailable)):
            late.result()
    assert upload.sent() == {}
    if end == "finish":
        assert (folder / KEY).read_bytes() == part(1)
        with pytest.raises(Missing):
            upload.put(1, part(3), PART)


def test_eight_that_finish_at_once_all_succeed(store: LocalStore, folder: Path) -> None:
    upload = store.parts(KEY, PART)
    tags = [(number, upload.put(number, part(number), PART)) for number in range(1, 9)]
    with ThreadPoolExecutor(8) as pool:
        sizes = set(pool.map(lambda _: store.parts(KEY, PART).finish(tags).size, range(8)))
    assert sizes == {8 * PART}
    upload.abort()
    assert (folder / KEY).read_bytes() == b"".join(part(number) for number in range(1, 9))


def test_parts_sent_at_once_all_lie_at_their_places(store: LocalStore, folder: Path) -> None:
    def send(number: int) -> tuple[int, str]:
        return number, store.parts(KEY, PART).put(number, part(number), PART)

    with ThreadPoolExecutor(8) as pool:
        tags = list(pool.map(send, range(1, 41)))
    store.parts(KEY, PART).finish(tags)
    assert (folder / KEY).read_bytes() == b"".join(part(number) for number in range(1, 41))


def test_a_torn_row_is_a_part_that_was_not_sent(store: LocalStore, folder: Path) -> None:
    upload = store.parts(KEY, PART)
    tags = [(number, upload.put(number, part(number), PART)) for number in (1, 2)]
    table = next(folder.glob("tmp/*/sent"))
    raw = bytearray(table.read_bytes())
    raw[20] ^= 1
    table.write_bytes(raw[:-3])
    assert upload.sent() == {}
    with pytest.raises(Missing):
        upload.finish(tags)


def test_a_sweep_leaves_what_is_being_written(store: LocalStore, folder: Path) -> None:
    """The upload was begun long ago; a part of it came a moment ago, or is coming."""
    upload = store.parts(KEY, PART)
    tag = upload.put(1, part(1), PART)
    _age(folder, "sent")
    assert store.sweep(3600) == 0

    def slowly() -> Iterator[bytes]:
        yield b"half"
        _age(folder)
        assert store.sweep(3600) == 0
        yield b"half"

    store.put(lfs_key("cd" * 32), slowly(), 8)
    assert upload.finish([(1, tag)]).size == PART


def test_a_full_disk_takes_no_part(folder: Path) -> None:
    upload = LocalStore(folder, min_free=1 << 60).parts(KEY, PART)
    with pytest.raises(NoSpace, match="WEIGHTROOM_MIN_FREE"):
        upload.begin()
    with pytest.raises(NoSpace):
        upload.put(1, _untouched(), PART)
    assert files(folder) == []


@pytest.mark.faults
@pytest.mark.parametrize("call", ["fsync", "rename", "ftruncate", "pwrite64", "unlinkat"])
def test_an_upload_that_is_killed_at_any_step_goes_on(tmp_path: Path, call: str) -> None:
    """Two parts, one of them sent twice, and their finish; then the client comes back."""
    program = (
        "import sys; from pathlib import Path; from lfs.local import LocalStore\n"
        "upload = LocalStore(Path(sys.argv[1]), min_free=0).parts('lfs/ab/x', 4)\n"
        "upload.put(1, b'1234', 4); last = upload.put(2, b'ef', 2)\n"
        "upload.finish([(1, upload.put(1, b'abcd', 4)), (2, last)]); print('acknowledged')"
    )
    for folder in killed_at_every(call, program, tmp_path):
        again = LocalStore(folder, min_free=0)
        upload = again.parts("lfs/ab/x", 4)
        if not list(again.walk()):
            if 2 not in upload.sent():
                upload.put(2, b"ef", 2)
            upload.put(1, b"abcd", 4)
        else:
            assert (folder / "lfs/ab/x").read_bytes() == b"abcdef"
        upload.finish([(number, found.tag) for number, found in sorted(upload.sent().items())])
        assert (folder / "lfs/ab/x").read_bytes() == b"abcdef"
        again.sweep(-1)
        assert files(folder) == ["lfs/ab/x"]


def _untouched() -> Iterator[bytes]:
    raise AssertionError("the source was read")
    yield b""


def _stretch(table: Path, size: int) -> None:
    """Say in the table that the first part has `size` bytes."""
    rows = table.read_bytes()
    row = rows[:16] + struct.pack(">Q", size) + rows[24:28]
    table.write_bytes(row + struct.pack(">I", zlib.crc32(row)) + rows[32:])


def _age(folder: Path, *names: str) -> None:
    """Make what lies in `tmp/` look untouched for decades, and in uploads the files of these names."""
    for path in (folder / "tmp").rglob("*"):
        if path.name in names or path.parent.name == "tmp":
            os.utime(path, (1, 1))
