"""One object in one piece: through the server, hashed on its way, or past it, confirmed by `verify`.

Stored bytes are not a shortcut: an object that another repo holds takes the same path at the same cost, so neither an
answer nor its timing tells who holds what. What went past us is believed only under a key that this upload alone could
write.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence

from lfs.bodies import count_of, document, text_of
from lfs.errors import BadRequest, LfsError, Missing, ObjectAbsent, SizeConflict, StoreError
from lfs.grants import Grant
from lfs.host import Arrival, Held, Host, Proof, Upload, Wanted
from lfs.store import ObjectStore, lfs_key, staging_key

log = logging.getLogger(__name__)


class Uploads:
    """Takes objects in and confirms that they arrived. Synchronous: a door calls it on a worker thread.

    `told` is called when bytes wait for their proof.
    """

    def __init__(self, *, host: Host, store: ObjectStore, told: Callable[[], None]) -> None:
        self._host, self._store, self._told = host, store, told

    def take(self, grant: Grant, source: Iterable[bytes]) -> None:
        """Keep the granted object; at return its bytes are durable and its link is committed.

        Whole or nothing; repeatable, also at the same time.
        Raises: SizeMismatch, DigestMismatch, NoSpace, QuotaExceeded, ObjectAbsent (the repo or its upload is gone),
        Damaged, Unavailable.
        """
        key = _key_for(grant, self._host.look(grant.repo_id, [grant.oid]).get(grant.oid))
        verified = self._store.put(key, source, grant.size, grant.oid)
        settle(self._host, self._store, grant.upload, key, Proof(verified.sha256, verified.size, "streamed"))

    def take_all(self, whole: Sequence[tuple[Grant, bytes]]) -> Sequence[Exception | None]:
        """Keep several granted objects, each of them whole in memory; for each, in order, what `take` would raise.

        They share a look and a transaction, so each costs a fraction of one that comes alone. Raises: Busy.
        """
        grants = [grant for grant, _ in whole]
        keys = [_key_for(grant, held) for grant, held in zip(grants, held_of(self._host, grants), strict=True)]
        arrivals: list[Arrival | LfsError] = [
            self._arrival(grant, key, data) for (grant, data), key in zip(whole, keys, strict=True)
        ]
        came = [each for each in arrivals if isinstance(each, Arrival)]
        served = iter(self._host.finish_all(came) if came else [])
        return [self._ended(each, next(served)) if isinstance(each, Arrival) else each for each in arrivals]

    def _arrival(self, grant: Grant, key: str, data: bytes) -> Arrival | LfsError:
        try:
            verified = self._store.put(key, data, grant.size, grant.oid)
        except LfsError as error:
            return error
        return Arrival(grant.upload, key, Proof(verified.sha256, verified.size, "streamed"))

    def _ended(self, arrival: Arrival, served: str | Exception) -> Exception | None:
        if isinstance(served, Exception):
            return served
        _drop_spare(self._store, arrival, served)
        return None

    def confirm(self, repo_id: int, oid: str, size: int) -> None:
        """Say that the repo has this object, proven. Raises: ObjectAbsent, SizeConflict."""
        held = self._host.look(repo_id, [oid]).get(oid)
        if held is None or not held.linked or held.state in ("deleting", "damaged"):
            raise ObjectAbsent(f"{oid} has not arrived in this repo; upload it, then verify.", oids=[oid])
        _agree(oid, size, held.size)

    def verify(self, grant: Grant, size: int) -> None:
        """Say that the bytes of an upload arrived, and take them over if they went past us; repeatable.

        Raises: ObjectAbsent (they did not, or were not the announced ones), SizeConflict, QuotaExceeded, Unavailable.
        """
        upload = self._host.upload(grant.upload)
        _agree(upload.oid, size, upload.size)
        if upload.state == "failed":
            raise ObjectAbsent(upload.reason or "The bytes that came are not this object; send it again.")
        if upload.state == "open":
            self._arrived(upload)

    def _arrived(self, upload: Upload) -> None:
        """Look for the bytes under the key that only this upload could write; without them, for a link of the repo."""
        key = staging_key(upload.id) if upload.mode == "staging" else lfs_key(upload.oid, upload.id)
        there = self._there(key) if upload.mode in ("direct", "staging") else None
        if there is None:
            self.confirm(upload.repo_id, upload.oid, upload.size)
            return
        _agree(upload.oid, upload.size, there)
        if upload.mode == "direct":
            settle(self._host, self._store, upload.id, key, Proof(upload.oid, upload.size, "signed"))
        else:
            self._host.arrive(upload.id, key)
            self._told()

    def _there(self, key: str) -> int | None:
        try:
            return self._store.stat(key).size
        except Missing:
            return None


def parse_verify(body: bytes) -> Wanted:
    """Read which object a client wants confirmed. Raises: BadRequest."""
    fields = document(body)
    size = count_of(fields.get("size"), "size")
    if size is None:
        raise BadRequest("`size` must be a whole number.")
    return Wanted(text_of(fields, "oid"), size)


def settle(host: Host, store: ObjectStore, upload_id: str, key: str, proof: Proof) -> None:
    """Link proven bytes; if the store serves them under another key already, drop ours.

    Raises: as `Host.finish`.
    """
    arrival = Arrival(upload_id, key, proof)
    _drop_spare(store, arrival, host.finish(upload_id, key, proof))


def settle_all(host: Host, store: ObjectStore, arrivals: Sequence[Arrival]) -> list[Exception | None]:
    """Do the same for many in one transaction: for each, in order, what `settle` would raise."""
    served = host.finish_all(arrivals)
    for arrival, key in zip(arrivals, served, strict=True):
        if isinstance(key, str):
            _drop_spare(store, arrival, key)
    return [key if isinstance(key, Exception) else None for key in served]


def _drop_spare(store: ObjectStore, arrival: Arrival, served: str) -> None:
    # The key that uploads of the same oid share is never dropped here: another one may be about to rely on it.
    if served != arrival.key == lfs_key(arrival.proof.oid, arrival.upload_id):
        discard(store, arrival.key)


def discard(store: ObjectStore, key: str) -> None:
    """Delete bytes that nobody needs; if the shelf does not let us now, its sweep does it later."""
    try:
        store.delete(key)
    except StoreError as error:
        log.warning("%s was left in the store, for `weightroom gc`: %s", key, error.message)


def held_of(host: Host, grants: Sequence[Grant]) -> list[Held | None]:
    """Return for each grant what is held of its object, after one look per repo."""
    oids: dict[int, list[str]] = {}
    for grant in grants:
        oids.setdefault(grant.repo_id, []).append(grant.oid)
    held = {repo_id: host.look(repo_id, wanted) for repo_id, wanted in oids.items()}
    return [held[grant.repo_id].get(grant.oid) for grant in grants]


def _agree(oid: str, told: int, found: int) -> None:
    if told != found:
        raise SizeConflict(f"{oid} has {found} bytes here, not {told}; the pointer's size is wrong.")


def _key_for(grant: Grant, held: Held | None) -> str:
    """Choose the key of bytes that pass through us.

    Uploads share one unless what lies there may be on its way out, or is damaged: then the new bytes stand alone.
    """
    shared = lfs_key(grant.oid)
    known = held is None or (held.state == "stored" and held.key == shared)
    return shared if known else lfs_key(grant.oid, grant.upload)
