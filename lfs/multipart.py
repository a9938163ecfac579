"""Objects that come in parts, in the shape of Hugging Face: PUT each part, then POST the list of them.

    POST {"oid": …, "parts": [{"partNumber": 1, "etag": …}, …]}    all parts, in order, each tag as its PUT answered it

Parts go past us to a bucket or through us to the shelf. What they make together lies under a key of the upload's own,
and nobody is shown it until it was read back and hashed. The git agent of huggingface_hub repeats neither a part nor
the completion, so that both must work the first time: load is never shed here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from lfs.bodies import document, text_of
from lfs.choices import part_count, part_length
from lfs.errors import BadRequest, Busy, DigestMismatch, Missing, ObjectAbsent, SizeMismatch
from lfs.grants import Grant
from lfs.host import Host, Upload
from lfs.store import ObjectStore, Part, Parts, lfs_key

T = TypeVar("T")

# Between two tries, in seconds, while the host is busy.
_PAUSE = 0.25

# What a client says of one part: its number and the tag that its PUT was answered with.
Told = tuple[int, str]


class Multipart:
    """Takes parts and joins them. Synchronous; `told` is called when bytes wait for their proof.

    A host that is busy is asked again for `patience` seconds.
    """

    def __init__(self, *, host: Host, store: ObjectStore, told: Callable[[], None], patience: float = 20.0) -> None:
        self._host, self._store, self._told, self._patience = host, store, told, patience

    def expected(self, grant: Grant, number: int) -> Upload:
        """Return the upload to which part `number` may be sent now.

        Raises: BadRequest (it has no such part), ObjectAbsent (the upload is gone, or was completed).
        """
        upload = self._upload(grant)
        if upload.state != "open":
            raise ObjectAbsent("This upload takes no parts any more; ask for a new batch.", oids=[upload.oid])
        if not length_of(upload, number):
            count = part_count(upload.size, upload.part_size)
            raise BadRequest(f"There is no part {number}; this upload has parts 1 to {count}.")
        return upload

    def take(self, upload: Upload, number: int, source: Iterable[bytes]) -> str:
        """Keep one part and return its ETag; durable at return, repeating a part replaces it.

        Raises: SizeMismatch, ObjectAbsent (the upload was given up meanwhile), NoSpace, Denied, Unavailable.
        """
        try:
            tag = self._parts(upload).put(number, source, length_of(upload, number))
        except Missing as error:
            raise ObjectAbsent("This upload was given up; ask for a new batch.", oids=[upload.oid]) from error
        return tag if tag.startswith('"') else f'"{tag}"'

    def complete(self, grant: Grant, body: bytes) -> None:
        """Join the parts that the body lists; at return they lie whole and wait for their proof. Repeatable.

        Raises: BadRequest, SizeMismatch, DigestMismatch (an earlier completion brought other bytes), ObjectAbsent,
        QuotaExceeded, Unavailable.
        """
        told = parse(body, grant.oid)
        upload = self._upload(grant)
        if upload.state == "failed":
            raise DigestMismatch(upload.reason or "The parts did not make this object; ask for a new batch.")
        if upload.state == "open":
            _check_numbers([number for number, _ in told], part_count(upload.size, upload.part_size))
            self._join(upload, told)
            self._patiently(lambda: self._host.arrive(upload.id, _key_of(upload)))
        self._told()

    def _join(self, upload: Upload, told: Sequence[Told]) -> None:
        parts = self._parts(upload)
        sent = parts.sent()
        # A completion whose answer was lost: the parts are gone, the whole is there.
        if not sent and self._whole(upload):
            return
        listed = _agreed(upload, told, sent)
        try:
            parts.finish(listed)
        except Missing as error:
            raise BadRequest(f"The store does not have all parts: {error.message} Send them again.") from error

    def _whole(self, upload: Upload) -> bool:
        try:
            return self._store.stat(_key_of(upload)).size == upload.size
        except Missing:
            return False

    def _upload(self, grant: Grant) -> Upload:
        upload = self._patiently(lambda: self._host.upload(grant.upload))
        if upload.mode != "multipart" or upload.oid != grant.oid:
            raise ObjectAbsent("This upload does not come in parts; ask for a new batch.", oids=[grant.oid])
        return upload

    def _patiently(self, ask: Callable[[], T]) -> T:
        until = time.monotonic() + self._patience
        while True:
            try:
                return ask()
            except Busy:
                if time.monotonic() >= until:
                    raise
            time.sleep(_PAUSE)

    def _parts(self, upload: Upload) -> Parts:
        return self._store.parts(_key_of(upload), upload.part_size, upload.session)


def parse(body: bytes, oid: str) -> tuple[Told, ...]:
    """Read a completion of this object. Raises: BadRequest."""
    fields = document(body)
    if text_of(fields, "oid") != oid:
        raise BadRequest("`oid` is not the object that this link was made for.")
    parts = fields.get("parts")
    if not isinstance(parts, list):
        raise BadRequest("`parts` must be a list of {partNumber, etag}.")
    return tuple(_part(each) for each in parts)


def length_of(upload: Upload, number: int) -> int:
    """Return the bytes of a part of an upload, 0 if it has no such part."""
    return part_length(upload.size, upload.part_size, number)


def _part(each: object) -> Told:
    fields: Mapping[str, object] = each if isinstance(each, dict) else {}
    number = fields.get("partNumber")
    if type(number) is not int or number < 1:
        raise BadRequest("Each of `parts` needs a `partNumber`, counted from 1.")
    if not (etag := text_of(fields, "etag")):
        raise BadRequest(f"Part {number} has no `etag`; take it from the answer to its PUT.")
    return number, etag


def _check_numbers(numbers: Sequence[int], count: int) -> None:
    """Insist on every part once and in order. Raises: BadRequest."""
    if list(numbers) == list(range(1, count + 1)):
        return
    if missing := sorted(set(range(1, count + 1)) - set(numbers)):
        raise BadRequest(f"{len(missing)} of {count} parts are not listed, the first is part {missing[0]}.")
    if len(numbers) > count:
        raise BadRequest(f"This upload has {count} parts, {len(numbers)} are listed; list each of them once.")
    raise BadRequest("The parts must be listed in the order of their numbers.")


def _agreed(upload: Upload, told: Sequence[Told], sent: Mapping[int, Part]) -> list[Told]:
    """Return the list as the shelf knows it: with its own tags. Raises: BadRequest, SizeMismatch."""
    if missing := [number for number, _ in told if number not in sent]:
        raise BadRequest(f"{len(missing)} parts have not arrived, the first is part {missing[0]}; send them.")
    for number, etag in told:
        length = length_of(upload, number)
        if sent[number].size != length:
            raise SizeMismatch(f"Part {number} has {sent[number].size} bytes, not {length}; send it again.")
        if _bare(sent[number].tag) != _bare(etag):
            raise BadRequest(f"Part {number} came with another etag last; take the one of its last PUT.")
    return [(number, sent[number].tag) for number, _ in told]


def _bare(etag: str) -> str:
    return etag.strip().removeprefix("W/").strip('"')


def _key_of(upload: Upload) -> str:
    return lfs_key(upload.oid, upload.id)
