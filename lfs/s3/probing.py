"""Find out what a bucket enforces, by trying.

Vendors, versions and proxies differ, and some accept silently what they do not know. So every rule that security
rests on is broken once on purpose, with small objects of our own; a bucket that lets one pass is not relied on.

    signature, length, expiry   must hold before a digest counts
    content_sha256              a signed x-amz-content-sha256 is held against the body
    checksum_sha256             a signed x-amz-checksum-sha256 is held against the body
"""

from __future__ import annotations

import hashlib
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import get_args

from lfs.errors import Damaged, LfsError, Missing, StoreError, Unavailable
from lfs.presign import Address
from lfs.s3.bucket import Answer, Bucket, told
from lfs.s3.leaves import OCTETS, Leaves, digest_headers
from lfs.store import Enforced, ObjectStore, Probe, Span

RIGHT, WRONG = b"what was signed\n", b"something other\n"
SECONDS = 300


@dataclass(frozen=True, slots=True)
class Trial:
    """A PUT that was signed for `RIGHT`: what is sent instead, and whether a sound bucket keeps it."""

    rule: str
    kept: bool = False
    body: bytes = RIGHT
    change: Callable[[dict[str, str]], dict[str, str]] = dict
    age: float = 0.0
    tampered: bool = False


# Without these nothing that is signed means anything.
GROUND = (
    Trial("signed PUT", kept=True),
    Trial("tampered signature", tampered=True),
    Trial("expired", age=2.0 * SECONDS),
    Trial("longer body", body=RIGHT + b"more"),
    Trial("shorter body", body=RIGHT[:-1]),
)


class Prober:
    """Tries one bucket, under keys of its own that are gone afterwards."""

    def __init__(self, store: ObjectStore, bucket: Bucket, leaves: Leaves) -> None:
        self._store, self._bucket, self._leaves = store, bucket, leaves
        # Ours, not the public address: who asks from inside may not reach that one.
        place = bucket.place
        self._address = Address.of(bucket.endpoint, place.bucket, virtual=place.style == "virtual")
        self._key = f"staging/probe-{uuid.uuid4().hex}"
        self._details: dict[str, str] = {}

    def probe(self) -> Probe:
        """Try everything; the detail `verdict` says in a sentence what it comes to.

        Raises: Denied (our own keys are refused), Unavailable.
        """
        try:
            self._store.put(self._key, RIGHT, len(RIGHT))
            self._facts()
            self._store.delete(self._key)
            sound = self._all_hold("", {}, GROUND)
            found = [way for way in get_args(Enforced) if way != "none" and self._holds(way)]
        finally:
            with suppress(LfsError):
                self._store.delete(self._key)
        enforces: Enforced = found[0] if sound and found else "none"
        return Probe(enforces, {"verdict": _verdict(enforces, sound=sound), **self._details})

    def _holds(self, way: Enforced) -> bool:
        right, wrong = (digest_headers(way, hashlib.sha256(body).hexdigest()) for body in (RIGHT, WRONG))
        trials = [
            Trial("right body", kept=True),
            Trial("wrong body", body=WRONG),
            Trial("header dropped", body=WRONG, change=lambda sent: _without(sent, right)),
            Trial("header changed", body=WRONG, change=lambda sent: {**sent, **wrong}),
        ]
        if way == "content_sha256":
            unsigned = dict.fromkeys(right, "UNSIGNED-PAYLOAD")
            trials.append(Trial("header unsigned", body=WRONG, change=lambda sent: {**sent, **unsigned}))
        return self._all_hold(f"{way}: ", right, trials)

    def _all_hold(self, name: str, digest: Mapping[str, str], trials: Iterable[Trial]) -> bool:
        """Run trials, note each answer, and say whether all were answered as by a sound bucket."""
        sound = True
        for trial in trials:
            status, kept = self._put(trial, {"content-type": OCTETS, **digest})
            self._details[f"{name}{trial.rule}"] = f"{'kept' if kept else 'refused'} ({status})"
            sound = sound and kept == trial.kept
        return sound

    def _put(self, trial: Trial, headers: dict[str, str]) -> tuple[int, bool]:
        """Send a trial, and look whether anything came of it: a status alone proves nothing."""
        href = self._leaves.signer.url(
            "PUT",
            self._address,
            self._bucket.prefix + self._key,
            seconds=SECONDS,
            headers={**headers, "content-length": str(len(RIGHT))},
            at=time.time() - trial.age,
        )
        answer = self._fetch("PUT", _tampered(href) if trial.tampered else href, trial.change(headers), trial.body)
        try:
            self._store.stat(self._key)
        except Missing:
            return answer.status, False
        self._store.delete(self._key)
        return answer.status, True

    def _facts(self) -> None:
        """Note what else people want to know of a bucket, while the object is there."""
        answer = self._get(self._address)
        self._details["signed GET"] = f"{'sent' if answer.body == RIGHT else 'refused'} ({answer.status})"
        with suppress(KeyError, ValueError):
            skew = parsedate_to_datetime(answer.headers["date"]).timestamp() - time.time()
            self._details["clock"] = f"{skew:+.0f} s"
        if self._leaves.address != self._address:
            try:
                self._details["public address"] = f"answers ({self._get(self._leaves.address).status})"
            except Unavailable as error:
                self._details["public address"] = f"not reached from here: {error.message}"
        with self._noted("range"), self._store.open(self._key, Span(5, 8)) as reader:
            self._details["range"] = "exact" if reader.read_all() == RIGHT[5:8] else "wrong bytes"
        with self._noted("multipart"):
            self._details["multipart"] = self._multipart()
        self._details["If-None-Match"] = self._condition()

    def _get(self, address: Address) -> Answer:
        key = self._bucket.prefix + self._key
        return self._fetch("GET", self._leaves.signer.url("GET", address, key, seconds=SECONDS), {}, b"")

    def _multipart(self) -> str:
        parts = self._store.parts(f"{self._key}.parts", len(RIGHT))
        try:
            parts.begin()
            joined = parts.finish([(1, parts.put(1, RIGHT, len(RIGHT)))])
        finally:
            parts.abort()
            self._store.delete(f"{self._key}.parts")
        return "joined" if joined.size == len(RIGHT) else "wrong size"

    def _condition(self) -> str:
        try:
            with told(self._key):
                self._bucket.client.put_object(**self._bucket.at(self._key), Body=RIGHT, IfNoneMatch="*")
        except Damaged:
            return "honoured"
        except StoreError as error:
            return f"refused: {error.message}"
        return "ignored"

    @contextmanager
    def _noted(self, name: str) -> Iterator[None]:
        try:
            yield
        except StoreError as error:
            self._details[name] = f"failed: {error.message}"

    def _fetch(self, method: str, href: str, headers: dict[str, str], body: bytes) -> Answer:
        answer = self._bucket.fetch(method, href, headers, body)
        if answer.status >= 500 and answer.status != 501:
            raise Unavailable(f"The bucket failed while it was tried ({answer.status}); try again.")
        return answer


def _verdict(enforces: Enforced, *, sound: bool) -> str:
    if not sound:
        return "not safe: the bucket does not hold clients to what was signed, so nothing may be left to it"
    if enforces == "none":
        return "signatures hold, but no digest does: uploads come through the server or are read back"
    return f"signatures hold, and so does a digest ({enforces}): clients may upload to the bucket"


def _without(headers: Mapping[str, str], dropped: Iterable[str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name not in dropped}


def _tampered(href: str) -> str:
    """Change the last digit of the signature."""
    return href[:-1] + ("1" if href[-1] == "0" else "0")
