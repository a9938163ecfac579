"""The tables of xorbs: from the store, held in memory while there is room, built again from the body if need be.

    memory   the ones used last, up to a number of bytes
    store    xet/tables/…: written before the xorb is live, and may be lost
    body     all that a table says can be read from the xorb itself, at the cost of all its bytes

A table proves itself: it has a check over all its bytes, and its chunks make the name of the xorb. One that does not is
treated like one that is gone.

To build one takes 50 to 170 ms for a full xorb on two busy cores, about what it takes to serve those bytes once
(measured 2026-11), and happens only when the store lost it. So the thread that needs it does it; who needs the same one
waits for that.
"""

from __future__ import annotations

import logging

from lfs.errors import BadXet, Damaged, Missing, StoreError
from lfs.memory import Memory
from lfs.store import ObjectStore
from lfs.xet import hashes
from lfs.xet.formats import XorbReader, XorbTable, table_size
from lfs.xet.index import Xorb

log = logging.getLogger(__name__)

# What one table costs beyond its rows: the objects around them.
_AROUND = 512


class Tables:
    """Loads tables, holding at most `memory` bytes of them. Thread-safe: who asks for one that is coming waits for it.

    64 MiB hold the tables of about 100 GB.
    """

    def __init__(self, store: ObjectStore, *, memory: int = 64 << 20) -> None:
        self._store = store
        self._held: Memory[str, XorbTable] = Memory(memory, _cost, largest=memory)
        # Keeps nothing: only for that nobody reads a body beside another who does.
        self._building: Memory[str, XorbTable] = Memory(0, _cost, largest=0)

    def load(self, xorb: Xorb) -> XorbTable:
        """Return the table of a xorb. Raises: Missing (the body is gone too), Damaged (it is not this xorb any more),
        Denied, Unavailable."""
        return self._held.get(xorb.table, lambda: self._read(xorb))

    def again(self, xorb: Xorb) -> XorbTable:
        """Build a table from the body, in place of one that does not fit it: the second look at a body, before it is
        given up. Raises: Missing, Damaged (the body is not this xorb), Denied, Unavailable."""
        table = self._made(xorb)
        self._held.replace(xorb.table, table)
        return table

    def _read(self, xorb: Xorb) -> XorbTable:
        try:
            return self._stored(xorb)
        except (Missing, Damaged, BadXet) as error:
            log.warning("the table of xorb %s is built again: %s", hashes.text(xorb.hash), error.message)
        return self._made(xorb)

    def _stored(self, xorb: Xorb) -> XorbTable:
        """Return the table that lies in the store, if it is this xorb's. Raises: Missing, Damaged, BadXet."""
        with self._store.open(xorb.table) as reader:
            if reader.size != table_size(xorb.chunks):
                raise BadXet(f"The table has {reader.size} bytes, not those of {xorb.chunks} chunks.")
            table = XorbTable.from_bytes(reader.read_all())
        # A xorb of one chunk has the name of that chunk, which says nothing of its length.
        sizes = table.body_size, table.raw_size
        if sizes != (xorb.size, xorb.raw_size) or hashes.xorb(table.leaves(0, table.chunks)) != xorb.hash:
            raise BadXet("The table is of another xorb.")
        return table

    def _made(self, xorb: Xorb) -> XorbTable:
        """Build a table and put it where it belongs, once for all who ask meanwhile."""

        def make() -> XorbTable:
            table = self._built(xorb)
            self._put_again(xorb.table, table.to_bytes())
            return table

        return self._building.get(xorb.key, make)

    def _built(self, xorb: Xorb) -> XorbTable:
        """Read the whole body, proving it on the way."""
        proof = XorbReader()
        try:
            with self._store.open(xorb.key) as reader:
                for piece in reader:
                    proof.feed(piece)
            return proof.finish(xorb.hash)
        except BadXet as error:
            raise Damaged(f"{xorb.key} is not its xorb any more; run `weightroom fsck --read-data`.") from error

    def _put_again(self, key: str, table: bytes) -> None:
        """Replace what lies there; without success the next process builds it again."""
        try:
            # Bytes of the same size under a key would be left alone.
            self._store.delete(key)
            self._store.put(key, table, len(table))
        except StoreError as error:
            log.warning("%s was not written again: %s", key, error.message)


def _cost(table: XorbTable) -> int:
    return len(table.rows) + _AROUND
