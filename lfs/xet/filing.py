"""Shards: checked against the xorbs that we have, filed, kept; and what is told to those who ask for a chunk.

A shard is hostile until each word of it was compared with our own tables. Only who knows the hashes of a xorb's chunks
can write the proof of a term, so knowing the name of a xorb opens nothing of it.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Mapping
from typing import ParamSpec, TypeVar

from lfs.errors import BadXet, Busy, Damaged, HeavyError, Missing, ObjectAbsent, TooLarge
from lfs.heavy import Heavy
from lfs.store import ObjectStore, shard_key
from lfs.xet import hashes, shards
from lfs.xet.checking import Tell, check
from lfs.xet.dedup import Dedup
from lfs.xet.formats import XorbTable
from lfs.xet.index import Leave, XetIndex, Xorb
from lfs.xet.naming import here
from lfs.xet.shards import Shard
from lfs.xet.tables import Tables

P = ParamSpec("P")
T = TypeVar("T")

log = logging.getLogger(__name__)

MAX_NAMED = 1 << 24
"""Chunks that the files of one shard may have together: 1 TiB of 64 KiB each, a few minutes of a core."""
MAX_FILES = 1 << 17
"""Files of one shard: each is a few rows, and some seconds of the one writer of SQLite for all of them."""
LARGE = 20_000
"""Chunks that are named in this process: for a fifth of a second they keep other threads waiting."""


class Filing:
    """Files shards, and answers who asks for a chunk; `clock` tells Unix seconds.

    `stale` hears of a domain whose clients remember xorbs that are gone: a new generation makes them forget. `told` is
    called when files wait for their proof. No file may have more than `max_file` bytes. What a shard of many chunks
    names is named by children of `heavy`; by this process if there is none.
    """

    def __init__(
        self,
        *,
        index: XetIndex,
        store: ObjectStore,
        tables: Tables,
        heavy: Heavy | None = None,
        clock: Callable[[], float] = time.time,
        stale: Callable[[str], object] = lambda domain: None,
        told: Callable[[], None] = lambda: None,
        max_file: int | None = None,
    ) -> None:
        self._index, self._store, self._tables, self._heavy = index, store, tables, heavy
        self._stale, self._told, self._max_file = stale, told, max_file
        self._dedup = Dedup(index=index, tables=tables, clock=clock)

    def file(self, leave: Leave, data: bytes, tell: Tell) -> bool:
        """File what a shard names; False if all of it was there before. Durable at return.

        All of it is checked before anything is filed. A shard of thousands of files is then filed in groups, as the
        index says: one that is cut off in between is finished by the next try.

        `tell` hears of how many files of how many are checked, the last time of all.
        Raises: BadXet (also if a xorb is not here), TooLarge, QuotaExceeded, RepoAbsent, Busy; with words for users.
        """
        try:
            return self._file(leave, data, tell)
        except ObjectAbsent as error:
            self._stale(leave.domain)
            raise BadXet(error.message) from error

    def dedup(self, leave: Leave, chunk: bytes) -> bytes | None:
        """Return the keyed chunks of xorbs around a chunk of this domain, all promised; None if nobody marked it."""
        return self._dedup.answer(leave, chunk)

    def _file(self, leave: Leave, data: bytes, tell: Tell) -> bool:
        shard = shards.parse(data)
        chunks = self._count(shard)
        known = self._known(leave, shard)
        run = self._elsewhere if chunks > LARGE else here
        filings = check(shard, lambda name: self._table(known[name]), run, tell)
        sha256 = hashlib.sha256(data).hexdigest()
        self._store.put(shard_key(sha256), data, len(data), sha256)
        inserted = self._index.file(leave, filings, sha256, len(data))
        self._told()
        return inserted

    def _count(self, shard: Shard) -> int:
        """Return how many chunks the files of a shard have. Raises: TooLarge."""
        largest = self._max_file
        if largest is not None and any(file.size > largest for file in shard.files):
            raise TooLarge(f"A file is larger than this server takes: {largest} bytes (MAX_FILE).")
        if len(shard.files) > MAX_FILES:
            raise TooLarge(f"This upload has {len(shard.files)} files, {MAX_FILES} may be filed at a time.")
        chunks = sum(term.end - term.start for file in shard.files for term in file.terms)
        if chunks > MAX_NAMED:
            raise TooLarge(f"The files of this upload have {chunks} chunks, {MAX_NAMED} may be filed at a time.")
        return chunks

    def _known(self, leave: Leave, shard: Shard) -> Mapping[bytes, Xorb]:
        """Return the xorbs that a shard names. Raises: ObjectAbsent."""
        names = {term.xorb for file in shard.files for term in file.terms} | {xorb.hash for xorb in shard.xorbs}
        known = self._index.live(leave.domain, names)
        if gone := names - known.keys():
            raise ObjectAbsent(
                f"{len(gone)} of {len(names)} xorbs of this upload are not here any more; upload the files again.",
                oids=[hashes.text(name) for name in sorted(gone)],
            )
        return known

    def _table(self, xorb: Xorb) -> XorbTable:
        """Load a table. Raises: ObjectAbsent (the xorb is lost: nobody is told any more that it is here)."""
        try:
            return self._tables.load(xorb)
        except (Damaged, Missing) as error:
            log.error("xorb %s is lost, and is taken in again: %s", hashes.text(xorb.hash), error.message)
            self._index.quarantine(xorb.hash, xorb.key, f"could not be read under {xorb.key}: {error.message}")
            name = hashes.text(xorb.hash)
            raise ObjectAbsent(f"Xorb {name} of this upload was lost; upload the files again.", oids=[name]) from error

    def _elsewhere(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a function in a child process. Raises: Busy."""
        if self._heavy is None:
            return function(*args, **kwargs)
        try:
            return self._heavy.submit(function, *args, **kwargs)
        except HeavyError as error:
            raise Busy(f"The upload could not be checked now: {error.message} Try again.") from error
