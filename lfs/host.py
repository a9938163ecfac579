"""What the doors ask of whoever hosts them.

Every method is synchronous, thread-safe, and called on worker threads. A host raises the errors of `lfs.errors`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from lfs.errors import Lock

Operation = Literal["read", "write"]
ObjectState = Literal["stored", "condemned", "deleting", "damaged"]
UploadMode = Literal["proxy", "direct", "staging", "multipart", "tus", "xet"]
# open: bytes may come. arrived: they lie whole under the upload's key, not yet proven. done: linked.
UploadState = Literal["open", "arrived", "done", "failed"]
ProofKind = Literal["streamed", "signed", "read-back"]

SMALL = 64 << 20
"""Bytes up to which uploads are proven several at a time, and by threads that larger ones never keep busy."""


@dataclass(frozen=True, slots=True)
class Leave:
    """What one request may do in one repo. `actor_id` and `token_id` are 0 for a reader without an account."""

    repo_id: int
    actor_id: int
    actor_name: str
    may_write: bool
    may_force: bool
    token_id: int = 0


@dataclass(frozen=True, slots=True)
class Held:
    """An object that the store holds: bytes, key, state, and whether *this* repo has a proven link to it."""

    size: int
    key: str
    state: ObjectState
    linked: bool


@dataclass(frozen=True, slots=True)
class Wanted:
    """An object that a client announced: 64 hex digits, bytes."""

    oid: str
    size: int


@dataclass(frozen=True, slots=True)
class Opening:
    """An upload to be opened: what is to come, by which way, and in parts of how many bytes (0: in one piece)."""

    wanted: Wanted
    mode: UploadMode
    part_size: int = 0


@dataclass(frozen=True, slots=True)
class Upload:
    """An upload row.

    `id` is 32 hex digits. `key` says where the bytes lie once they arrived, `session` is the shelf's own name of an
    upload in parts. `reason` says why one `failed`.
    """

    id: str
    repo_id: int
    actor_id: int
    oid: str
    size: int
    mode: UploadMode
    state: UploadState = "open"
    key: str = ""
    session: str = ""
    part_size: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Proof:
    """Why the host may believe that the uploader holds the bytes of `oid`.

    streamed: hashed on their way through us. signed: the bucket enforced the hash. read-back: read again and hashed.
    """

    oid: str
    size: int
    how: ProofKind


@dataclass(frozen=True, slots=True)
class Arrival:
    """Bytes that came whole by an upload, where they lie, and why they may be believed."""

    upload_id: str
    key: str
    proof: Proof


@dataclass(frozen=True, slots=True)
class LockPage:
    """Some locks of a repo, in order of id rows; `cursor` continues, empty at the end."""

    locks: tuple[Lock, ...]
    cursor: str = ""


class Locks(Protocol):
    """The lock rows of the host: unique by (repo, path). A lock holds on every branch; its `ref` is only shown."""

    def create(self, repo_id: int, actor_id: int, path: str, ref: str) -> Lock:
        """Take the lock on a path; atomic. Raises: AlreadyLocked (carries the lock that is held)."""

    def list(self, repo_id: int, *, path: str = "", lock_id: str = "", cursor: str = "", limit: int = 100) -> LockPage:
        """Return a page of locks, narrowed by what is given; pages neither lose nor repeat one that stays."""

    def remove(self, repo_id: int, actor_id: int, lock_id: str, *, force: bool) -> Lock:
        """Give a lock up, or with `force` take it away; returns it. Raises: LockAbsent, NotAllowed (not the owner)."""


class Host(Protocol):
    """The registry, or a memory host in tests."""

    @property
    def locks(self) -> Locks:
        """The lock rows."""

    def enter(self, headers: Mapping[str, str], repo: str, operation: Operation) -> Leave:
        """Decide what this request may do, from the route and the body's operation.

        `headers` have lower-case names; `repo` is the URL path without `.git`: `org/name`, `datasets/org/name`.
        Raises: NeedsLogin, BadToken, RepoAbsent (also for one hidden from this actor), NotAllowed.
        """

    def look(self, repo_id: int, oids: Sequence[str]) -> Mapping[str, Held]:
        """Say what is held of these oids; one query. Refreshes `seen_at` of the links hit, at most daily.

        What only other repos hold, or nobody any more, is among them with `linked` false: its state decides under
        which key new bytes are written (unless it is `stored`: under one of their own). No client learns of it.
        """

    def begin(self, repo_id: int, actor_id: int, openings: Sequence[Opening]) -> Mapping[str, Upload]:
        """Open one upload per object and return `{oid: upload}`; one insert, quota reserved.

        A `tus` upload of the same object, repo, actor and part size that is open still is given again: that is how a
        client resumes. So is an upload of the actor that `arrived` already, if the mode is one that waits for a proof:
        nobody sends twice what is being read back.
        Raises: QuotaExceeded, RepoAbsent.
        """

    def upload(self, upload_id: str) -> Upload:
        """Return an upload. Raises: ObjectAbsent (no such upload, it has expired, or its repo is gone)."""

    def attach(self, sessions: Mapping[str, str]) -> None:
        """Note `{upload id: session}` of uploads in parts; one statement."""

    def arrive(self, upload_id: str, key: str) -> None:
        """Say that the bytes lie whole and durable under `key` and wait for their proof; idempotent.

        From then on the upload does not expire, and a commit that names the object waits for it.
        Raises: ObjectAbsent, QuotaExceeded.
        """

    def arrived(
        self, holder: str, seconds: float, limit: int, *, largest: int | None = None, besides: Collection[int] = ()
    ) -> Sequence[Upload]:
        """Lease arrived uploads that nobody works on, for `seconds`: of the actor who has the oldest, that one first.

        More than one, up to `limit`, only if together they have no more than `SMALL` bytes. None has more than
        `largest`, and none is of an actor in `besides`. `holder` is 32 hex digits. Cheap, however many wait.
        """

    def hold(self, upload_id: str, holder: str, seconds: float) -> bool:
        """Lease an upload, or prolong one's own lease; False if another holder has it."""

    def hold_all(self, upload_ids: Collection[str], holder: str, seconds: float) -> Collection[str]:
        """Do the same for some at once, as many as `arrived` gives; return the ids of those that `holder` has."""

    def release(self, upload_id: str, holder: str) -> None:
        """Give a lease back; nothing happens if it is not `holder`'s."""

    def finish(self, upload_id: str, key: str, proof: Proof) -> str:
        """Make object row and link row, settle usage and close the upload, in one transaction; the only maker of links.

        Idempotent. Returns the key under which the object is served from now on: `key`, unless the store had the
        object already, sound and under another one. The caller may then delete `key`.
        A `condemned`, `deleting` or `damaged` object lives again, under `key`.
        Raises: ObjectAbsent (no such upload, it failed, or its repo is gone), SizeMismatch or DigestMismatch (the
        proof is not of this upload's object), QuotaExceeded.
        """

    def finish_all(self, arrivals: Sequence[Arrival]) -> Sequence[str | Exception]:
        """Do the same for many uploads in one transaction: for each, in order, the key or what `finish` would raise."""

    def fail(self, upload_id: str, reason: str) -> None:
        """Close an upload whose bytes are not the announced ones; one that is done stays so.

        `reason` is shown to whoever commits the object.
        """

    def secret(self, kid: int) -> bytes | None:
        """Return the server secret: 0 is the one that signs, 1 the one before it, None when there is none."""

    def base_url(self, headers: Mapping[str, str], scheme: str = "http") -> str:
        """Return scheme and authority that clients see, without a slash at the end.

        From the setting `PUBLIC_URL`, else from `headers` (Host, and forwarded ones of trusted proxies) and `scheme`.
        """
