"""Xorbs and files of Xet as the suites tell of them, by name."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from lfs.xet.hashes import text
from lfs.xet.index import File, Filing, Leave, Part, Xorb, packed
from tests.contracts.xet_grounds import ANN, MINE, Ground

T = TypeVar("T")

DAY = 24 * 3600
SHARD, OTHER_SHARD = "5" * 64, "6" * 64


def raw(name: str) -> bytes:
    """A hash for a name."""
    return hashlib.sha256(name.encode()).digest()


def xorb(name: str, take: str = "a") -> Xorb:
    """A proven xorb; each proof of it has keys of its own."""
    hash = raw(name)
    where = f"{text(hash)[:2]}/{text(hash)}.{take}"
    return Xorb(hash, f"xet/xorbs/{where}", f"xet/tables/{where}", 1000 + len(take), 2000, 3)


def file(name: str, *xorbs: str) -> File:
    """A file of 100 bytes and all chunks of each of these xorbs."""
    parts = [Part(raw(each), 0, 3, 100 * at) for at, each in enumerate(xorbs)]
    return File(raw(name), 100 * len(xorbs), packed(parts))


def oid(name: str) -> str:
    """What a file is said to hash to."""
    return raw(f"sha256 of {name}").hex()


def filing(name: str, *xorbs: str, marks: Sequence[str] = ()) -> Filing:
    """What is filed; its first xorb has the marks."""
    return Filing(file(name, *xorbs), oid(name), tuple((raw(mark), raw(xorbs[0])) for mark in marks))


def leave(ground: Ground, repo: int = MINE, actor: int = ANN) -> Leave:
    return Leave(repo, actor, ground.domain(repo), "write", int(ground.clock()) + 900)


def keep(ground: Ground, *names: str, repo: int = MINE) -> None:
    for name in names:
        ground.index.keep(leave(ground, repo), xorb(name))


def at_once(count: int, act: Callable[[int], T]) -> list[T]:
    """Do something on many threads that start together."""
    gate = threading.Barrier(count)

    def run(number: int) -> T:
        gate.wait()
        return act(number)

    with ThreadPoolExecutor(count) as pool:
        return [each.result() for each in [pool.submit(run, number) for number in range(count)]]
