"""Who sends one object by tus, without a socket in between."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from lfs.errors import Interrupted
from lfs.grants import Grant
from lfs.host import Opening, Wanted
from lfs.store import ObjectStore
from lfs.tus import Tus
from tests.lfs import proving
from tests.lfs.memory_host import MemoryHost

MIB = 1 << 20


@dataclass
class Client:
    """Sends one object as git-lfs does: asks how far it is, then sends the rest."""

    host: MemoryHost
    store: ObjectStore
    body: bytes
    oid: str
    part_size: int
    lease: float = 30.0
    told: int = 0

    def __post_init__(self) -> None:
        self.reopen()

    @property
    def tus(self) -> Tus:
        """A server that remembers nothing: every request may meet another one."""
        return Tus(host=self.host, store=self.store, told=self._tell, lease=self.lease, clock=self.host.clock)

    def reopen(self) -> None:
        """Ask for a batch."""
        opening = Opening(Wanted(self.oid, len(self.body)), "tus", self.part_size)
        upload = self.host.begin(1, 1, [opening])[self.oid]
        self.grant = Grant("tus", 1, self.oid, len(self.body), 0, 1, upload.id)

    def offset(self) -> int:
        return self.tus.offset(self.grant)

    def send(self, offset: int, until: int | None = None, *, body: bytes = b"") -> int:
        """Send from an offset to the end, or lose the connection before byte `until`."""
        return self.patch(offset, pieces((body or self.body)[offset:until], broken=until is not None))

    def patch(self, offset: int, pieces: Iterator[bytes]) -> int:
        tus = self.tus
        lease = tus.lease(self.grant)
        try:
            return tus.take(self.grant, offset, pieces, lease)
        finally:
            lease.give_back()

    def prove(self) -> None:
        """Prove what waits for it, as the thread of a server does."""
        for upload in self.host.arrived("f" * 32, 60, 10):
            proving.prove(upload, "f" * 32, host=self.host, store=self.store)
            self.host.release(upload.id, "f" * 32)

    @property
    def state(self) -> str:
        return self.host.uploads[self.grant.upload].state

    def linked(self) -> bytes:
        """Return the bytes that the repo serves."""
        held = self.host.look(1, [self.oid])[self.oid]
        assert held.linked
        with self.store.open(held.key) as reader:
            return reader.read_all()

    def _tell(self) -> None:
        self.told += 1


def pieces(body: bytes, *, broken: bool) -> Iterator[bytes]:
    yield from (body[at : at + MIB] for at in range(0, len(body), MIB))
    if broken:
        raise Interrupted("The connection closed.")
