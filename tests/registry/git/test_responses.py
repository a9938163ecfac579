"""Answers that are built once, followed by many, kept, and stopped when nobody cares."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from registry.git import responses
from registry.git.responses import Responses

KEY, OTHER = "a" * 64, "b" * 64


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as made:
        yield made


def whole(blocks: Iterator[bytes]) -> bytes:
    return b"".join(blocks)


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline
        threading.Event().wait(0.01)


@pytest.mark.parametrize("size", [0, 10, 3 << 20])
def test_an_answer_is_built_once_and_kept(tmp_path: Path, pool: ThreadPoolExecutor, size: int) -> None:
    made = Responses(tmp_path, 1 << 30, pool)
    body = bytes(range(256)) * (size // 256 + 1)

    def build() -> Iterator[bytes]:
        yield from (body[at : at + 100_000] for at in range(0, len(body), 100_000))

    assert whole(made.stream(KEY, build)) == body
    until(lambda: not made._flights)
    assert whole(made.stream(KEY, build)) == body
    assert made.builds == 1


def test_followers_share_one_build_however_slow_one_of_them_is(tmp_path: Path, pool: ThreadPoolExecutor) -> None:
    made = Responses(tmp_path, 1 << 30, pool)
    blocks = [bytes([n]) * 300_000 for n in range(12)]
    gate = threading.Event()

    def build() -> Iterator[bytes]:
        yield blocks[0]
        assert gate.wait(10)
        yield from blocks[1:]

    slow = made.stream(KEY, build)
    assert next(slow) == blocks[0]
    with ThreadPoolExecutor(8) as readers:
        coming = [readers.submit(whole, made.stream(KEY, build)) for _ in range(7)]
        until(lambda: made._flights[KEY].readers == 8)
        gate.set()
        assert {one.result() for one in coming} == {b"".join(blocks)}
    assert blocks[0] + whole(slow) == b"".join(blocks)
    assert made.builds == 1


def test_a_failed_build_is_told_to_everybody_and_kept_by_nobody(tmp_path: Path, pool: ThreadPoolExecutor) -> None:
    made = Responses(tmp_path, 1 << 30, pool)

    def build() -> Iterator[bytes]:
        yield b"x" * (2 << 20)
        raise OSError("no luck")

    for _ in range(2):
        with pytest.raises(OSError, match="no luck"):
            whole(made.stream(KEY, build))
    assert made.builds == 2
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_takes_nothing_stops_no_reader(tmp_path: Path, pool: ThreadPoolExecutor) -> None:
    (tmp_path / "taken").write_text("a file where the folder should be")
    made = Responses(tmp_path / "taken" / "folder", 1 << 30, pool)
    blocks = [bytes([n]) * 300_000 for n in range(12)]
    for _ in range(2):
        assert whole(made.stream(KEY, lambda: iter(blocks))) == b"".join(blocks)


def test_a_build_without_readers_stops_and_leaves_nothing(tmp_path: Path, pool: ThreadPoolExecutor) -> None:
    made = Responses(tmp_path, 1 << 30, pool)
    stopped = threading.Event()

    def build() -> Iterator[bytes]:
        try:
            while True:
                yield b"x" * (1 << 20)
        finally:
            stopped.set()

    stream = made.stream(KEY, build)
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert stopped.wait(10)
    until(lambda: list(tmp_path.iterdir()) == [])


def test_a_silent_build_is_told_from_a_dead_one(
    tmp_path: Path, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(responses, "IDLE_SECONDS", 0.01)
    made = Responses(tmp_path, 1 << 30, pool)
    gate = threading.Event()

    def build() -> Iterator[bytes]:
        assert gate.wait(10)
        yield b"done"

    stream = made.stream(KEY, build)
    assert next(stream) == b""
    gate.set()
    assert whole(stream) == b"done"


def test_files_are_bounded_and_survive_a_restart(tmp_path: Path, pool: ThreadPoolExecutor) -> None:
    made = Responses(tmp_path, 5 << 20, pool)
    big = [b"x" * (1 << 20)] * 3
    for key in (KEY, OTHER):
        whole(made.stream(key, lambda: iter(big)))
        until(lambda: not made._flights)
    assert [path.name for path in tmp_path.iterdir()] == [OTHER]
    (tmp_path / f"{KEY}.7.part").write_bytes(b"half")
    again = Responses(tmp_path, 5 << 20, pool)
    assert whole(again.stream(OTHER, lambda: iter(()))) == b"".join(big)
    assert again.builds == 0
    assert [path.name for path in tmp_path.iterdir()] == [OTHER]
