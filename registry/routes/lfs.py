"""The host of the LFS door: answers what `lfs` asks from the registry's rows, in `lfs`'s own errors."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence

from lfs import errors
from lfs.errors import Lock
from lfs.host import Held, Leave, LockPage, Operation, Proof, UploadMode, Wanted
from registry import errors as ours
from registry.access import Access
from registry.links import Links
from registry.locks import LockRow, LockRows
from registry.names import RepoId, RepoType, parse_repo_id
from registry.routes.auth import token_of

_PREFIXES: dict[str, RepoType] = {"datasets/": "dataset", "spaces/": "space", "": "model"}


class LfsHost:
    """Is the `lfs.host.Host` of a registry."""

    def __init__(
        self,
        *,
        access: Access,
        links: Links,
        locks: LockRows,
        secrets: Sequence[bytes],
        origin: Callable[[Mapping[str, str], str], str],
    ) -> None:
        self._access = access
        self._links = links
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
        return Leave(visit.repo.id, actor.user_id or 0, actor.name, visit.may("write"), visit.may("admin"))

    def look(self, repo_id: int, oids: Sequence[str]) -> Mapping[str, Held]:
        """Say what is held of these oids; what only other repos hold is there as not linked."""
        with _translated():
            found = self._links.look(repo_id, oids)
        return {oid: Held(known.size, known.key, known.state, known.linked) for oid, known in found.items()}

    def begin(
        self, repo_id: int, actor_id: int, objects: Sequence[Wanted], mode: UploadMode = "proxy"
    ) -> Mapping[str, str]:
        """Open one upload per object."""
        with _translated():
            return self._links.begin(repo_id, actor_id, [(wanted.oid, wanted.size) for wanted in objects], mode)

    def finish(self, upload_id: str, key: str, proof: Proof) -> None:
        """Make object and link rows of proven bytes."""
        with _translated():
            self._links.finish(upload_id, key, proof.oid, proof.size)

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

    def list(
        self, repo_id: int, *, path: str = "", lock_id: str = "", ref: str = "", cursor: str = "", limit: int = 100
    ) -> LockPage:
        """Return a page of locks."""
        with _translated():
            rows = self._rows.list(
                repo_id,
                path=path or None,
                lock_id=lock_id or None,
                ref=ref or None,
                after=_serial(cursor),
                limit=limit + 1,
            )
        page = rows[:limit]
        return LockPage(tuple(_lock(row) for row in page), str(page[-1].serial) if len(rows) > limit else "")

    def verify(self, repo_id: int, *, ref: str = "", cursor: str = "", limit: int = 100) -> LockPage:
        """Return a page of the locks that a push has to respect: all of them, since a lock holds on every branch."""
        return self.list(repo_id, cursor=cursor, limit=limit)

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


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """Say the registry's refusals in the words of `lfs.errors`."""
    try:
        yield
    except ours.NeedsLogin as error:
        raise errors.NeedsLogin(error.message) from error
    except ours.BadToken as error:
        raise errors.BadToken(error.message) from error
    except (ours.RepoAbsent, ours.BadName) as error:
        raise errors.RepoAbsent(error.message) from error
    except ours.NotAllowed as error:
        raise errors.NotAllowed(error.message) from error
    except ours.ObjectAbsent as error:
        raise errors.ObjectAbsent(error.message, oids=error.oids) from error
    except ours.SizeMismatch as error:
        raise errors.SizeMismatch(error.message) from error
    except ours.DigestMismatch as error:
        raise errors.DigestMismatch(error.message) from error
    except ours.QuotaExceeded as error:
        raise errors.QuotaExceeded(error.message) from error
    except ours.Busy as error:
        raise errors.Busy(error.message, retry_after=error.retry_after) from error
