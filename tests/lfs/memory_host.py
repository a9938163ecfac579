"""A host in memory: users by password, repos by name, rows in dicts."""

from __future__ import annotations

import base64
import threading
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from lfs.errors import (
    AlreadyLocked,
    BadRequest,
    BadToken,
    DigestMismatch,
    Lock,
    LockAbsent,
    NeedsLogin,
    NotAllowed,
    ObjectAbsent,
    QuotaExceeded,
    RepoAbsent,
)
from lfs.host import Held, Leave, LockPage, Operation, Proof, UploadMode, Wanted

USERS = {"ann": 1, "bob": 2, "eve": 3}
# Who may do what in `org/model`; every password is the user's name.
RIGHTS = {"ann": ("write", "force"), "bob": ("write",), "eve": ()}


@dataclass(slots=True)
class Upload:
    """An upload row."""

    repo_id: int
    wanted: Wanted
    done: bool = False


@dataclass(slots=True)
class MemoryHost:
    """Repos are `{name: id}`; each is private; all users may read all of them."""

    repos: dict[str, int] = field(default_factory=lambda: {"org/model": 1, "org/other": 2, "datasets/org/data": 3})
    quota: int = 1 << 80
    objects: dict[str, Held] = field(default_factory=dict)
    links: set[tuple[int, str]] = field(default_factory=set)
    uploads: dict[str, Upload] = field(default_factory=dict)
    looks: int = 0
    mutex: threading.RLock = field(default_factory=threading.RLock)
    locks: MemoryLocks = field(default_factory=lambda: MemoryLocks())

    def enter(self, headers: Mapping[str, str], repo: str, operation: Operation) -> Leave:
        name = self._user(headers.get("authorization", ""))
        if repo not in self.repos:
            raise RepoAbsent(f"No repo {repo}; create it first.")
        rights = RIGHTS[name]
        if operation == "write" and "write" not in rights:
            raise NotAllowed(f"{name} may read {repo} and not write to it.")
        return Leave(self.repos[repo], USERS[name], name, "write" in rights, "force" in rights)

    def look(self, repo_id: int, oids: Sequence[str]) -> Mapping[str, Held]:
        self.looks += 1
        found = ((oid, self.objects.get(oid)) for oid in oids)
        return {
            oid: Held(held.size, held.key, held.state, (repo_id, oid) in self.links)
            for oid, held in found
            if held is not None
        }

    def begin(
        self, repo_id: int, actor_id: int, objects: Sequence[Wanted], mode: UploadMode = "proxy"
    ) -> Mapping[str, str]:
        if sum(each.size for each in objects) > self.quota:
            raise QuotaExceeded(f"The repo may hold {self.quota} bytes; delete something first.")
        opened = {each.oid: uuid.uuid4().hex for each in objects}
        self.uploads.update({opened[each.oid]: Upload(repo_id, each) for each in objects})
        return opened

    def finish(self, upload_id: str, key: str, proof: Proof) -> None:
        with self.mutex:
            upload = self.uploads.get(upload_id)
            if upload is None or upload.repo_id not in self.repos.values():
                raise ObjectAbsent("The upload was given up; ask for a new batch.", oids=[proof.oid])
            if upload.wanted != Wanted(proof.oid, proof.size):
                raise DigestMismatch("The proof is of another object.")
            self.objects[proof.oid] = Held(proof.size, key, "stored", linked=False)
            self.links.add((upload.repo_id, proof.oid))
            upload.done = True

    def secret(self, kid: int) -> bytes | None:
        return (b"the secret of the tests", None)[kid]

    def base_url(self, headers: Mapping[str, str], scheme: str = "http") -> str:
        return f"{scheme}://{headers['host']}"

    def _user(self, authorization: str) -> str:
        if not authorization:
            raise NeedsLogin("Log in with a name and a token.")
        name, _, password = base64.b64decode(authorization.removeprefix("Basic ")).decode().partition(":")
        if name not in USERS or password != name:
            raise BadToken("The token is not valid.")
        return name


@dataclass(slots=True)
class MemoryLocks:
    """Locks in the order they were taken; the cursor is a position."""

    rows: dict[tuple[int, str], Lock] = field(default_factory=dict)
    mutex: threading.Lock = field(default_factory=threading.Lock)

    def create(self, repo_id: int, actor_id: int, path: str, ref: str) -> Lock:
        owner = next(name for name, number in USERS.items() if number == actor_id)
        with self.mutex:
            if held := self.rows.get((repo_id, path)):
                raise AlreadyLocked(f"{path} is locked by {held.owner}; ask them.", lock=held)
            lock = Lock(uuid.uuid4().hex, path, actor_id, owner, datetime.now(UTC), ref)
            self.rows[repo_id, path] = lock
            return lock

    def list(
        self, repo_id: int, *, path: str = "", lock_id: str = "", ref: str = "", cursor: str = "", limit: int = 100
    ) -> LockPage:
        rows = [lock for (repo, _), lock in self.rows.items() if repo == repo_id]
        rows = [lock for lock in rows if path in ("", lock.path) and lock_id in ("", lock.id)]
        if cursor and not (cursor.isascii() and cursor.isdigit() and len(cursor) < 18):
            raise BadRequest("The cursor is not one that this server gave.")
        start = int(cursor or 0)
        more = str(start + limit) if len(rows) > start + limit else ""
        return LockPage(tuple(rows[start : start + limit]), more)

    def verify(self, repo_id: int, *, ref: str = "", cursor: str = "", limit: int = 100) -> LockPage:
        return self.list(repo_id, cursor=cursor, limit=limit)

    def remove(self, repo_id: int, actor_id: int, lock_id: str, *, force: bool) -> Lock:
        with self.mutex:
            for at, lock in self.rows.items():
                if at[0] == repo_id and lock.id == lock_id:
                    if lock.owner_id != actor_id and not force:
                        raise NotAllowed(f"The lock is {lock.owner}'s; a maintainer may use --force.")
                    return self.rows.pop(at)
        raise LockAbsent("There is no such lock.")
