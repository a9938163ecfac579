"""What may go wrong in the registry, in our words.

RegistryError
├── NeedsLogin          no credentials were sent and the act needs some
│   └── GatedLogin      the repo asks its readers to apply first, and nobody knows yet who asks
├── BadToken            credentials were sent and are unknown, revoked or expired
├── RepoAbsent          no such repo, or none that this actor may see
├── RevisionAbsent      the repo has no such branch, tag or commit
├── EntryAbsent         the commit has no such path; carries the commit
├── ObjectAbsent        an LFS object is not linked to this repo; lists the oids
├── NotAllowed          seen, and not permitted
│   └── Gated           the repo asks its readers to apply first
├── Exists              the name is taken; carries its URL path
├── StaleParent         the tip moved since the caller looked
├── RefMoved            a compare-and-swap was lost, also after every retry
├── BadBody             the request does not have the shape that this route takes
│   ├── BadName         a namespace, repo, branch or tag name breaks the rules
│   └── BadPath         a path in a commit breaks the rules
├── DigestMismatch      bytes do not have the hash they were announced with
├── SizeMismatch        bytes do not have the size they were announced with
├── TooLarge            a limit of ours; names itself and its setting
├── QuotaExceeded       the owner's or repo's allowance is used up
├── NoSpace             the shelf is full
├── RateLimited         too many requests; carries seconds to wait
├── Busy                not now; carries seconds to wait
│   └── StillChecked    uploaded objects are not proven yet; carries which
├── Damaged             stored bytes fail their own check; an operator must act
└── NotSupported        this server does not do that
    └── SwitchedOff     it could, and its operator does not want it to

No HTTP here: `routes/problems` renders each class in the dialect of the door it left by.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence


class RegistryError(Exception):
    """A failure that a caller can cause or must hear of; `message` says what to do next, `code` is stable."""

    code = "error"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class NeedsLogin(RegistryError):
    """No credentials were sent and the act needs some."""

    code = "needs_login"


class BadToken(RegistryError):
    """Credentials were sent and are unknown, revoked or expired."""

    code = "bad_token"


class RepoAbsent(RegistryError):
    """No such repo, or none that this actor may see: the two are not told apart."""

    code = "repo_absent"


class RevisionAbsent(RegistryError):
    """The repo has no such branch, tag or commit."""

    code = "revision_absent"


class EntryAbsent(RegistryError):
    """The commit has no such path; `commit` (40 hex) lets a client remember the absence."""

    code = "entry_absent"

    def __init__(self, message: str, *, commit: str) -> None:
        super().__init__(message)
        self.commit = commit


class ObjectAbsent(RegistryError):
    """LFS objects are not linked to this repo."""

    code = "object_absent"

    def __init__(self, message: str, *, oids: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.oids = tuple(oids)


class NotAllowed(RegistryError):
    """The actor sees the thing and may not do this to it."""

    code = "not_allowed"


class Gated(NotAllowed):
    """The repo asks its readers to apply first."""

    code = "gated"


class GatedLogin(NeedsLogin):
    """The repo asks its readers to apply first, and nobody knows yet who asks."""

    code = "gated_login"


class Exists(RegistryError):
    """The name is taken; `path` is the URL path of what has it."""

    code = "exists"

    def __init__(self, message: str, *, path: str = "") -> None:
        super().__init__(message)
        self.path = path


class StaleParent(RegistryError):
    """The branch moved since the caller looked at it."""

    code = "stale_parent"


class RefMoved(RegistryError):
    """A compare-and-swap on a ref was lost, also after every retry."""

    code = "ref_moved"


class BadBody(RegistryError):
    """The request does not have the shape that this route takes."""

    code = "bad_body"


class BadName(BadBody):
    """A namespace, repo, branch or tag name breaks the rules."""

    code = "bad_name"


class BadPath(BadBody):
    """A path in a commit breaks the rules."""

    code = "bad_path"


class DigestMismatch(RegistryError):
    """Bytes do not have the hash they were announced with."""

    code = "digest_mismatch"


class SizeMismatch(RegistryError):
    """Bytes do not have the size they were announced with."""

    code = "size_mismatch"


class TooLarge(RegistryError):
    """A limit of ours was passed; the message names the limit and its setting."""

    code = "too_large"


class QuotaExceeded(RegistryError):
    """The owner's or repo's allowance is used up; the message has the numbers."""

    code = "quota_exceeded"


class NoSpace(RegistryError):
    """The shelf is full."""

    code = "no_space"


class RateLimited(RegistryError):
    """Too many requests; `retry_after` is in seconds."""

    code = "rate_limited"

    def __init__(self, message: str, *, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Busy(RegistryError):
    """Not now, for a reason that passes; `retry_after` is in seconds."""

    code = "busy"

    def __init__(self, message: str, *, retry_after: int = 5) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class StillChecked(Busy):
    """Objects that a commit names arrived in its repo and are being checked; `objects` maps their oids to sizes."""

    code = "still_checked"

    def __init__(self, message: str, *, repo_id: int, objects: Mapping[str, int]) -> None:
        super().__init__(message, retry_after=60)
        self.repo_id = repo_id
        self.objects = dict(objects)


class Damaged(RegistryError):
    """Stored bytes fail their own check; an operator must run `weightroom fsck`."""

    code = "damaged"


class NotSupported(RegistryError):
    """This server does not do that."""

    code = "not_supported"


class SwitchedOff(NotSupported):
    """This server could do that, and its operator does not want it to."""

    code = "switched_off"
