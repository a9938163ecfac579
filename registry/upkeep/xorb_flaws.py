"""Whether what lies under the keys of a xorb is that xorb: its body, proven chunk by chunk, and its table.

A shelf that does not answer proves nothing: `Unavailable` and `Denied` are raised, never taken for damage.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lfs.errors import BadXet, Damaged, Missing
from lfs.store import ObjectStore
from lfs.xet import hashes
from lfs.xet.formats import XorbReader, XorbTable
from lfs.xet.index import Xorb


@dataclass(frozen=True, slots=True)
class Judged:
    """What is wrong with a xorb, as far as was looked; empty if nothing is.

    `row` says what its row has wrong of sound bytes. `right` is the table that the body makes, if it was read and is
    sound. `gone`: nothing lies under either key, as on a shelf that is another one than it should be.
    """

    body: str = ""
    table: str = ""
    row: str = ""
    right: XorbTable | None = None
    gone: bool = False


def judge(
    store: ObjectStore, xorb: Xorb, *, read: bool = True, seen: Callable[[int], object] = lambda size: None
) -> Judged:
    """Look at a xorb; with `read` every byte of its body is proven, and `seen` hears of each piece. Raises: Denied,
    Unavailable, and what `seen` raises."""
    right: XorbTable | None = None
    try:
        if read:
            right = _proven(store, xorb, seen)
            body = ""
        else:
            body = _measured(store, xorb)
    except Missing:
        table = _table_flaw(store, xorb, None)
        return Judged(f"is missing: nothing lies under {xorb.key}", table, gone=table.startswith("is missing"))
    except (BadXet, Damaged) as error:
        return Judged(f"is another one under {xorb.key}: {error.message}", _table_flaw(store, xorb, None))
    return Judged(body, _table_flaw(store, xorb, right), _row_flaw(xorb, right), right)


def mend_table(store: ObjectStore, xorb: Xorb, right: XorbTable) -> None:
    """Put the table that the body makes in place of what lies there. Readers meanwhile build one by themselves."""
    table = right.to_bytes()
    # Bytes of the same size under a key would be left alone.
    store.delete(xorb.table)
    store.put(xorb.table, table, len(table))


def _proven(store: ObjectStore, xorb: Xorb, seen: Callable[[int], object]) -> XorbTable:
    proof = XorbReader()
    with store.open(xorb.key) as reader:
        size = reader.size
        for piece in reader:
            proof.feed(piece)
            seen(len(piece))
    table = proof.finish(xorb.hash)
    if table.body_size != size:
        raise BadXet(f"{size - table.body_size} bytes follow its last chunk.")
    return table


def _measured(store: ObjectStore, xorb: Xorb) -> str:
    found = store.stat(xorb.key).size
    return "" if found == xorb.size else f"has {found} bytes under {xorb.key}, its row says {xorb.size}"


def _row_flaw(xorb: Xorb, right: XorbTable | None) -> str:
    if right is None or (right.body_size, right.raw_size, right.chunks) == (xorb.size, xorb.raw_size, xorb.chunks):
        return ""
    return f"has {right.chunks} chunks of {right.raw_size} bytes, stored in {right.body_size}; its row says otherwise"


def _table_flaw(store: ObjectStore, xorb: Xorb, right: XorbTable | None) -> str:
    """Look at the check of the table, and compare it with the right one, or else with the name that its chunks make."""
    try:
        with store.open(xorb.table) as reader:
            table = XorbTable.from_bytes(reader.read_all())
    except Missing:
        return f"is missing: nothing lies under {xorb.table}"
    except (BadXet, Damaged) as error:
        return f"is none under {xorb.table}: {error.message}"
    if right is not None:
        return "" if table.rows == right.rows else f"is not that of the body under {xorb.table}"
    fits = hashes.xorb(table.leaves(0, table.chunks)) == xorb.hash and table.body_size == xorb.size
    return "" if fits else f"is of another xorb under {xorb.table}"
