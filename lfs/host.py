"""What the doors ask of whoever hosts them.

Every method is synchronous, thread-safe, and called on worker threads. A host raises the errors of `lfs.errors`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from lfs.errors import Lock

Operation = Literal["read", "write"]
ObjectState = Literal["stored", "condemned", "deleting", "damaged"]
UploadMode = Literal["proxy", "direct", "staging", "multipart", "tus"]
ProofKind = Literal["streamed", "signed", "read-back"]


@dataclass(frozen=True, slots=True)
class Leave:
    """What one request may do in one repo. `actor_id` is 0 for a reader without an account."""

    repo_id: int
    actor_id: int
    actor_name: str
    may_write: bool
    may_force: bool


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
class Proof:
    """Why the host may believe that the uploader holds the bytes of `oid`.

    streamed: hashed on their way through us. signed: the bucket enforced the hash. read-back: read again and hashed.
    """

    oid: str
    size: int
    how: ProofKind


@dataclass(frozen=True, slots=True)
class LockPage:
    """Some locks of a repo, in order of id rows; `cursor` continues, empty at the end."""

    locks: tuple[Lock, ...]
    cursor: str = ""


class Locks(Protocol):
    """The lock rows of the host: unique by (repo, path)."""

    def create(self, repo_id: int, actor_id: int, path: str, ref: str) -> Lock:
        """Take the lock on a path; atomic. Raises: AlreadyLocked (carries the lock that is held)."""

    def list(
        self, repo_id: int, *, path: str = "", lock_id: str = "", ref: str = "", cursor: str = "", limit: int = 100
    ) -> LockPage:
        """Return a page of locks, narrowed by what is given; pages neither lose nor repeat one that stays."""

    def verify(self, repo_id: int, *, ref: str = "", cursor: str = "", limit: int = 100) -> LockPage:
        """Return a page of the locks that a push to `ref` has to respect; the door splits them by owner."""

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
        which key new bytes may be written (`damaged`: not under that one, `deleting`: not now). No client learns of it.
        """

    def begin(
        self, repo_id: int, actor_id: int, objects: Sequence[Wanted], mode: UploadMode = "proxy"
    ) -> Mapping[str, str]:
        """Open one upload per object and return `{oid: upload id}` (32 hex digits); one insert, quota reserved.

        Raises: QuotaExceeded, RepoAbsent.
        """

    def finish(self, upload_id: str, key: str, proof: Proof) -> None:
        """Make object row and link row, settle usage and close the upload, in one transaction; the only maker of links.

        Idempotent. A `condemned` object lives again. A `damaged` one, or one with another key, takes this key.
        Raises: ObjectAbsent (no such upload, or its repo is gone), SizeMismatch or DigestMismatch (the proof is not
        of this upload's object), QuotaExceeded.
        """

    def secret(self, kid: int) -> bytes | None:
        """Return the server secret: 0 is the one that signs, 1 the one before it, None when there is none."""

    def base_url(self, headers: Mapping[str, str], scheme: str = "http") -> str:
        """Return scheme and authority that clients see, without a slash at the end.

        From the setting `PUBLIC_URL`, else from `headers` (Host, and forwarded ones of trusted proxies) and `scheme`.
        """
