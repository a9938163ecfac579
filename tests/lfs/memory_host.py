"""A host in memory: users by password, repos by name, rows in dicts."""

from __future__ import annotations

import base64
import threading
import time
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import accumulate

from lfs.errors import (
    AlreadyLocked,
    BadRequest,
    BadToken,
    DigestMismatch,
    LfsError,
    Lock,
    LockAbsent,
    NeedsLogin,
    NotAllowed,
    ObjectAbsent,
    QuotaExceeded,
    RepoAbsent,
)
from lfs.host import SMALL, Arrival, Held, Leave, LockPage, Opening, Operation, Proof, Upload

USERS = {"ann": 1, "bob": 2, "eve": 3}
# Who may do what in `org/model`; every password is the user's name.
RIGHTS = {"ann": ("write", "force"), "bob": ("write",), "eve": ()}


@dataclass(slots=True)
class Lease:
    """Who works on an upload, and until when."""

    holder: str
    until: float


@dataclass(slots=True)
class MemoryHost:
    """Repos are `{name: id}`; each is private; all users may read all of them. `clock` is in seconds."""

    repos: dict[str, int] = field(default_factory=lambda: {"org/model": 1, "org/other": 2, "datasets/org/data": 3})
    quota: int = 1 << 80
    objects: dict[str, Held] = field(default_factory=dict)
    links: set[tuple[int, str]] = field(default_factory=set)
    uploads: dict[str, Upload] = field(default_factory=dict)
    leases: dict[str, Lease] = field(default_factory=dict)
    looks: int = 0
    begun: int = 0
    attached: int = 0
    clock: Callable[[], float] = time.monotonic
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

    def begin(self, repo_id: int, actor_id: int, openings: Sequence[Opening]) -> Mapping[str, Upload]:
        self.begun += 1
        if sum(each.wanted.size for each in openings) > self.quota:
            raise QuotaExceeded(f"The repo may hold {self.quota} bytes; delete something first.")
        with self.mutex:
            opened = {each.wanted.oid: self._opened(repo_id, actor_id, each) for each in openings}
            self.uploads.update({upload.id: upload for upload in opened.values()})
        return opened

    def upload(self, upload_id: str) -> Upload:
        upload = self.uploads.get(upload_id)
        if upload is None or upload.repo_id not in self.repos.values():
            raise ObjectAbsent("The upload was given up; ask for a new batch.")
        return upload

    def attach(self, sessions: Mapping[str, str]) -> None:
        self.attached += 1
        with self.mutex:
            for upload_id, session in sessions.items():
                self.uploads[upload_id] = replace(self.uploads[upload_id], session=session)

    def arrive(self, upload_id: str, key: str) -> None:
        with self.mutex:
            upload = self.upload(upload_id)
            if upload.state == "open":
                self.uploads[upload_id] = replace(upload, state="arrived", key=key)

    def arrived(
        self, holder: str, seconds: float, limit: int, *, largest: int | None = None, besides: Collection[int] = ()
    ) -> Sequence[Upload]:
        with self.mutex:
            waiting = [upload for upload in self.uploads.values() if upload.state == "arrived"]
            fit = [each for each in waiting if largest is None or each.size <= largest]
            free = [each for each in fit if self._free(each.id) and each.actor_id not in besides]
            mine = [each for each in free if each.actor_id == free[0].actor_id][:limit]
            sums = accumulate(each.size for each in mine)
            found = [each for each, size in zip(mine, sums, strict=True) if size <= SMALL] or mine[:1]
            self.leases.update({upload.id: Lease(holder, self.clock() + seconds) for upload in found})
        return found

    def hold(self, upload_id: str, holder: str, seconds: float) -> bool:
        with self.mutex:
            if not self._free(upload_id) and self.leases[upload_id].holder != holder:
                return False
            self.leases[upload_id] = Lease(holder, self.clock() + seconds)
            return True

    def hold_all(self, upload_ids: Collection[str], holder: str, seconds: float) -> Collection[str]:
        return [upload_id for upload_id in upload_ids if MemoryHost.hold(self, upload_id, holder, seconds)]

    def release(self, upload_id: str, holder: str) -> None:
        with self.mutex:
            if upload_id in self.leases and self.leases[upload_id].holder == holder:
                del self.leases[upload_id]

    def finish(self, upload_id: str, key: str, proof: Proof) -> str:
        with self.mutex:
            upload = self.upload(upload_id)
            if upload.state == "failed":
                raise ObjectAbsent(f"This upload failed: {upload.reason}", oids=[proof.oid])
            if (upload.oid, upload.size) != (proof.oid, proof.size):
                raise DigestMismatch("The proof is of another object.")
            held = self.objects.get(proof.oid)
            if held is None or held.state != "stored":
                held = self.objects[proof.oid] = Held(proof.size, key, "stored", linked=False)
            self.links.add((upload.repo_id, proof.oid))
            self.uploads[upload_id] = replace(upload, state="done", key=held.key)
            self.leases.pop(upload_id, None)
            return held.key

    def finish_all(self, arrivals: Sequence[Arrival]) -> Sequence[str | Exception]:
        return [self._finished(each) for each in arrivals]

    def _finished(self, arrival: Arrival) -> str | LfsError:
        try:
            return self.finish(arrival.upload_id, arrival.key, arrival.proof)
        except LfsError as error:
            return error

    def fail(self, upload_id: str, reason: str) -> None:
        with self.mutex:
            upload = self.uploads[upload_id]
            if upload.state != "done":
                self.uploads[upload_id] = replace(upload, state="failed", reason=reason)
                self.leases.pop(upload_id, None)

    def _opened(self, repo_id: int, actor_id: int, opening: Opening) -> Upload:
        oid, size = opening.wanted.oid, opening.wanted.size
        made = Upload(uuid.uuid4().hex, repo_id, actor_id, oid, size, opening.mode, part_size=opening.part_size)
        mine = [each for each in self.uploads.values() if _same(each, made)]
        arrived = [each for each in mine if each.state == "arrived" and opening.mode in ("staging", "multipart", "tus")]
        going_on = [each for each in mine if each.state == "open" and each.mode == opening.mode == "tus"]
        resumed = [each for each in going_on if each.part_size == opening.part_size]
        return next(iter(arrived + resumed), made)

    def _free(self, upload_id: str) -> bool:
        return upload_id not in self.leases or self.leases[upload_id].until <= self.clock()

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


def _same(one: Upload, other: Upload) -> bool:
    return (one.repo_id, one.actor_id, one.oid, one.size) == (other.repo_id, other.actor_id, other.oid, other.size)


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

    def list(self, repo_id: int, *, path: str = "", lock_id: str = "", cursor: str = "", limit: int = 100) -> LockPage:
        rows = [lock for (repo, _), lock in self.rows.items() if repo == repo_id]
        rows = [lock for lock in rows if path in ("", lock.path) and lock_id in ("", lock.id)]
        if cursor and not (cursor.isascii() and cursor.isdigit() and len(cursor) < 18):
            raise BadRequest("The cursor is not one that this server gave.")
        start = int(cursor or 0)
        more = str(start + limit) if len(rows) > start + limit else ""
        return LockPage(tuple(rows[start : start + limit]), more)

    def remove(self, repo_id: int, actor_id: int, lock_id: str, *, force: bool) -> Lock:
        with self.mutex:
            for at, lock in self.rows.items():
                if at[0] == repo_id and lock.id == lock_id:
                    if lock.owner_id != actor_id and not force:
                        raise NotAllowed(f"The lock is {lock.owner}'s; a maintainer may use --force.")
                    return self.rows.pop(at)
        raise LockAbsent("There is no such lock.")
