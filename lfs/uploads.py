"""One object through the server: its bytes to the shelf, hashed on the way, then the host makes the link.

Stored bytes are not a shortcut: an object that another repo holds takes the same path at the same cost, so neither an
answer nor its timing tells who holds what.
"""

from __future__ import annotations

from collections.abc import Iterable

from lfs.errors import Busy, ObjectAbsent, SizeConflict
from lfs.grants import Grant
from lfs.host import Host, Proof
from lfs.store import ObjectStore, lfs_key


class Uploads:
    """Takes objects in and confirms that they arrived. Synchronous: a door calls it on a worker thread."""

    def __init__(self, *, host: Host, store: ObjectStore) -> None:
        self._host, self._store = host, store

    def take(self, grant: Grant, source: Iterable[bytes]) -> None:
        """Keep the granted object; at return its bytes are durable and its link is committed.

        Whole or nothing; repeatable, also at the same time.
        Raises: SizeMismatch, DigestMismatch, NoSpace, QuotaExceeded, Busy (the same oid is being deleted now),
        ObjectAbsent (the repo or its upload is gone), Damaged, Unavailable.
        """
        key = self._key_for(grant)
        verified = self._store.put(key, source, grant.size, grant.oid)
        self._host.finish(grant.upload, key, Proof(verified.sha256, verified.size, "streamed"))

    def confirm(self, repo_id: int, oid: str, size: int) -> None:
        """Say that the repo has this object, proven. Raises: ObjectAbsent, SizeConflict."""
        held = self._host.look(repo_id, [oid]).get(oid)
        if held is None or not held.linked or held.state in ("deleting", "damaged"):
            raise ObjectAbsent(f"{oid} has not arrived in this repo; upload it, then verify.", oids=[oid])
        if held.size != size:
            raise SizeConflict(f"{oid} has {held.size} bytes here, not {size}; the pointer's size is wrong.")

    def _key_for(self, grant: Grant) -> str:
        held = self._host.look(grant.repo_id, [grant.oid]).get(grant.oid)
        if held is not None and held.state == "deleting":
            raise Busy("This object is being removed at this moment; send it again in a few seconds.")
        # Damaged bytes keep their key until fsck has looked at them; the healing ones get a key of this upload's own.
        return lfs_key(grant.oid, grant.upload if held is not None and held.state == "damaged" else "")
