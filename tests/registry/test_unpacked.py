"""Large files of git are laid out once, however many ask, and again when they were lost."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lfs.store import ObjectStore
from registry.db import Database
from registry.revisions import Resolved
from registry.unpacked import Unpacked
from tests.registry.routes.hub.reader import Reader

DATA = b"0123456789" * 20_000


class Counting:
    """A store that counts what is put into it."""

    def __init__(self, store: ObjectStore) -> None:
        self.store = store
        self.puts: list[str] = []
        self.stat, self.open, self.delete = store.stat, store.open, store.delete

    def put(self, key: str, source: bytes, size: int) -> object:
        self.puts.append(key)
        return self.store.put(key, source, size)


@pytest.fixture
def reader(sqlite_database: Database, tmp_path: Path) -> Reader:
    return Reader(sqlite_database, tmp_path)


def test_a_file_is_laid_out_once_and_again_when_lost(reader: Reader) -> None:
    sha = reader.push({"big.txt": DATA})
    at = Resolved(1, sha, reader.gate.repositories.snapshot(1).manifest_version)
    entry = reader.revisions.entry(at, "big.txt")
    store = Counting(reader.gate.store)
    unpacked = Unpacked(revisions=reader.revisions, store=store)  # type: ignore[arg-type]
    with ThreadPoolExecutor(4) as pool:
        keys = set(pool.map(lambda _: unpacked.key(at, entry), range(8)))
    assert keys == {f"derived/{entry.sha}/blob"}
    assert 1 <= len(store.puts) <= 2
    with store.open(keys.pop()) as stored:
        assert stored.read_all() == DATA
    before = len(store.puts)
    unpacked.key(at, entry)
    assert len(store.puts) == before
    store.delete(f"derived/{entry.sha}/blob")
    unpacked.key(at, entry)
    assert len(store.puts) == before + 1
