"""The proof of bytes that went past us: read back, hashed, and only then linked.

    staging      copied inside the store to a key that no client ever had, then read back there
    xet          put together from chunks under the key of the file, which has no bytes of its own to delete
    the others   read back under the key of the upload's own

Any process may take any upload on: a lease keeps two from the same work, and if it lapses twice the work is the same
result. A crash at any point leaves the upload `arrived`, for whoever looks next.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
import threading
import time
from collections.abc import Callable

from lfs.errors import Damaged, DigestMismatch, LfsError, Mismatch, Missing, QuotaExceeded, SizeMismatch
from lfs.host import Host, Proof, Upload
from lfs.store import ObjectStore, lfs_key, staging_key
from lfs.uploads import discard, settle

log = logging.getLogger(__name__)

LEASE = 30.0
"""Seconds that work on one upload may be silent before another process takes it on; a commit may be waiting for it."""
COPIED = 32 << 20
"""Bytes in a second that any store copies within itself; while it does so nothing prolongs the lease."""
RETRY = 10.0
"""Seconds until an upload is tried again whose proof the store or the database did not let us finish."""


class Prover:
    """Proves arrived uploads on threads of its own. Thread-safe; several processes may run one each.

    `workers` uploads are read at a time; it looks for work when it is told to, and every `every` seconds for what
    other processes left. `clock` is in seconds.
    """

    def __init__(
        self,
        *,
        host: Host,
        store: ObjectStore,
        workers: int = 2,
        every: float = RETRY,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._host, self._store, self._clock, self._every = host, store, clock, every
        self._threads = [
            threading.Thread(target=self._work, args=(secrets.token_hex(16),), name=f"proof-{number}", daemon=True)
            for number in range(workers)
        ]
        self._news = threading.Condition()
        self._told = 0
        self._stopping = threading.Event()

    def start(self) -> None:
        """Begin to look for work."""
        for thread in self._threads:
            thread.start()

    def tell(self) -> None:
        """Say that an upload arrived; returns at once."""
        with self._news:
            self._told += 1
            self._news.notify_all()

    def close(self, *, patience: float = 5.0) -> None:
        """Stop after the piece that is being read; what is not proven is left for the next start. May be repeated.

        Returns after `patience` seconds in any case.
        """
        self._stopping.set()
        self.tell()
        until = time.monotonic() + patience
        for thread in self._threads:
            if thread.is_alive():
                thread.join(max(0.0, until - time.monotonic()))

    def prove(self, upload: Upload, holder: str) -> None:
        """Prove one upload that `holder` has leased, or find that it is something else; repeatable.

        It stays arrived if we are stopping, if another holder took it on, and after an exception.
        Raises: Unavailable, NoSpace, ObjectAbsent (its repo is gone), and whatever else may pass.
        """
        key = upload.key if upload.mode == "xet" else lfs_key(upload.oid, upload.id)
        try:
            found = self._read(upload, key, holder)
            if found is None:
                return
            if found != upload.oid:
                raise DigestMismatch(f"The bytes that came hash to {found}, not to {upload.oid}; push the file again.")
            settle(self._host, self._store, upload.id, key, Proof(upload.oid, upload.size, "read-back"))
        except (Mismatch, Damaged, Missing, QuotaExceeded) as error:
            why = "The bytes that came are gone; push the file again." if isinstance(error, Missing) else error.message
            if not self._refuse(upload, holder, why):
                return
            if upload.mode != "xet":
                discard(self._store, key)
        if upload.mode == "staging":
            discard(self._store, staging_key(upload.id))

    def _work(self, holder: str) -> None:
        while not self._stopping.is_set():
            told = self._told
            upload = self._next(holder)
            if upload is None:
                self._wait(told)
            else:
                self._try(upload, holder)

    def _wait(self, told: int) -> None:
        with self._news:
            self._news.wait_for(lambda: self._told != told or self._stopping.is_set(), self._every)

    def _next(self, holder: str) -> Upload | None:
        try:
            return next(iter(self._host.arrived(holder, LEASE, 1)), None)
        except LfsError as error:
            log.warning("uploads that wait for their proof could not be listed: %s", error.message)
        except Exception:
            log.exception("uploads that wait for their proof could not be listed")
        return None

    def _try(self, upload: Upload, holder: str) -> None:
        try:
            self.prove(upload, holder)
            self._host.release(upload.id, holder)
        except LfsError as error:
            log.warning("upload %s is not proven yet: %s", upload.id, error.message)
            self._rest(upload, holder)
        except Exception:
            log.exception("upload %s is not proven yet", upload.id)
            self._rest(upload, holder)

    def _rest(self, upload: Upload, holder: str) -> None:
        """Keep an upload for a while, so that one that cannot be read does not keep others from their turn."""
        try:
            self._host.hold(upload.id, holder, RETRY)
        except Exception:
            log.exception("the lease of upload %s was left to lapse", upload.id)

    def _read(self, upload: Upload, key: str, holder: str) -> str | None:
        """Return the SHA-256 of what came; None if we are stopping or the lease was lost."""
        if upload.mode == "staging":
            # The URL may be used once more until it expires, so the bytes move before they are looked at.
            self._host.hold(upload.id, holder, LEASE + upload.size / COPIED)
            self._store.copy(staging_key(upload.id), key)
            self._host.hold(upload.id, holder, LEASE)
        digest, held = hashlib.sha256(), self._clock()
        with self._store.open(key) as reader:
            if reader.size != upload.size:
                raise SizeMismatch(f"{reader.size} bytes came, the object has {upload.size}; push the file again.")
            for piece in reader:
                digest.update(piece)
                if self._stopping.is_set():
                    return None
                if self._clock() - held > LEASE / 4:
                    if not self._host.hold(upload.id, holder, LEASE):
                        return None
                    held = self._clock()
        return digest.hexdigest()

    def _refuse(self, upload: Upload, holder: str, why: str) -> bool:
        """Close an upload for good; False if it is not ours to close: another process proved it, or is about to.

        Only what is known to have failed is deleted: a repo that is gone says nothing of an object that another prover
        may have linked before, also to other repos.
        """
        if not self._host.hold(upload.id, holder, LEASE):
            return False
        self._host.fail(upload.id, why)
        failed = self._host.upload(upload.id).state == "failed"
        if failed:
            log.warning("upload %s of %s is refused: %s", upload.id, upload.oid, why)
        return failed
