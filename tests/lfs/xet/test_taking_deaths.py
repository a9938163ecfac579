"""A server that dies before or after any step of taking a xorb in has no row without its bytes; a retry succeeds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lfs.heavy import Heavy
from lfs.local import LocalStore
from lfs.xet.taking import Taking, Ticket
from tests.contracts.memory_store import MemoryStore
from tests.lfs.test_crashes import Died, Frail, Fuse
from tests.lfs.xet.memory_index import ANN, DOMAIN, MemoryIndex
from tests.lfs.xet.xorbs import Signing, footer, random_xorb

ONE = random_xorb(1)
NEVER = 10**9


@pytest.fixture(scope="module")
def heavy() -> Iterator[Heavy]:
    pool = Heavy(workers=1, memory_bytes=512 << 20, deadline=60)
    yield pool
    pool.close()


class House:
    """What survives a death: rows, bytes and the folder of what is coming in."""

    def __init__(self, way: str, heavy: Heavy, folder: Path) -> None:
        self.way, self.heavy, self.folder = way, heavy, folder
        self.folder.mkdir(parents=True)
        self.index = MemoryIndex()
        self.store: Any = LocalStore(folder / "shelf", min_free=0, fsync=False) if way == "disk" else MemoryStore()
        if way in ("grant", "grant with a footer"):
            self.store = Signing()

    def send(self, fuse: Fuse) -> None:
        """Do all that a client and the server do for one xorb, from the question for a grant on."""
        index: Any = Frail(self.index, fuse)
        store: Any = Frail(self.store, fuse)
        heavy: Any = Frail(self.heavy, fuse)
        taking = Taking(index=index, store=store, heavy=heavy, folder=self.folder)
        body = ONE.body + (footer(ONE) if "footer" in self.way else b"")
        ticket = taking.ask_grant(ANN, ONE.hash, len(body), None)
        if ticket is None:
            taking.post(ANN, ONE.hash, [body[:1000], body[1000:]])
        elif isinstance(ticket, Ticket):
            self.store.arrive(ticket.url, body)
            taking.commit(ANN, ticket.id, ONE.hash)

    def sound(self) -> None:
        """Insist that a live row has its objects, and these what they should."""
        for kept in self.index.xorbs.values():
            with self.store.open(kept.xorb.table) as table:
                assert table.read_all() == ONE.table().to_bytes()
            with self.store.open(kept.xorb.key) as body:
                assert body.read_all() == ONE.body


WAYS = ["post", "disk", "post with a footer", "grant", "grant with a footer"]


@pytest.mark.parametrize("way", WAYS)
def test_death_at_any_step_leaves_no_row_without_its_bytes(way: str, heavy: Heavy, tmp_path: Path) -> None:
    steps, dying = 0, True
    while dying:
        house = House(way, heavy, tmp_path / str(steps))
        try:
            house.send(Fuse(steps))
            dying = False
        except Died:
            house.sound()
            house.send(Fuse(NEVER))
        house.sound()
        assert house.index.live(DOMAIN, [ONE.hash])
        steps += 1
    assert steps > 10


@pytest.mark.parametrize("way", WAYS)
def test_two_deaths_in_a_row_are_no_worse(way: str, heavy: Heavy, tmp_path: Path) -> None:
    for first in range(1, 24, 3):
        for second in range(1, 24, 4):
            house = House(way, heavy, tmp_path / f"{first}-{second}")
            for steps in (first, second, NEVER):
                try:
                    house.send(Fuse(steps))
                except Died:
                    house.sound()
            house.sound()
            assert house.index.live(DOMAIN, [ONE.hash])
