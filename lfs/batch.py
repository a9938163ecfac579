"""Objects → actions: what a client should move, and where.

The answer comes from the host's rows, with one query; no shelf is asked. An object is "stored" only by a link of this
repo: bytes that other repos hold are uploaded again, so that knowing an oid opens nothing.

Source: git-lfs docs/api/batch.md; huggingface_hub lfs.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from lfs.bodies import Json, document, ref_of
from lfs.errors import BadRequest, HashUnsupported, TooLarge
from lfs.grants import Grant, Grants, Op, brief
from lfs.host import Held, Host, Leave, Operation, Wanted

MAX_OBJECTS = 10_000
MAX_SIZE = (1 << 63) - 1
# Clients ask again when a link is about to end; they are told a minute less than is true.
MARGIN = 60

_OID = re.compile(r"[0-9a-f]{64}")
_SERVED = ("stored", "condemned")


@dataclass(frozen=True, slots=True)
class Refused:
    """An object of the request that has no shape: what was sent as oid and size, and why it is refused."""

    oid: str
    size: int
    message: str


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
    """Answers batch requests; `max_file` bounds one object in bytes, None does not."""

    def __init__(self, *, host: Host, grants: Grants, max_file: int | None = None) -> None:
        self._host, self._grants, self._max_file = host, grants, max_file

    def answer(self, request: Request, leave: Leave, base: str) -> Json:
        """Plan a batch; `base` is scheme and authority for hrefs. Raises: QuotaExceeded, RepoAbsent."""
        wanted = request.wanted
        held = self._host.look(leave.repo_id, list(wanted))
        plan = _Plan(self._grants, leave, f"{base}/lfs/o")
        if request.operation == "read":
            answers = {oid: plan.download(each, held.get(oid)) for oid, each in wanted.items()}
        else:
            answers = self._uploads(plan, leave, wanted, held)
        objects = [_refusal(each) if isinstance(each, Refused) else answers[each.oid] for each in request.objects]
        return {"transfer": "basic", "objects": objects, "hash_algo": "sha256"}

    def _uploads(
        self, plan: _Plan, leave: Leave, wanted: Mapping[str, Wanted], held: Mapping[str, Held]
    ) -> dict[str, Json]:
        answers = {oid: self._settled(each, held.get(oid)) for oid, each in wanted.items()}
        missing = [wanted[oid] for oid, settled in answers.items() if settled is None]
        opened = self._host.begin(leave.repo_id, leave.actor_id, missing) if missing else {}
        return {
            oid: plan.upload(wanted[oid], opened[oid]) if settled is None else settled
            for oid, settled in answers.items()
        }

    def _settled(self, wanted: Wanted, held: Held | None) -> Json | None:
        """Return the answer for an object that needs no upload, None for one that does."""
        if self._max_file is not None and wanted.size > self._max_file:
            return _error(wanted, 413, f"The file is larger than this server takes: {self._max_file} bytes (MAX_FILE).")
        if held is None or not held.linked:
            return None
        if held.size != wanted.size:
            return _error(wanted, 422, f"This object has {held.size} bytes here; the pointer's size is wrong.")
        # No `actions` key at all: an empty map breaks huggingface_hub.
        return {"oid": wanted.oid, "size": wanted.size} if held.state in _SERVED else None


class _Plan:
    """Writes the actions of one batch: same repo, same actor, same moment."""

    def __init__(self, grants: Grants, leave: Leave, href: str) -> None:
        self._grants, self._leave, self._href = grants, leave, href

    def download(self, wanted: Wanted, held: Held | None) -> Json:
        if held is None or not held.linked or held.state == "deleting":
            return _error(wanted, 404, "This repo has no such object; push it from a clone that has it.")
        if wanted.size not in (-1, held.size):
            return _error(wanted, 422, f"This object has {held.size} bytes here; the pointer's size is wrong.")
        if held.state == "damaged":
            return _error(wanted, 410, "The stored bytes are damaged; push the object again to heal it.")
        return self._action("download", "get", Wanted(wanted.oid, held.size), "", {})

    def upload(self, wanted: Wanted, upload: str) -> Json:
        # Without this header git-lfs sniffs a content type of its own. No `verify`: the bytes pass through us.
        return self._action("upload", "put", wanted, upload, {"Content-Type": "application/octet-stream"})

    def _action(self, name: str, op: Op, wanted: Wanted, upload: str, header: dict[str, str]) -> Json:
        seconds = brief(wanted.size)
        repo, actor = self._leave.repo_id, self._leave.actor_id
        until = self._grants.until(seconds)
        grant = self._grants.issue(Grant(op, repo, wanted.oid, wanted.size, until, actor, upload))
        action: Json = {"href": f"{self._href}/{wanted.oid}?grant={grant}", "expires_in": seconds - MARGIN}
        if header:
            action["header"] = header
        return {"oid": wanted.oid, "size": wanted.size, "authenticated": True, "actions": {name: action}}


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


def _error(wanted: Wanted, code: int, message: str) -> Json:
    return _refusal(Refused(wanted.oid, max(wanted.size, 0), message), code)


def _refusal(refused: Refused, code: int = 422) -> Json:
    return {"oid": refused.oid, "size": refused.size, "error": {"code": code, "message": refused.message}}
