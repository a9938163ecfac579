"""Xorbs of our own making."""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass
from typing import Literal

from lfs.store import ObjectStore, Signed, Span, xorb_keys
from lfs.xet import hashes
from lfs.xet.formats import STORED, XorbReader, XorbTable, pack
from lfs.xet.index import Xorb
from tests.contracts.memory_store import MemoryStore


@dataclass(frozen=True, slots=True)
class Made:
    """A xorb as a client makes it."""

    hash: bytes
    body: bytes
    parts: tuple[bytes, ...]

    def table(self) -> XorbTable:
        """Return its table."""
        reader = XorbReader()
        reader.feed(self.body)
        return reader.finish(self.hash)

    def put(self, store: ObjectStore) -> Xorb:
        """Lay it into a store, and return its row."""
        key, table_key = xorb_keys(hashes.text(self.hash), "0123456789abcdef")
        table = self.table()
        store.put(key, self.body, len(self.body))
        store.put(table_key, table.to_bytes(), len(table.to_bytes()))
        return Xorb(self.hash, key, table_key, table.body_size, table.raw_size, table.chunks)


def made(*parts: bytes, scheme: int = STORED) -> Made:
    """Pack chunks into a xorb."""
    return Made(hashes.xorb((hashes.chunk(part), len(part)) for part in parts), pack(parts, scheme), parts)


def random_xorb(seed: int, chunks: int = 5, size: int = 20_000) -> Made:
    """Make a xorb of chunks that do not pack."""
    dice = random.Random(seed)
    return made(*(dice.randbytes(size + at) for at in range(chunks)))


def footer(xorb: Made) -> bytes:
    """Write what old clients add: a name, the rows, and how long it is."""
    rows = xorb.table().rows
    return b"XETBLOB\x01" + bytes(60) + rows + struct.pack("<I", 68 + len(rows))


class Signing(MemoryStore):
    """A shelf that signs for clients, as a bucket does; `arrive` is a client that uses what it got."""

    def url(
        self,
        key: str,
        method: Literal["GET", "PUT"],
        seconds: int,
        *,
        size: int | None = None,
        sha256: str | None = None,
        span: Span | None = None,
    ) -> Signed | None:
        return Signed(f"https://bucket/{key}", {"content-type": "application/octet-stream"})

    def arrive(self, url: str, body: bytes) -> None:
        """Put a body where the URL says."""
        self.objects[url.removeprefix("https://bucket/")] = body
