"""What may go wrong with bytes, and with asking for them, in our words.

LfsError
├── StoreError
│   ├── Missing             nothing lies under this key
│   ├── Mismatch            bytes are not what they were announced as
│   │   ├── DigestMismatch  another SHA-256
│   │   └── SizeMismatch    another length
│   │       └── SizeConflict   what is stored has another length than the caller claims
│   ├── NoSpace             the shelf is full, or would fall under its floor
│   ├── Denied              the shelf refuses our own credentials or rights
│   ├── Damaged             stored bytes fail their own check; an operator must act
│   └── Unavailable         the shelf does not answer now; the same call may work later
├── BadStorage              a storage URL that names no shelf
├── NeedsLogin              no credentials were sent and the act needs some
├── BadToken                credentials were sent and are not valid
├── RepoAbsent              no such repo, or none that this actor may see
├── NotAllowed              the actor sees the repo and may not do this
├── GrantInvalid            a signed leave is forged, for something else, or too old
├── ObjectAbsent            the repo has no link to this object
├── BadRequest              the request does not have the shape that this route takes
│   ├── BadKey              a key that no room of ours makes
│   ├── NotAcceptable       the caller takes no media type that we write
│   ├── WrongType           the body is announced as a media type or encoding that is not read here
│   ├── WrongVerb           this address takes other verbs
│   ├── Interrupted         the client left before the end of its body
│   ├── OffsetConflict      an upload goes on at another byte than the caller says
│   ├── WrongVersion        a version of a protocol that is not spoken here
│   └── HashUnsupported     an object hash that is not SHA-256
├── BadXet                  bytes or names of the Xet protocol that are not what they should be
├── TooLarge                a limit of ours; names itself and its setting
├── QuotaExceeded           the repo's or owner's allowance is used up
├── RateLimited             too many requests; carries seconds to wait
│   └── Busy                not now; carries seconds to wait
├── RangeUnsatisfiable      a byte range that the object does not have
├── AlreadyLocked           someone holds the lock; carries it
├── LockAbsent              no such lock
└── HeavyError              work in a child process did not finish
    ├── HeavyTimeout        it was killed at its deadline
    ├── HeavyOutOfMemory    it passed its memory cap
    └── HeavyCrashed        it died, or its answer could not be carried

No HTTP here: `problems` renders each class in the dialect of Git LFS, a host may bring its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime


class LfsError(Exception):
    """A failure that a caller can cause or must hear of; `message` says what to do next, `code` is stable."""

    code = "error"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class StoreError(LfsError):
    """A shelf could not do what it was asked."""

    code = "store_error"


class Missing(StoreError):
    """Nothing lies under this key."""

    code = "missing"


class Mismatch(StoreError):
    """Bytes are not what they were announced as; nothing of them was kept."""

    code = "mismatch"


class DigestMismatch(Mismatch):
    """Bytes have another SHA-256 than announced."""

    code = "digest_mismatch"


class SizeMismatch(Mismatch):
    """Bytes have another length than announced."""

    code = "size_mismatch"


class SizeConflict(SizeMismatch):
    """What is stored has another length than the caller claims."""

    code = "size_conflict"


class NoSpace(StoreError):
    """The shelf is full, or the write would leave it under its floor of free bytes."""

    code = "no_space"


class Denied(StoreError):
    """The shelf refuses our own credentials or file rights; an operator must look at the settings."""

    code = "denied"


class Damaged(StoreError):
    """Stored bytes fail their own check; an operator must run `weightroom fsck`."""

    code = "damaged"


class Unavailable(StoreError):
    """The shelf does not answer now; the same call may work later."""

    code = "unavailable"


class BadStorage(LfsError):
    """A storage URL that names no shelf; the operator's to correct."""

    code = "bad_storage"


class NeedsLogin(LfsError):
    """No credentials were sent and the act needs some."""

    code = "needs_login"


class BadToken(LfsError):
    """Credentials were sent and are unknown, revoked or expired."""

    code = "bad_token"


class RepoAbsent(LfsError):
    """No such repo, or none that this actor may see: the two are not told apart."""

    code = "repo_absent"


class NotAllowed(LfsError):
    """The actor sees the repo and may not do this to it."""

    code = "not_allowed"


class GrantInvalid(LfsError):
    """A signed leave is forged, made for something else, or too old; a new batch brings a new one."""

    code = "grant_invalid"


class ObjectAbsent(LfsError):
    """The repo has no link to these objects, whatever other repos hold."""

    code = "object_absent"

    def __init__(self, message: str, *, oids: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.oids = tuple(oids)


class BadRequest(LfsError):
    """The request does not have the shape that this route takes."""

    code = "bad_request"


class BadKey(BadRequest):
    """A key that no room of ours makes."""

    code = "bad_key"


class NotAcceptable(BadRequest):
    """The caller takes no media type that we write."""

    code = "not_acceptable"


class WrongType(BadRequest):
    """The body is announced as a media type or encoding that this route does not read."""

    code = "wrong_type"


class WrongVerb(BadRequest):
    """This address takes other verbs, given in `allowed`."""

    code = "wrong_verb"

    def __init__(self, message: str, *, allowed: Sequence[str]) -> None:
        super().__init__(message)
        self.allowed = tuple(allowed)


class Interrupted(BadRequest):
    """The client left before the end of its body; nothing of it was kept."""

    code = "interrupted"


class OffsetConflict(BadRequest):
    """An upload goes on at another byte than the caller says; the message has the right one."""

    code = "offset_conflict"


class WrongVersion(BadRequest):
    """A version of a protocol that is not spoken here; the message names the one that is."""

    code = "wrong_version"


class HashUnsupported(BadRequest):
    """An object hash that is not SHA-256."""

    code = "hash_unsupported"


class BadXet(LfsError):
    """Bytes or names of the Xet protocol that are not what they should be; nothing of them was kept."""

    code = "bad_xet"


class TooLarge(LfsError):
    """A limit of ours was passed; the message names the limit and its setting."""

    code = "too_large"


class QuotaExceeded(LfsError):
    """The repo's or owner's allowance is used up; the message has the numbers."""

    code = "quota_exceeded"


class RateLimited(LfsError):
    """Too many requests; `retry_after` is in seconds."""

    code = "rate_limited"

    def __init__(self, message: str, *, retry_after: int = 5) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Busy(RateLimited):
    """Not now, for a reason that passes; `retry_after` is in seconds."""

    code = "busy"


class RangeUnsatisfiable(LfsError):
    """A byte range that the object does not have; `size` is its whole length."""

    code = "range_unsatisfiable"

    def __init__(self, message: str, *, size: int) -> None:
        super().__init__(message)
        self.size = size


@dataclass(frozen=True, slots=True)
class Lock:
    """One path that one account keeps to itself; `id` is 32 hex digits without dashes."""

    id: str
    path: str
    owner_id: int
    owner: str
    locked_at: datetime
    ref: str = ""


class AlreadyLocked(LfsError):
    """Someone holds the lock on this path; `lock` is theirs."""

    code = "already_locked"

    def __init__(self, message: str, *, lock: Lock) -> None:
        super().__init__(message)
        self.lock = lock


class LockAbsent(LfsError):
    """The repo has no lock with this id."""

    code = "lock_absent"


class HeavyError(LfsError):
    """Work in a child process did not finish."""

    code = "heavy"


class HeavyTimeout(HeavyError):
    """The child was killed at its deadline, wall or CPU."""

    code = "heavy_timeout"


class HeavyOutOfMemory(HeavyError):
    """The child passed its memory cap."""

    code = "heavy_out_of_memory"


class HeavyCrashed(HeavyError):
    """The child died, or its answer could not be carried back."""

    code = "heavy_crashed"
