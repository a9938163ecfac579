"""Objects → actions: what a client should move, and where.

The answer comes from the host's rows, with one query; no shelf is asked but to open uploads in parts. An object is
"stored" only by a link of this repo: bytes that other repos hold are uploaded again, so that knowing an oid opens
nothing.

Source: git-lfs docs/api/batch.md; huggingface_hub lfs.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from lfs.actions import MARGIN, Actions, Caller, Referral, Refused, present, refusal
from lfs.bodies import Json, document, ref_of
from lfs.choices import Choice, Policy, Reach, Transfer, choose
from lfs.errors import BadRequest, HashUnsupported, TooLarge
from lfs.grants import Grants
from lfs.host import Held, Host, Leave, Opening, Operation, Upload, Wanted
from lfs.store import ObjectStore, lfs_key, staging_key

POLICY = Policy()
MAX_OBJECTS = 10_000
MAX_SIZE = (1 << 63) - 1
# A bucket is asked to open this many uploads in parts at a time.
_BEGINNERS = 8

Refer = Callable[[Leave, Caller, str], Referral]
"""Given who asks and the ref that they named: where clients send the chunks of an object."""

_OID = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Request:
    """A batch that a client asks for. `size` of a wanted object is -1 if a download did not tell one."""

    operation: Operation
    objects: tuple[Wanted | Refused, ...]
    transfers: tuple[str, ...]
    ref: str

    @property
    def wanted(self) -> dict[str, Wanted]:
        """The objects that have a shape, each oid once."""
        return {each.oid: each for each in self.objects if isinstance(each, Wanted)}


def parse(body: bytes) -> Request:
    """Read a batch request; one misshapen object does not spoil the others.

    Raises: BadRequest, HashUnsupported, TooLarge (more than 10,000 objects: clients do not split).
    """
    fields = document(body)
    operation = fields.get("operation")
    if operation not in ("upload", "download"):
        raise BadRequest("`operation` must be upload or download.")
    if (fields.get("hash_algo") or "sha256") not in ("sha256", "sha_256"):
        raise HashUnsupported("This server stores objects by sha256 only; leave `hash_algo` out.")
    objects = fields.get("objects")
    if not isinstance(objects, list) or not objects:
        raise BadRequest("`objects` must be a list of at least one {oid, size}.")
    if len(objects) > MAX_OBJECTS:
        raise TooLarge(f"{len(objects)} objects in one batch; send at most {MAX_OBJECTS} (MAX_OBJECTS).")
    upload = operation == "upload"
    parsed = tuple(_object(each, sized=upload) for each in objects)
    return Request("write" if upload else "read", parsed, _transfers(fields), ref_of(fields))


class Batch:
    """Answers batch requests; `refer` is for hosts that take chunks by Xet."""

    def __init__(
        self,
        *,
        host: Host,
        store: ObjectStore,
        grants: Grants,
        policy: Policy = POLICY,
        refer: Refer | None = None,
    ) -> None:
        self._host, self._store, self._grants, self._policy, self._refer = host, store, grants, policy, refer

    def answer(self, request: Request, leave: Leave, caller: Caller) -> Json:
        """Plan a batch. Raises: QuotaExceeded, RepoAbsent, TooLarge, NoSpace, Busy, Unavailable."""
        wanted = request.wanted
        held = self._host.look(leave.repo_id, list(wanted))
        actions = Actions(self._grants, self._store, self._policy, leave, caller)
        transfer: Transfer = "basic"
        if request.operation == "read":
            answers = {oid: actions.download(each, held.get(oid)) for oid, each in wanted.items()}
        else:
            answers = {oid: settled for oid, each in wanted.items() if (settled := self._settled(each, held.get(oid)))}
            missing = [each for oid, each in wanted.items() if oid not in answers]
            if missing:
                choice = self._choice(missing, request, caller)
                transfer = choice.transfer
                if self._refer is not None and transfer == "xet":
                    referral = self._refer(leave, caller, request.ref)
                    answers |= {each.oid: actions.refer(each, referral) for each in missing}
                else:
                    opened = self._opened(leave, choice.openings)
                    answers |= {oid: actions.upload(upload) for oid, upload in opened.items()}
        objects = [each.shown() if isinstance(each, Refused) else answers[each.oid] for each in request.objects]
        return {"transfer": transfer, "objects": objects, "hash_algo": "sha256"}

    def _choice(self, missing: Sequence[Wanted], request: Request, caller: Caller) -> Choice:
        xet = self._refer is not None
        return choose(missing, request.transfers, caller.agent, self._policy, self._reach(), xet=xet)

    def _settled(self, wanted: Wanted, held: Held | None) -> Json | None:
        """Return the answer for an object that needs no upload, None for one that does."""
        largest = self._policy.max_file
        if largest is not None and wanted.size > largest:
            return refusal(wanted, 413, f"The file is larger than this server takes: {largest} bytes (MAX_FILE).")
        if held is None or not held.linked:
            return None
        if held.size != wanted.size:
            return refusal(wanted, 422, f"This object has {held.size} bytes here; the pointer's size is wrong.")
        return present(wanted) if held.state == "stored" else None

    def _opened(self, leave: Leave, openings: Sequence[Opening]) -> Mapping[str, Upload]:
        """Open rows, and on the shelf what goes there in parts; the sessions are noted in one statement."""
        opened = self._host.begin(leave.repo_id, leave.actor_id, openings)
        parted = [each for each in opened.values() if each.mode == "multipart" and each.state == "open"]
        if not parted:
            return opened
        with ThreadPoolExecutor(min(len(parted), _BEGINNERS)) as pool:
            begun = list(pool.map(self._begun, parted))
        sessions = {each.id: each.session for each in begun if each.session}
        if sessions:
            self._host.attach(sessions)
        return {**opened, **{each.oid: each for each in begun}}

    def _begun(self, upload: Upload) -> Upload:
        parts = self._store.parts(lfs_key(upload.oid, upload.id), upload.part_size, upload.session)
        return replace(upload, session=parts.begin())

    def _reach(self) -> Reach:
        """Find out what the shelf signs, on a key that nobody has; it is asked nothing."""
        if self._policy.upload == "proxy":
            return Reach()
        nobody = "0" * 32
        bound = self._store.url(lfs_key("0" * 64, nobody), "PUT", MARGIN, size=1, sha256="0" * 64)
        sized = self._store.url(staging_key(nobody), "PUT", MARGIN, size=1)
        needed = {name.lower() for name in sized.headers} if sized else set()
        return Reach(bound is not None, sized is not None, sized is not None and needed <= {"content-length"})


def _object(each: object, *, sized: bool) -> Wanted | Refused:
    fields = each if isinstance(each, dict) else {}
    oid, size = fields.get("oid"), _size(fields.get("size"))
    if not isinstance(oid, str) or not _OID.fullmatch(oid):
        return Refused(_short(oid), max(size, 0), "`oid` must be 64 lower-case hex digits.")
    if size < 0 and (sized or fields.get("size") is not None):
        return Refused(oid, 0, "`size` must be a whole number of bytes from 0 to 2^63-1.")
    return Wanted(oid, size)


def _size(size: object) -> int:
    # A bool is an int to Python, and no size.
    return size if type(size) is int and 0 <= size <= MAX_SIZE else -1


def _short(oid: object) -> str:
    return oid[:80] if isinstance(oid, str) else ""


def _transfers(fields: Json) -> tuple[str, ...]:
    transfers = fields.get("transfers") or []
    if not isinstance(transfers, list) or not all(isinstance(each, str) for each in transfers):
        raise BadRequest("`transfers` must be a list of names.")
    return tuple(transfers)
