"""Take xorbs in: nothing is live before its bytes were read, proven and stored for good.

    through us   body → temporary file → proof in a child process → table, body → row
    by grant     the client puts to staging/<grant> → copied inside the store → temporary file → proof → table → row

A granted URL may be used once more until it expires, so what it can reach is copied to keys that no client ever had
before it is looked at. A footer is cut off: then the store gets the file that was cut, not the copy.

    a death after …      leaves                               which goes
    some of the body     a file in our folder                 with the folder, when a process takes it over
    the copy, the table, objects that no row names            by the sweep of orphans
    or the body
    the row              of a grant, the client's object      by the sweep of orphans; the grant expires

The row comes last and both its objects are durable by then, so a row never lacks one. A retry starts over under new
keys, or finds the row and does nothing. If the store serves the xorb under other keys, ours are deleted: that is so if
another domain has it too, and its client sees the same work and the same answer as for a xorb that nobody had.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lfs.errors import BadXet, LfsError, Missing, ObjectAbsent, QuotaExceeded, RepoAbsent, TooLarge
from lfs.heavy import Heavy
from lfs.store import ObjectStore, staging_key, xorb_keys
from lfs.uploads import discard
from lfs.xet import hashes
from lfs.xet.index import Granted, Leave, XetIndex, Xorb
from lfs.xet.proving import Proven, Proving, bounded, check_length

GRANT_SECONDS = 3600
Stored = Literal["stored"]


@dataclass(frozen=True, slots=True)
class Ticket:
    """A grant for the client: send the body so, with exactly these headers and its length, then commit `id`."""

    id: str
    method: str
    url: str
    headers: Mapping[str, str]


class Taking:
    """Takes xorbs for one process, which owns `folder`: best on the file system of a disk shelf, which then adopts.

    Synchronous, thread-safe. `clock` tells Unix seconds. That a leave allows to write is the caller's to check.
    """

    def __init__(
        self,
        *,
        index: XetIndex,
        store: ObjectStore,
        heavy: Heavy,
        folder: Path,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._index, self._store, self._clock = index, store, clock
        self._proving = Proving(heavy, folder)

    def post(self, leave: Leave, hash: bytes, source: Iterable[bytes], *, announced: int = 0) -> bool:
        """Take the body of a xorb; False if the domain had it, True if it is live now. Repeatable, also at once.

        A body of `announced` bytes, if its client said how many, has to fit into the quota before it is read.
        Raises: BadXet, TooLarge, QuotaExceeded, Busy, NoSpace, Unavailable; then nothing is live that was not.
        """
        if self._promised(leave, hash):
            for _ in bounded(source):
                pass
            return False
        self._index.check(leave, hash, max(1, announced))
        with self._proving.proven(hash, source) as (path, proven):
            self._admit_file(leave, hash, path, proven)
        return True

    def head(self, leave: Leave, hash: bytes) -> int:
        """Return the bytes of a xorb's body. Raises: ObjectAbsent (this domain has none)."""
        found = self._index.live(leave.domain, [hash]).get(hash)
        if found is None:
            raise ObjectAbsent(f"Xorb {hashes.text(hash)} is not here; send it.", oids=[hashes.text(hash)])
        return found.size

    def ask_grant(self, leave: Leave, hash: bytes, length: int, crc64nvme: int | None) -> Ticket | Stored | None:
        """Let a client send a xorb of `length` bytes to the store itself; None if it must come through us.

        The URL binds key and length. A checksum is not bound: stores were found to ignore it, so it would promise
        what nobody holds; the proof does not need it. Raises: TooLarge, QuotaExceeded.
        """
        check_length(length)
        if self._promised(leave, hash):
            return "stored"
        id = secrets.token_hex(16)
        key = staging_key(id)
        signed = self._store.url(key, "PUT", GRANT_SECONDS, size=length)
        if signed is None:
            return None
        expires = int(self._clock()) + GRANT_SECONDS
        self._index.grant(leave, Granted(id, leave.domain, hash, key, length, expires))
        return Ticket(id, "PUT", signed.href, signed.headers)

    def commit(self, leave: Leave, id: str, hash: bytes) -> bool:
        """Make a xorb live that came by a grant; False if the domain had it. Repeatable, also after success.

        A body that is not the xorb, or has no room any more, is deleted, and its grant ended.
        Raises: ObjectAbsent (no such grant, or nothing came: ask for a new one), BadXet, TooLarge, QuotaExceeded, Busy,
        Unavailable.
        """
        try:
            return self._committed(leave, id, hash)
        except ObjectAbsent:
            # Another commit of this grant was quicker, or was answered to a client that had left.
            if self._promised(leave, hash):
                return False
            raise

    def _committed(self, leave: Leave, id: str, hash: bytes) -> bool:
        granted = self._granted(leave, id, hash)
        here = self._promised(leave, hash)
        if not here:
            self._take_over(leave, granted)
        self._end(granted)
        return not here

    def _promised(self, leave: Leave, hash: bytes) -> bool:
        """Say whether the domain has a xorb, and promise it if so."""
        if not self._index.live(leave.domain, [hash]):
            return False
        self._index.promise(leave.domain, [hash])
        # It may have been on its way out: what is there after the promise stays.
        return bool(self._index.live(leave.domain, [hash]))

    def _granted(self, leave: Leave, id: str, hash: bytes) -> Granted:
        granted = self._index.granted(id)
        if (granted.domain, granted.hash) != (leave.domain, hash):
            raise ObjectAbsent("This grant is for another xorb; ask for a new one.")
        return granted

    def _end(self, granted: Granted) -> None:
        discard(self._store, granted.key)
        self._index.drop_grant(granted.id)

    def _take_over(self, leave: Leave, granted: Granted) -> None:
        try:
            self._admit_copy(leave, granted)
        except (BadXet, TooLarge, QuotaExceeded):
            self._end(granted)
            raise

    def _admit_copy(self, leave: Leave, granted: Granted) -> None:
        """Prove what was put under a grant, in a copy that no client can reach, and make it live."""
        keys = _fresh_keys(granted.hash)
        with self._undoing(keys):
            try:
                self._store.copy(granted.key, keys[0])
            except Missing as error:
                raise ObjectAbsent("Nothing was sent with this grant; ask for a new one and send it.") from error
            with self._store.open(keys[0]) as reader:
                size = reader.size
                with self._proving.proven(granted.hash, reader) as (path, proven):
                    if size > proven.body_size:
                        discard(self._store, keys[0])
                        self._admit_file(leave, granted.hash, path, proven)
                        return
            self._store.put(keys[1], proven.table, len(proven.table))
        self._go_live(leave, granted.hash, keys, proven)

    def _admit_file(self, leave: Leave, hash: bytes, path: Path, proven: Proven) -> None:
        """Store a proven file, and make it live."""
        keys = _fresh_keys(hash)
        with self._undoing(keys):
            self._store.put(keys[1], proven.table, len(proven.table))
            self._store.put(keys[0], path, proven.body_size)
        self._go_live(leave, hash, keys, proven)

    def _go_live(self, leave: Leave, hash: bytes, keys: tuple[str, str], proven: Proven) -> None:
        """Write the row of stored bytes, or delete them if that is refused.

        If it fails otherwise nobody knows whether the row is there: the objects stay, for gc.
        """
        xorb = Xorb(hash, *keys, proven.body_size, proven.raw_size, proven.chunks)
        try:
            served = self._index.keep(leave, xorb)
        except (QuotaExceeded, RepoAbsent):
            self._discard(keys)
            raise
        if served.key != xorb.key:
            self._discard(keys)

    @contextmanager
    def _undoing(self, keys: tuple[str, str]) -> Iterator[None]:
        """Delete what lies under new keys if the block fails: no row names them yet."""
        try:
            yield
        except LfsError:
            self._discard(keys)
            raise

    def _discard(self, keys: tuple[str, str]) -> None:
        for key in keys:
            discard(self._store, key)


def _fresh_keys(hash: bytes) -> tuple[str, str]:
    return xorb_keys(hashes.text(hash), secrets.token_hex(8))
