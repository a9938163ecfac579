"""The host of the LFS door: answers what `lfs` asks from the registry's rows, in `lfs`'s own errors."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

from lfs import errors
from lfs.errors import Lock
from lfs.host import Arrival, Held, Leave, LockPage, Opening, Operation, Proof, Upload
from registry import errors as ours
from registry.access import Access
from registry.linking import Linker, Proven
from registry.links import Links
from registry.locks import LockRow, LockRows
from registry.names import RepoId, RepoType, parse_repo_id
from registry.routes.auth import token_of
from registry.routes.problems import WRONG_TOKEN
from registry.uploads import Uploads

_PREFIXES: dict[str, RepoType] = {"datasets/": "dataset", "spaces/": "space", "": "model"}


class LfsHost:
    """Is the `lfs.host.Host` of a registry."""

    def __init__(
        self,
        *,
        access: Access,
        links: Links,
        uploads: Uploads,
        linker: Linker,
        locks: LockRows,
        secrets: Sequence[bytes],
        origin: Callable[[Mapping[str, str], str], str],
    ) -> None:
        self._access = access
        self._links = links
        self._uploads = uploads
        self._linker = linker
        self._locks = HostLocks(locks)
        self._secrets = tuple(secrets)
        self._origin = origin

    @property
    def locks(self) -> HostLocks:
        """The lock rows."""
        return self._locks

    def enter(self, headers: Mapping[str, str], repo: str, operation: Operation) -> Leave:
        """Decide what this request may do; the rights come from the repo's row, never from what a client claims."""
        with _translated():
            visit = self._access.visit(token_of(headers), _repo_id(repo), operation)
            visit.check_gate(self.base_url(headers))
        actor = visit.actor
        may = visit.may("write"), visit.may("admin")
        return Leave(visit.repo.id, actor.user_id or 0, actor.name, *may, token_id=actor.token_id or 0)

    def look(self, repo_id: int, oids: Sequence[str]) -> Mapping[str, Held]:
        """Say what is held of these oids; what only other repos hold is there as not linked."""
        with _translated():
            found = self._links.look(repo_id, oids)
        return {oid: Held(known.size, known.key, known.state, known.linked) for oid, known in found.items()}

    def begin(self, repo_id: int, actor_id: int, openings: Sequence[Opening]) -> Mapping[str, Upload]:
        """Open one upload per object, or give an open tus upload again."""
        with _translated():
            return self._uploads.begin(repo_id, actor_id, openings)

    def upload(self, upload_id: str) -> Upload:
        """Return an upload that has neither expired nor lost its repo."""
        with _translated():
            return self._uploads.upload(upload_id)

    def attach(self, sessions: Mapping[str, str]) -> None:
        """Note the sessions of uploads in parts."""
        with _translated():
            self._uploads.attach(sessions)

    def arrive(self, upload_id: str, key: str) -> None:
        """Note that the bytes of an upload lie whole under `key`."""
        with _translated():
            self._uploads.arrive(upload_id, key)

    def arrived(
        self, holder: str, seconds: float, limit: int, *, largest: int | None = None, besides: Collection[int] = ()
    ) -> Sequence[Upload]:
        """Lease arrived uploads of one actor that nobody works on."""
        with _translated():
            return self._uploads.arrived(holder, seconds, limit, largest=largest, besides=besides)

    def hold(self, upload_id: str, holder: str, seconds: float) -> bool:
        """Lease an upload, or prolong one's own lease."""
        with _translated():
            return self._uploads.hold(upload_id, holder, seconds)

    def hold_all(self, upload_ids: Collection[str], holder: str, seconds: float) -> Collection[str]:
        """Lease several, or prolong their leases."""
        with _translated():
            return self._uploads.hold_all(upload_ids, holder, seconds)

    def release(self, upload_id: str, holder: str) -> None:
        """Give a lease back."""
        with _translated():
            self._uploads.release(upload_id, holder)

    def finish(self, upload_id: str, key: str, proof: Proof) -> str:
        """Make object and link rows of proven bytes; return the key that is served."""
        with _translated():
            return self._linker.finish(_proven(upload_id, key, proof))

    def finish_all(self, arrivals: Sequence[Arrival]) -> Sequence[str | Exception]:
        """Do the same for many uploads, in one transaction."""
        with _translated():
            found = self._linker.finish_all([_proven(each.upload_id, each.key, each.proof) for each in arrivals])
        return [_said(each) if isinstance(each, ours.RegistryError) else each for each in found]

    def fail(self, upload_id: str, reason: str) -> None:
        """Close an upload whose bytes are not the announced ones."""
        with _translated():
            self._uploads.fail(upload_id, reason)

    def secret(self, kid: int) -> bytes | None:
        """Return the server secret: 0 signs, 1 is the one before it."""
        return self._secrets[kid] if kid < len(self._secrets) else None

    def base_url(self, headers: Mapping[str, str], scheme: str = "http") -> str:
        """Return scheme and authority that clients see."""
        return self._origin(headers, scheme)


class HostLocks:
    """The lock rows in `lfs`'s own values; cursors are serial numbers as text."""

    def __init__(self, rows: LockRows) -> None:
        self._rows = rows

    def create(self, repo_id: int, actor_id: int, path: str, ref: str) -> Lock:
        """Take the lock on a path."""
        with _translated():
            row, made = self._rows.create(repo_id, actor_id, path, ref)
        if not made:
            raise errors.AlreadyLocked(f"{path} is locked by {row.owner} already.", lock=_lock(row))
        return _lock(row)

    def list(self, repo_id: int, *, path: str = "", lock_id: str = "", cursor: str = "", limit: int = 100) -> LockPage:
        """Return a page of locks."""
        with _translated():
            rows = self._rows.list(
                repo_id,
                path=path or None,
                lock_id=lock_id or None,
                after=_serial(cursor),
                limit=limit + 1,
            )
        page = rows[:limit]
        return LockPage(tuple(_lock(row) for row in page), str(page[-1].serial) if len(rows) > limit else "")

    def remove(self, repo_id: int, actor_id: int, lock_id: str, *, force: bool) -> Lock:
        """Give a lock up, or with `force` take it away."""
        with _translated():
            row, gone = self._rows.remove(repo_id, lock_id, by=actor_id, force=force)
        if row is None:
            raise errors.LockAbsent(f"There is no lock {lock_id}.")
        if not gone:
            raise errors.NotAllowed(
                f"{row.path} is locked by {row.owner}; only they, or an admin with force, unlock it."
            )
        return _lock(row)


def _serial(cursor: str) -> int:
    if not cursor:
        return 0
    if not cursor.isdecimal() or len(cursor) > 18:
        raise errors.BadRequest("The cursor is not one that this server gave; start the list again without it.")
    return int(cursor)


def _lock(row: LockRow) -> Lock:
    return Lock(row.id, row.path, row.owner_id, row.owner, row.locked_at, row.ref)


def _repo_id(repo: str) -> RepoId:
    prefix = next(prefix for prefix in _PREFIXES if repo.startswith(prefix))
    return parse_repo_id(_PREFIXES[prefix], repo.removeprefix(prefix))


def _proven(upload_id: str, key: str, proof: Proof) -> Proven:
    return Proven(upload_id, key, proof.oid, proof.size)


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """Say the registry's refusals in the words of `lfs.errors`."""
    try:
        yield
    except ours.RegistryError as error:
        raise _said(error) from error


def _said(error: ours.RegistryError) -> errors.LfsError:
    """Say one refusal. Raises: the error itself, if it is none that a client of this door can cause."""
    match error:
        case ours.BadToken():
            return errors.BadToken(WRONG_TOKEN)
        case ours.RepoAbsent() | ours.BadName():
            return errors.RepoAbsent(error.message)
        case ours.ObjectAbsent():
            return errors.ObjectAbsent(error.message, oids=error.oids)
        case ours.Busy():
            return errors.Busy(error.message, retry_after=error.retry_after)
    for known, kind in _WORDS:
        if isinstance(error, known):
            return kind(error.message)
    raise error


_WORDS: tuple[tuple[type[ours.RegistryError], type[errors.LfsError]], ...] = (
    (ours.NeedsLogin, errors.NeedsLogin),
    (ours.NotAllowed, errors.NotAllowed),
    (ours.SizeMismatch, errors.SizeMismatch),
    (ours.DigestMismatch, errors.DigestMismatch),
    (ours.QuotaExceeded, errors.QuotaExceeded),
    (ours.NoSpace, errors.NoSpace),
    (ours.Damaged, errors.Damaged),
)
