"""Places that take xorbs in, and what is to be seen of them from outside."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lfs.store import ObjectStore
from lfs.xet.formats import XorbTable
from lfs.xet.proving import prove_file
from lfs.xet.taking import Taking, Ticket
from tests.lfs.xet.memory_index import ANN, MemoryIndex
from tests.lfs.xet.xorbs import Made


@dataclass
class Bench:
    """A place that takes xorbs, and what can be seen of it from outside."""

    index: MemoryIndex
    store: Any
    folder: Path
    taking: Taking

    def sound(self) -> None:
        """Insist that whatever is live is there, whole, and that nothing else is."""
        live = [kept.xorb for kept in self.index.xorbs.values()]
        for xorb in live:
            assert XorbTable.from_bytes(read(self.store, xorb.table)).body_size == xorb.size
            path = self.folder / "again"
            path.write_bytes(read(self.store, xorb.key))
            proven = prove_file(str(path), xorb.hash)
            assert (proven.body_size, proven.raw_size, proven.chunks) == (xorb.size, xorb.raw_size, xorb.chunks)
            assert path.stat().st_size == xorb.size
            path.unlink()
        assert set(self.store.walk("xet/")) == {key for xorb in live for key in (xorb.key, xorb.table)}
        assert list(self.folder.iterdir()) == []

    def ticket(self, xorb: Made, size: int | None = None) -> Ticket:
        """Ask for a grant that there must be."""
        found = self.taking.ask_grant(ANN, xorb.hash, len(xorb.body) if size is None else size, None)
        assert isinstance(found, Ticket)
        return found


def bench(store: Any, folder: Path, heavy: Any) -> Bench:
    folder.mkdir(exist_ok=True)
    index = MemoryIndex()
    return Bench(index, store, folder, Taking(index=index, store=store, heavy=heavy, folder=folder))


def read(store: ObjectStore, key: str) -> bytes:
    with store.open(key) as reader:
        return reader.read_all()
