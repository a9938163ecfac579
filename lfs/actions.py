"""The words of a batch answer: what a client should do with one object, with leave for it.

Every href carries its own leave, ours or the bucket's; no client sends a token to them.

Source: git-lfs docs/api/batch.md; huggingface_hub lfs.py, for the shape of an upload in parts.
"""

from __future__ import annotations

from dataclasses import dataclass

from lfs.bodies import Json
from lfs.choices import Policy, part_count, part_length
from lfs.errors import Busy
from lfs.grants import Grant, Grants, Op, brief, lasting
from lfs.host import Held, Leave, Upload, Wanted
from lfs.store import ObjectStore, Signed, lfs_key, staging_key

# Clients ask again when a link is about to end; they are told a minute less than is true.
MARGIN = 60
# Without it git-lfs sniffs a content type of its own, which a signed URL may not allow.
BINARY = {"Content-Type": "application/octet-stream"}
_IN_PARTS: tuple[Op, Op] = ("part", "complete")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: scheme and authority for hrefs, the path by which the repo was named, the client's User-Agent."""

    base: str
    repo: str = ""
    agent: str = ""


@dataclass(frozen=True, slots=True)
class Refused:
    """An object that gets no action: what was sent as oid and size, and why."""

    oid: str
    size: int
    message: str
    code: int = 422

    def shown(self) -> Json:
        """Say it in a batch answer."""
        return {"oid": self.oid, "size": self.size, "error": {"code": self.code, "message": self.message}}


@dataclass(frozen=True, slots=True)
class Referral:
    """Where a client that sends chunks goes: the address that renews its leave, what to put into the action's header,
    and for how many seconds that holds."""

    href: str
    header: dict[str, str]
    seconds: int


class Actions:
    """Writes the actions of one batch: same repo, same actor, same moment."""

    def __init__(self, grants: Grants, store: ObjectStore, policy: Policy, leave: Leave, caller: Caller) -> None:
        self._grants, self._store, self._policy = grants, store, policy
        self._leave, self._caller = leave, caller

    def download(self, wanted: Wanted, held: Held | None) -> Json:
        """Say where to read an object, or why it cannot be read."""
        if held is None or not held.linked or held.state == "deleting":
            return refusal(wanted, 404, "This repo has no such object; push it from a clone that has it.")
        if wanted.size not in (-1, held.size):
            return refusal(wanted, 422, f"This object has {held.size} bytes here; the pointer's size is wrong.")
        if held.state == "damaged":
            return refusal(wanted, 410, "The stored bytes are damaged; push the object again to heal it.")
        sized, seconds = Wanted(wanted.oid, held.size), brief(held.size)
        if self._policy.redirect and (signed := self._store.url(held.key, "GET", seconds, size=held.size)):
            return _shown(sized, download=_action(signed.href, signed.headers, seconds))
        href = f"{self._caller.base}/lfs/o/{sized.oid}?grant={self._grant('get', sized, seconds)}"
        return _shown(sized, download=_action(href, {}, seconds))

    def upload(self, upload: Upload) -> Json:
        """Say where to send an object. Raises: Busy (the shelf signs no longer what it signed a moment ago)."""
        wanted = Wanted(upload.oid, upload.size)
        if upload.state != "open":
            # It came, and is being read back: a commit that names it waits for that.
            return present(wanted)
        if upload.mode == "multipart":
            return _shown(wanted, upload=self._in_parts(upload))
        if upload.mode == "tus":
            return _shown(wanted, upload=self._ours(upload, "tus", f"/lfs/tus/{upload.id}", lasting(upload.size)))
        if upload.mode == "proxy":
            # No `verify`: the link is made while the bytes pass through us.
            return _shown(wanted, upload=self._ours(upload, "put", f"/lfs/o/{upload.oid}", brief(upload.size)))
        seconds = brief(upload.size)
        signed = self._signed(upload, seconds)
        typed = any(name.lower() == "content-type" for name in signed.headers)
        there = _action(signed.href, signed.headers if typed else BINARY | signed.headers, seconds)
        return _shown(wanted, upload=there, verify=self._verify(upload))

    def refer(self, wanted: Wanted, referral: Referral) -> Json:
        """Send a client elsewhere with an object; what it files there by its chunks is an upload from then on."""
        return _shown(wanted, upload=_action(referral.href, referral.header, referral.seconds))

    def _ours(self, upload: Upload, op: Op, path: str, seconds: int) -> Json:
        grant = self._grant(op, Wanted(upload.oid, upload.size), seconds, upload.id)
        return _action(f"{self._caller.base}{path}?grant={grant}", {} if op == "tus" else BINARY, seconds)

    def _verify(self, upload: Upload) -> Json:
        # `authenticated` stops git-lfs from adding a token, so that leave to verify is in the link too; it is used
        # when the transfer has ended, and no client renews it.
        at, seconds = f"/{self._caller.repo}/info/lfs/verify", lasting(upload.size)
        grant = self._grant("verify", Wanted(upload.oid, upload.size), seconds, upload.id)
        return _action(f"{self._caller.base}{at}?grant={grant}", {}, seconds)

    def _signed(self, upload: Upload, seconds: int) -> Signed:
        if upload.mode == "direct":
            key = lfs_key(upload.oid, upload.id)
            signed = self._store.url(key, "PUT", seconds, size=upload.size, sha256=upload.oid)
        else:
            signed = self._store.url(staging_key(upload.id), "PUT", seconds, size=upload.size)
        if signed is None:
            raise Busy("The bucket was found to work in another way a moment ago; ask again.", retry_after=1)
        return signed

    def _in_parts(self, upload: Upload) -> Json:
        """Write the shape that huggingface_hub and its git-lfs agent take: the header has a URL for every part.

        Part numbers have five digits or more, because the agent gets them in the order of text.
        """
        wanted, seconds = Wanted(upload.oid, upload.size), lasting(upload.size)
        part, complete = (self._grant(op, wanted, seconds, upload.id) for op in _IN_PARTS)
        parts = self._store.parts(lfs_key(upload.oid, upload.id), upload.part_size, upload.session)
        header = {"chunk_size": str(upload.part_size)}
        for number in range(1, part_count(upload.size, upload.part_size) + 1):
            length = part_length(upload.size, upload.part_size, number)
            signed = None if self._policy.upload == "proxy" else parts.url(number, length, seconds)
            # Clients send no header with a part: a URL that needs one is not for them.
            past_us = signed.href if signed is not None and not signed.headers else ""
            header[f"{number:05d}"] = past_us or f"{self._caller.base}/lfs/part/{upload.id}/{number}?grant={part}"
        return _action(f"{self._caller.base}/lfs/complete/{upload.id}?grant={complete}", header, seconds)

    def _grant(self, op: Op, wanted: Wanted, seconds: int, upload: str = "") -> str:
        until = self._grants.until(seconds)
        leave = self._leave
        return self._grants.issue(Grant(op, leave.repo_id, wanted.oid, wanted.size, until, leave.actor_id, upload))


def present(wanted: Wanted) -> Json:
    """Say that an object need not be sent: without an `actions` key, since an empty one breaks huggingface_hub."""
    return {"oid": wanted.oid, "size": wanted.size}


def refusal(wanted: Wanted, code: int, message: str) -> Json:
    """Say why an object gets no action."""
    return Refused(wanted.oid, max(wanted.size, 0), message, code).shown()


def _shown(wanted: Wanted, **actions: Json) -> Json:
    return {"oid": wanted.oid, "size": wanted.size, "authenticated": True, "actions": actions}


def _action(href: str, header: dict[str, str], seconds: int) -> Json:
    action: Json = {"href": href, "expires_in": seconds - MARGIN}
    if header:
        action["header"] = header
    return action
