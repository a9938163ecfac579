"""The locking API: who keeps which path to themselves.

Source: git-lfs docs/api/locking.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC

from lfs.bodies import Json, count_of, document, ref_of, text_of
from lfs.errors import BadRequest, Lock
from lfs.host import Host, Leave, LockPage

# Bytes: the longest path that a commit may have.
MAX_PATH = 4096
MAX_PAGE = 100


class LockDesk:
    """Reads lock requests and writes their answers; the rows are the host's."""

    def __init__(self, *, host: Host) -> None:
        self._locks = host.locks

    def create(self, leave: Leave, body: bytes) -> Json:
        """Take a lock. Raises: BadRequest, AlreadyLocked."""
        fields = document(body)
        return {"lock": shown(self._locks.create(leave.repo_id, leave.actor_id, _path(fields), ref_of(fields)))}

    def list(self, leave: Leave, query: Mapping[str, str]) -> Json:
        """Return a page of locks, narrowed by `path` and `id`. Raises: BadRequest.

        A `refspec` narrows nothing: clients send the branch that they are on, and a lock holds on every branch.
        """
        page = self._locks.list(
            leave.repo_id,
            path=text_of(query, "path"),
            lock_id=text_of(query, "id"),
            cursor=text_of(query, "cursor"),
            limit=_limit(query.get("limit")),
        )
        return _continued({"locks": [shown(lock) for lock in page.locks]}, page)

    def verify(self, leave: Leave, body: bytes) -> Json:
        """Split the locks that a push has to respect into the pusher's own and those of others. Raises: BadRequest."""
        fields = document(body)
        page = self._locks.list(leave.repo_id, cursor=text_of(fields, "cursor"), limit=_limit(fields.get("limit")))
        ours = [shown(lock) for lock in page.locks if lock.owner_id == leave.actor_id]
        theirs = [shown(lock) for lock in page.locks if lock.owner_id != leave.actor_id]
        return _continued({"ours": ours, "theirs": theirs}, page)

    def remove(self, leave: Leave, lock_id: str, body: bytes) -> Json:
        """Give up a lock, or take another's away by force where the actor may. Raises: LockAbsent, NotAllowed."""
        fields = document(body) if body.strip() else {}
        force = fields.get("force") is True and leave.may_force
        return {"lock": shown(self._locks.remove(leave.repo_id, leave.actor_id, lock_id, force=force))}


def shown(lock: Lock) -> Json:
    """Write a lock as clients read it; times in whole seconds UTC."""
    at = lock.locked_at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"id": lock.id, "path": lock.path, "locked_at": at, "owner": {"name": lock.owner}}


def _path(fields: Json) -> str:
    path = text_of(fields, "path")
    if not path or len(path.encode()) > MAX_PATH or set(path.split("/")) & {"", ".", ".."}:
        raise BadRequest(
            "`path` must be a file's path in the repo: relative, with / between its parts, without `..`, "
            f"of at most {MAX_PATH} bytes."
        )
    return path


def _limit(value: object) -> int:
    return min(count_of(value, "limit") or MAX_PAGE, MAX_PAGE)


def _continued(answer: Json, page: LockPage) -> Json:
    return {**answer, "next_cursor": page.cursor} if page.cursor else answer
