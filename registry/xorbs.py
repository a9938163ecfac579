"""The rows of Xet: `XetRows` is the `lfs.xet.index.XetIndex` of a registry, in `lfs`'s own errors.

xet_domains   which circle shares what, and who may still come in
xet_xorbs     xorbs, promises, grants
xet_arrivals  what counts against a quota before it is filed
xet_damage    xorbs that are put aside
xet_filing    shards into rows
xet_files     files and marks out of rows
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import datetime

from lfs import errors
from lfs.xet.index import File, Filing, Granted, Leave, Marked, Xorb
from registry import errors as ours
from registry.db import Database, now
from registry.quota import Quotas
from registry.xet_arrivals import XetArrivals
from registry.xet_circles import Sharing
from registry.xet_damage import Damage
from registry.xet_domains import XetDomains
from registry.xet_files import XetFiles
from registry.xet_filing import XetFiling
from registry.xet_xorbs import Xorbs

_WORDS: tuple[tuple[type[ours.RegistryError], type[errors.LfsError]], ...] = (
    (ours.BadToken, errors.BadToken),
    (ours.RepoAbsent, errors.RepoAbsent),
    (ours.QuotaExceeded, errors.QuotaExceeded),
    (ours.NoSpace, errors.NoSpace),
)


class XetRows:
    """Is the `XetIndex` of a registry. Thread-safe, among processes too.

    `domains` and `files` answer the hub as well, in the registry's own errors.
    """

    def __init__(
        self, database: Database, quotas: Quotas, *, sharing: Sharing, clock: Callable[[], datetime] = now
    ) -> None:
        self.domains = XetDomains(database, sharing, clock=clock)
        self.files = XetFiles(database)
        self._arrivals = XetArrivals(database, quotas, clock=clock)
        self._xorbs = Xorbs(database, self._arrivals, clock=clock)
        self._damage = Damage(database, clock=clock)
        self._filing = XetFiling(database, quotas, self._arrivals, self._xorbs, clock=clock)

    def enter(self, leave: Leave, generation: int) -> None:
        """Look whether leave still holds."""
        with _translated():
            self.domains.enter(leave, generation)

    def renew(self, domain: str) -> None:
        """Let the clients of a domain begin afresh, at most every ten minutes."""
        with _translated():
            self.domains.renew(domain)

    def live(self, domain: str, hashes: Collection[bytes]) -> Mapping[bytes, Xorb]:
        """Return those of these xorbs that a shard of this domain may name."""
        with _translated():
            return self._xorbs.live(domain, hashes)

    def check(self, leave: Leave, hash: bytes, size: int) -> None:
        """Look whether a xorb has room, before it is read."""
        with _translated():
            self._arrivals.check(leave, hash, size)

    def keep(self, leave: Leave, xorb: Xorb) -> Xorb:
        """Make a proven xorb live in a domain, and return the one that is served."""
        with _translated():
            return self._xorbs.keep(leave, xorb)

    def promise(self, domain: str, hashes: Collection[bytes]) -> None:
        """Keep xorbs for as long as clients may remember that we have them."""
        with _translated():
            self._xorbs.promise(domain, hashes)

    def grant(self, leave: Leave, granted: Granted) -> None:
        """Note a grant."""
        with _translated():
            self._xorbs.grant(leave, granted)

    def granted(self, id: str) -> Granted:
        """Return a grant."""
        with _translated():
            return self._xorbs.granted(id)

    def drop_grant(self, id: str) -> None:
        """Forget a grant."""
        with _translated():
            self._xorbs.drop_grant(id)

    def file(self, leave: Leave, filings: Sequence[Filing], shard: str, length: int = 0) -> bool:
        """File what a shard names."""
        with _translated():
            return self._filing.file(leave, filings, shard, length)

    def copy(self, leave: Leave, filings: Sequence[Filing]) -> bool:
        """File what another repo has proven: its xorbs are shown to the domain of `leave` with it, or not at all."""
        with _translated():
            return self._filing.file(leave, filings, "", showing=True)

    def find(self, repo_id: int, hash: bytes) -> File | None:
        """Return a file that this repo links."""
        with _translated():
            return self.files.find(repo_id, hash)

    def whole(self, hash: bytes) -> File | None:
        """Return a file whoever links it."""
        with _translated():
            return self.files.whole(hash)

    def located(self, hashes: Collection[bytes]) -> Mapping[bytes, Xorb]:
        """Return xorbs by hash in whatever domain."""
        with _translated():
            return self._xorbs.located(hashes)

    def around(self, domain: str, chunk: bytes) -> Marked | None:
        """Return the newest file of this domain that has this chunk as a mark, and where the chunk is."""
        with _translated():
            return self.files.around(domain, chunk)

    def answer_key(self, domain: str, week: int) -> tuple[bytes, int]:
        """Return the key of dedup answers, and when it ends."""
        with _translated():
            return self.domains.answer_key(domain, week)

    def quarantine(self, hash: bytes, key: str, why: str = "has other bytes") -> None:
        """Put a xorb aside, and tell of it."""
        with _translated():
            self._damage.put_aside(hash, key, why)


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """Say the registry's refusals in the words of `lfs.errors`."""
    try:
        yield
    except ours.Busy as error:
        raise errors.Busy(error.message, retry_after=error.retry_after) from error
    except ours.ObjectAbsent as error:
        raise errors.ObjectAbsent(error.message, oids=error.oids) from error
    except ours.RegistryError as error:
        for known, kind in _WORDS:
            if isinstance(error, known):
                raise kind(error.message) from error
        raise
