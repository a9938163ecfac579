"""Repairs LFS objects, their links and sums.

    stored, bytes bad     → `damaged`: answered 410, asked for again by the next push, which brings a key of its own
    stored, size wrong    → the size that the proven bytes have
    damaged, bytes sound  → `stored`
    bytes bad, a copy of them under another key of the object sound → a new key with that copy's bytes

An object that is made of chunks has no bytes of its own: it is bad as long as one of its xorbs is, without a mark, and
sound again when that is.

On a disk the bad bytes get another name: a sidecar on the same machine links files by theirs, and asks no row.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from lfs import soundness
from lfs.errors import Damaged, Mismatch, Missing
from lfs.store import ObjectStore, lfs_key
from registry.db import Database, lock_repo, now
from registry.tables.objects import lfs_links, lfs_objects
from registry.tables.repos import repos
from registry.tables.work import events
from registry.upkeep.faults import BadLink, BadObject, Mended, WrongSum
from registry.upkeep.fsck_objects import GIT_SUM, LFS_SUM
from registry.xet_holes import HOLED, holed_among

_CHANGED = Mended(True, "changed meanwhile, by somebody at work")


class ObjectRepair:
    """Mends objects, links and sums of one house."""

    def __init__(self, database: Database, store: ObjectStore, *, clock: Callable[[], datetime] = now) -> None:
        self._db = database
        self._store = store
        self._clock = clock

    def mend(self, fault: BadObject | BadLink | WrongSum) -> Mended:
        """Do what can be done. Raises: Busy, lfs errors of the store."""
        match fault:
            case BadObject():
                return self._object(fault)
            case BadLink():
                return self._link(fault)
            case WrongSum():
                return self._sums(fault.repo_id)

    # Objects

    def _object(self, fault: BadObject) -> Mended:
        if not soundness.flaw(self._store, fault.key, fault.oid):
            return self._sound(fault)
        if healed := self._from_copy(fault):
            return healed
        if self._is_holed(fault):
            return Mended(False, "as bad as the xorbs that it is made of; upload it again to heal it")
        if fault.state != "damaged":
            if not self._set(fault, "object.damaged", state="damaged", condemned_at=None):
                return _CHANGED
            fault = replace(fault, state="damaged")
            # An upload may have put sound bytes there before the row kept it away, and have been told so.
            if not soundness.flaw(self._store, fault.key, fault.oid):
                return self._sound(fault)
        self._set_aside(fault)
        return Mended(False, "marked as damaged; push it again to heal it: `git lfs push --all` from a whole clone")

    def _sound(self, fault: BadObject) -> Mended:
        """Believe bytes that hash to the oid: whatever the row says otherwise is wrong."""
        size = self._store.stat(fault.key).size
        values: dict[str, object] = {"size": size} if size != fault.size else {}
        if fault.state == "damaged":
            values["state"] = "stored"
        if not values:
            return Mended(True, "its bytes are sound")
        if not self._set(fault, "object.sound", **values):
            return _CHANGED
        return Mended(True, f"its bytes are sound: {', '.join(f'{name} {value}' for name, value in values.items())}")

    def _from_copy(self, fault: BadObject) -> Mended | None:
        """Look for the object's bytes under another key of it, such as one that an upload left."""
        for key in list(self._store.walk(lfs_key(fault.oid))):
            if key == fault.key:
                continue
            # Whoever left that copy may be about to delete it, so the row names a key that is ours.
            own = lfs_key(fault.oid, secrets.token_hex(16))
            try:
                with self._store.open(key) as reader:
                    size = self._store.put(own, reader, reader.size, fault.oid).size
            except (Missing, Mismatch, Damaged):
                continue
            state = "condemned" if fault.state == "condemned" else "stored"
            if not self._set(fault, "object.sound", state=state, key=own, size=size, kind="whole"):
                self._store.delete(own)
                return _CHANGED
            self._set_aside(fault)
            return Mended(True, f"healed from a sound copy of it, {key}")
        return None

    def _set(self, fault: BadObject, act: str, **values: object) -> bool:
        """Change the row, if it is as it was when its bytes were looked at."""
        moment = self._clock()
        as_seen = sa.and_(
            lfs_objects.c.oid == fault.oid, lfs_objects.c.key == fault.key, lfs_objects.c.state == fault.state
        )
        with self._db.write() as connection:
            changed = sa.update(lfs_objects).where(as_seen).values(values | {"checked_at": moment})
            if connection.execute(changed).rowcount != 1:
                return False
            told = {name: value for name, value in values.items() if value is not None}
            self._tell(connection, act, fault.oid, {"was": fault.state, "key": fault.key} | told)
        return True

    def _is_holed(self, fault: BadObject) -> bool:
        with self._db.look() as connection:
            return bool(holed_among([fault.key], lambda files: connection.execute(HOLED, files)))

    def _set_aside(self, fault: BadObject) -> None:
        """Give bad bytes on a disk another name. No row opens them any more, and no upload writes to their key."""
        aside = lfs_key(fault.oid, soundness.ASIDE)
        try:
            if fault.key == aside or self._store.stat(fault.key).path is None:
                return
            self._store.delete(aside)
            self._store.copy(fault.key, aside)
        except Missing:
            return
        self._store.delete(fault.key)

    # Links and sums

    def _link(self, fault: BadLink) -> Mended:
        with self._db.read() as connection:
            row = connection.execute(sa.select(lfs_objects).where(lfs_objects.c.oid == fault.oid)).first()
        if row is None:
            return self._link_to_nothing(fault)
        if row.state == "deleting":
            return Mended(False, "its bytes are being deleted; push it again")
        if flaw := soundness.flaw(self._store, row.key, fault.oid, row.size):
            return Mended(False, f"the object has to be mended first: it {flaw}")
        with self._db.write() as connection:
            lock_repo(connection, fault.repo_id)
            if row.state == "condemned":
                asked = sa.update(lfs_objects).where(lfs_objects.c.oid == fault.oid, lfs_objects.c.state == "condemned")
                if connection.execute(asked.values(state="stored", condemned_at=None)).rowcount != 1:
                    return _CHANGED
            connection.execute(_here(sa.update(lfs_links), fault).values(size=row.size))
            self._count(connection, fault.repo_id)
            body = {"size": row.size, "was": row.state}
            self._tell(connection, "link.mended", fault.oid, body, repo_id=fault.repo_id)
        return Mended(True, f"the link has the {row.size} bytes of the object, and the object is kept")

    def _link_to_nothing(self, fault: BadLink) -> Mended:
        """Make the object's row again if its bytes are there; else take the link away, so that a push makes it anew."""
        # Only under the object's shared key: the others are their uploads' to delete.
        key = "" if soundness.flaw(self._store, lfs_key(fault.oid), fault.oid) else lfs_key(fault.oid)
        size = self._store.stat(key).size if key else 0
        with self._db.write() as connection:
            lock_repo(connection, fault.repo_id)
            there = connection.execute(sa.select(lfs_objects.c.oid).where(lfs_objects.c.oid == fault.oid)).first()
            if there is not None:
                return _CHANGED
            if key:
                values = {"oid": fault.oid, "size": size, "key": key, "state": "stored", "stored_at": self._clock()}
                connection.execute(sa.insert(lfs_objects).values(values))
                connection.execute(_here(sa.update(lfs_links), fault).values(size=size))
            else:
                connection.execute(_here(sa.delete(lfs_links), fault))
            self._count(connection, fault.repo_id)
            body = {"key": key} if key else {"gone": True}
            self._tell(connection, "link.mended", fault.oid, body, repo_id=fault.repo_id)
        if key:
            return Mended(True, f"the object's row was made again, its bytes are sound under {key}")
        return Mended(True, "the link to nothing was taken away; push the object again: `git lfs push --all`")

    def _sums(self, repo_id: int) -> Mended:
        with self._db.write() as connection:
            lock_repo(connection, repo_id)
            lfs, git = self._count(connection, repo_id)
            self._tell(connection, "repo.counted", "", {"lfs_bytes": lfs, "git_bytes": git}, repo_id=repo_id)
        return Mended(True, f"counted again: {lfs} bytes of LFS, {git} of git")

    def _count(self, connection: Connection, repo_id: int) -> tuple[int, int]:
        sums = sa.select(LFS_SUM.scalar_subquery(), GIT_SUM.scalar_subquery()).where(repos.c.id == repo_id)
        lfs, git = (int(value) for value in connection.execute(sums.select_from(repos)).one())
        connection.execute(sa.update(repos).where(repos.c.id == repo_id).values(lfs_bytes=lfs, git_bytes=git))
        return lfs, git

    def _tell(
        self, connection: Connection, act: str, subject: str, body: dict[str, Any], *, repo_id: int | None = None
    ) -> None:
        event = {"at": self._clock(), "act": act, "repo_id": repo_id, "subject": subject, "body": body}
        connection.execute(sa.insert(events).values(event))


def _here(statement: Any, fault: BadLink) -> Any:
    return statement.where(lfs_links.c.repo_id == fault.repo_id, lfs_links.c.oid == fault.oid)
