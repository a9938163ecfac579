"""Uploads of one account that are read back together: one large one, or several small ones that are settled at once.

    read      piece by piece, hashed; between two pieces it may be set aside, and goes on later where it stood
    settled   all that have their announced hash, in one transaction
    refused   what came is known to be something else
    failed    whatever else happened: it is tried again later

What is set aside is a hash so far and a lease: it holds neither a file nor a connection nor a piece.
"""

from __future__ import annotations

import hashlib
import logging
from collections import deque
from collections.abc import Callable, Sequence

from lfs.errors import Busy, Damaged, DigestMismatch, LfsError, Mismatch, Missing, QuotaExceeded, SizeMismatch
from lfs.host import Arrival, Host, Proof, Upload
from lfs.store import ObjectStore, Reader, Span, lfs_key, staging_key
from lfs.uploads import discard, settle_all

log = logging.getLogger(__name__)

LEASE = 30.0
"""Seconds that work on one upload may be silent before another process takes it on; a commit may be waiting for it."""
COPIED = 32 << 20
"""Bytes in a second that any store copies within itself; while it does so nothing prolongs the lease."""


RETRY = 10.0
"""Seconds until an upload is tried again whose proof the store or the database did not let us finish."""

TRIES = 3
"""How often rows that are busy are asked to link what was proven; each may take the seconds that a database waits."""


class ReadingBack:
    """Uploads that `holder` has leased, being proven; for one thread at a time. `clock` is in seconds."""

    def __init__(
        self, uploads: Sequence[Upload], holder: str, *, host: Host, store: ObjectStore, clock: Callable[[], float]
    ) -> None:
        self.actor_id = uploads[0].actor_id
        self.failed: list[tuple[Upload, Exception]] = []
        self._holder, self._host, self._store, self._clock = holder, host, store, clock
        self._left = deque(uploads)
        self._read: list[tuple[Upload, Arrival]] = []
        self._held = clock()
        self._reader: Reader | None = None
        self._begin()

    def go_on(self, enough: Callable[[], bool]) -> bool:
        """Read on, one piece at least, until it is `enough`, and settle what was read to its end; True if that is all.

        What becomes of an upload is the host's to say; `failed` are those of which that is still open.
        """
        while self._left:
            upload = self._left[0]
            try:
                if self._hash(upload, enough):
                    self._judge(upload)
            except _Lost:
                pass
            except Exception as error:
                self._drop(upload)
                self._end(upload, error)
            if self._left and enough():
                break
        # Commits wait for what was read, also if the rest has to wait.
        self._settle()
        return not self._left

    def is_due(self) -> bool:
        """Say whether it is time to prolong the leases."""
        return self._clock() - self._held > LEASE / 4

    def keep_up(self) -> None:
        """Prolong the leases; what another holder has is no work of ours any more."""
        self._hold(LEASE)

    def set_aside(self) -> None:
        """Let go of what is open; reading goes on where it stood. May be repeated."""
        reader, self._reader = self._reader, None
        if reader is not None:
            try:
                reader.close()
            except Exception:
                # What it gave is judged by its hash, however it ended.
                log.exception("a reader of bytes that came was left open")

    def give_back(self) -> None:
        """Leave what is not proven to whoever looks next."""
        self.set_aside()
        for upload in self._ours():
            self._host.release(upload.id, self._holder)

    def rest(self) -> None:
        """Keep what failed for a while, so that one that cannot be read does not keep others from their turn."""
        for upload, error in self.failed:
            if isinstance(error, LfsError):
                log.warning("upload %s is not proven yet: %s", upload.id, error.message)
            else:
                log.error("upload %s is not proven yet", upload.id, exc_info=error)
            try:
                self._host.hold(upload.id, self._holder, RETRY)
            except Exception:
                log.exception("the lease of upload %s was left to lapse", upload.id)

    def _begin(self) -> None:
        self.set_aside()
        self._digest, self._at, self._moved = hashlib.sha256(), 0, False

    def _ours(self) -> list[Upload]:
        return [*self._left, *(upload for upload, _ in self._read)]

    def _drop(self, upload: Upload) -> None:
        """Take an upload from those that are left to be read."""
        if self._left and self._left[0] is upload:
            self._begin()
        self._left.remove(upload)

    def _hold(self, seconds: float) -> None:
        """Prolong the leases; if the rows do not answer now they last for three more tries: much was read."""
        self._held = self._clock()
        try:
            ours = self._host.hold_all([upload.id for upload in self._ours()], self._holder, seconds)
        except Busy:
            return
        for upload in [each for each in self._left if each.id not in ours]:
            self._drop(upload)
        self._read = [each for each in self._read if each[0].id in ours]

    def _insist(self, upload: Upload, seconds: float) -> None:
        """Prolong the leases. Raises: _Lost (this upload's is another's)."""
        self._hold(seconds)
        if upload not in self._left:
            raise _Lost

    def _hash(self, upload: Upload, enough: Callable[[], bool]) -> bool:
        """Read on, to the end or until it is enough; True if that was the end."""
        if self._reader is None:
            self._reader = self._opened(upload)
        while piece := self._reader.read():
            self._digest.update(piece)
            self._at += len(piece)
            if self.is_due():
                self._insist(upload, LEASE)
            if self._at < upload.size and enough():
                return False
        return True

    def _opened(self, upload: Upload) -> Reader:
        if upload.mode == "staging" and not self._moved:
            # The URL may be used once more until it expires, so the bytes move before they are looked at.
            self._insist(upload, LEASE + upload.size / COPIED)
            self._store.copy(staging_key(upload.id), _key(upload))
            self._insist(upload, LEASE)
            self._moved = True
        reader = self._store.open(_key(upload), Span(self._at, upload.size) if self._at else None)
        if reader.size != upload.size - self._at:
            reader.close()
            found = self._at + reader.size
            raise SizeMismatch(f"{found} bytes came, the object has {upload.size}; push the file again.")
        return reader

    def _judge(self, upload: Upload) -> None:
        found = self._digest.hexdigest()
        if found != upload.oid:
            raise DigestMismatch(f"The bytes that came hash to {found}, not to {upload.oid}; push the file again.")
        self._drop(upload)
        self._read.append((upload, Arrival(upload.id, _key(upload), Proof(upload.oid, upload.size, "read-back"))))

    def _settle(self) -> None:
        """Link all that was read."""
        read, self._read = self._read, []
        ends = self._settled([arrival for _, arrival in read])
        for (upload, _), objection in zip(read, ends, strict=True):
            if objection is not None:
                self._end(upload, objection)
            elif upload.mode == "staging":
                discard(self._store, staging_key(upload.id))

    def _settled(self, arrivals: Sequence[Arrival]) -> list[Exception | None]:
        """Link what was proven, with some patience: otherwise all of it would have to be read again.

        What is linked is not asked again: the bytes that came may have been spare and be gone, and to link them once
        more would serve them if those that are served went bad meanwhile.
        """
        ends = self._asked(arrivals)
        for _ in range(TRIES - 1):
            busy = [place for place, end in enumerate(ends) if isinstance(end, Busy)]
            if not busy:
                break
            for place, end in zip(busy, self._asked([arrivals[place] for place in busy]), strict=True):
                ends[place] = end
        return ends

    def _asked(self, arrivals: Sequence[Arrival]) -> list[Exception | None]:
        try:
            return settle_all(self._host, self._store, arrivals)
        except Exception as error:
            return [error] * len(arrivals)

    def _end(self, upload: Upload, error: Exception) -> None:
        """Refuse an upload that is known to be something else; what may pass has failed for now."""
        if not isinstance(error, Mismatch | Damaged | Missing | QuotaExceeded):
            self.failed.append((upload, error))
            return
        why = "The bytes that came are gone; push the file again." if isinstance(error, Missing) else error.message
        try:
            refused = self._refuse(upload, why)
        except Exception as trouble:
            self.failed.append((upload, trouble))
            return
        if refused:
            if upload.mode != "xet":
                discard(self._store, _key(upload))
            if upload.mode == "staging":
                discard(self._store, staging_key(upload.id))

    def _refuse(self, upload: Upload, why: str) -> bool:
        """Close an upload for good; False if it is not ours to close: another process proved it, or is about to.

        Only what is known to have failed is deleted: a repo that is gone says nothing of an object that another prover
        may have linked before, also to other repos.
        """
        if not self._host.hold(upload.id, self._holder, LEASE):
            return False
        self._host.fail(upload.id, why)
        failed = self._host.upload(upload.id).state == "failed"
        if failed:
            log.warning("upload %s of %s is refused: %s", upload.id, upload.oid, why)
        return failed


class _Lost(Exception):
    """Another holder has the upload that is being read."""


def _key(upload: Upload) -> str:
    return upload.key if upload.mode == "xet" else lfs_key(upload.oid, upload.id)
