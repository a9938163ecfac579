"""Proven bytes → object row, link row, usage, upload done: the only maker of links.

Proofs that come at the same time are settled in one transaction, since many small objects would else wait for one
sync of the database each. Locks are taken in the order repos, namespaces, objects, each kind by rising id, so that
no two transactions wait for each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from lfs.store import FILES
from lfs.xet.hashes import parse
from registry.db import Database, now
from registry.errors import Busy, Damaged, DigestMismatch, ObjectAbsent, QuotaExceeded, RegistryError, SizeMismatch
from registry.quota import Quotas
from registry.tables.identity import namespaces
from registry.tables.objects import lfs_links, lfs_objects, lfs_uploads
from registry.tables.repos import repos
from registry.tables.xet import xet_links
from registry.together import Together
from registry.xet_holes import HOLED, holed_among
from registry.xet_pieces import STREWN

_UPLOADS = sa.select(
    *(lfs_uploads.c[name] for name in ("id", "repo_id", "actor_id", "oid", "size", "state", "reason"))
).where(lfs_uploads.c.id.in_(sa.bindparam("ids", expanding=True)))
_HOMES = (
    sa.select(repos.c.id, repos.c.deleted_at, repos.c.namespace_id, namespaces.c.quota)
    .join(namespaces, namespaces.c.id == repos.c.namespace_id)
    .where(
        repos.c.id.in_(
            sa.select(lfs_uploads.c.repo_id).where(lfs_uploads.c.id.in_(sa.bindparam("ids", expanding=True)))
        )
    )
    .order_by(repos.c.id)
    .with_for_update(of=repos)
)
_LINKS = sa.select(lfs_links.c.oid).where(
    lfs_links.c.repo_id == sa.bindparam("repo"), lfs_links.c.oid.in_(sa.bindparam("oids", expanding=True))
)
# Whoever condemns an object waits for this lock, and then sees the link.
_OBJECTS = (
    sa.select(lfs_objects.c.oid, lfs_objects.c.size, lfs_objects.c.key, lfs_objects.c.state)
    .where(lfs_objects.c.oid.in_(sa.bindparam("oids", expanding=True)))
    .order_by(lfs_objects.c.oid)
    .with_for_update(key_share=True)
)
_SEEN = (
    sa.update(lfs_links)
    .where(lfs_links.c.repo_id == sa.bindparam("repo"), lfs_links.c.oid == sa.bindparam("seen"))
    .values(seen_at=sa.bindparam("moment"))
)
_GROWN = (
    sa.update(repos)
    .where(repos.c.id == sa.bindparam("repo"))
    .values(lfs_bytes=repos.c.lfs_bytes + sa.bindparam("more"))
)
_DONE = (
    sa.update(lfs_uploads)
    .where(lfs_uploads.c.id == sa.bindparam("upload"))
    .values(state="done", key=sa.bindparam("served"), reason="", lease="", lease_until=None)
)
_FILE_PROVEN = (
    sa.update(xet_links)
    .where(
        xet_links.c.repo_id == sa.bindparam("repo"),
        xet_links.c.file == sa.bindparam("hash"),
        xet_links.c.sha256 == sa.bindparam("oid"),
    )
    .values(state="proven")
)


@dataclass(frozen=True, slots=True)
class Proven:
    """Bytes that were proven: they came by this upload, lie at `key`, hash to `oid` and are `size` long."""

    upload_id: str
    key: str
    oid: str
    size: int


class Linker:
    """Makes links. Thread-safe, among processes too."""

    def __init__(self, database: Database, quotas: Quotas, *, clock: Callable[[], datetime] = now) -> None:
        self._db = database
        self._quotas = quotas
        self._clock = clock
        self._statements = _Statements(database)
        self._together: Together[Proven, str] = Together(self._settle)

    def finish(self, proven: Proven) -> str:
        """Link an object to the repo of its upload; durable at return. Return the key under which it is served.

        Repeating it after success is success. An object that is condemned, damaged or on its way out lives again,
        under the key of this proof; so does one whose chunks were found damaged, some of them, or strewn.
        Raises: ObjectAbsent (no such upload, it failed, or its repo is gone), DigestMismatch or SizeMismatch (the
        proof is of another object), QuotaExceeded, Damaged (the object is known with another size), Busy (the object
        is damaged or on its way out under this very key, or the database does not answer).
        """
        return self._together.ask(proven)

    def finish_all(self, group: Sequence[Proven]) -> Sequence[str | Exception]:
        """Do the same for each of a group, in one transaction: its key, or what `finish` would raise."""
        return self._together.ask_all(group)

    def _settle(self, group: Sequence[Proven]) -> Sequence[str | Exception]:
        with self._db.write() as connection:
            return _Settling(connection, self._statements, self._quotas, self._clock(), group).run()


class _Statements:
    """What every group asks and writes: made and compiled once, since that costs as much as to run it."""

    def __init__(self, database: Database) -> None:
        self.uploads = database.prepare(_UPLOADS)
        self.homes = database.prepare(_HOMES)
        self.links = database.prepare(_LINKS)
        self.objects = database.prepare(_OBJECTS)
        self.holed = database.prepare(HOLED)
        self.strewn = database.prepare(STREWN)
        self.new_objects = database.prepare_insert(lfs_objects, unless_there=True)
        self.new_links = database.prepare_insert(lfs_links)
        self.seen = database.prepare_change(_SEEN)
        self.grown = database.prepare_change(_GROWN)
        self.done = database.prepare_change(_DONE)
        self.file_proven = database.prepare_change(_FILE_PROVEN)


class _Settling:
    """One transaction: what becomes of each proof, by its place in the group."""

    def __init__(
        self,
        connection: Connection,
        statements: _Statements,
        quotas: Quotas,
        moment: datetime,
        group: Sequence[Proven],
    ) -> None:
        self._connection = connection
        self._statements = statements
        self._quotas = quotas
        self._moment = moment
        self._group = group
        self._answers: dict[int, str | Exception] = {}
        self._uploads: dict[str, Any] = {}

    def run(self) -> list[str | Exception]:
        # The locks first: whoever fails or sweeps an upload holds its repo's, too, and removes its bytes then.
        homes = self._lock_repos()
        self._read_uploads()
        self._judge(homes)
        linked = self._read_links()
        self._judge_done(linked)
        self._count(homes, linked)
        self._store()
        self._link(linked)
        self._close()
        return [self._answers[place] for place in range(len(self._group))]

    def _left(self) -> list[tuple[int, Proven]]:
        """The proofs that nothing was found against, with their places."""
        return [
            (place, proven)
            for place, proven in enumerate(self._group)
            if not isinstance(self._answers.get(place), Exception)
        ]

    def _home(self, proven: Proven) -> int:
        repo_id: int = self._uploads[proven.upload_id].repo_id
        return repo_id

    def _lock_repos(self) -> dict[int, Any]:
        """Lock the repos that are about to grow; return those that live, with their namespaces and own quotas."""
        ids = [proven.upload_id for proven in self._group]
        homes = self._statements.homes.within(self._connection, {"ids": ids})
        return {row.id: row for row in homes if row.deleted_at is None}

    def _read_uploads(self) -> None:
        ids = [proven.upload_id for proven in self._group]
        found = self._statements.uploads.within(self._connection, {"ids": ids})
        self._uploads = {row.id: row for row in found}

    def _judge(self, homes: dict[int, Any]) -> None:
        for place, proven in enumerate(self._group):
            error = _objection(proven, self._uploads.get(proven.upload_id), homes)
            if error is not None:
                self._answers[place] = error

    def _judge_done(self, linked: set[tuple[int, str]]) -> None:
        """Refuse to go on with an upload whose link was collected: nothing has kept its bytes since."""
        for place, proven in self._left():
            if self._uploads[proven.upload_id].state == "done" and (self._home(proven), proven.oid) not in linked:
                self._answers[place] = ObjectAbsent("This upload was closed; ask for a new one with a batch request.")

    def _read_links(self) -> set[tuple[int, str]]:
        return {
            (repo_id, row.oid)
            for repo_id, oids in self._by_repo().items()
            for row in self._statements.links.within(self._connection, {"repo": repo_id, "oids": oids})
        }

    def _by_repo(self) -> dict[int, list[str]]:
        found: dict[int, set[str]] = {}
        for _, proven in self._left():
            found.setdefault(self._home(proven), set()).add(proven.oid)
        return {repo_id: sorted(found[repo_id]) for repo_id in sorted(found)}

    def _count(self, homes: dict[int, Any], linked: set[tuple[int, str]]) -> None:
        """Refuse what a quota has no room for. Reservations of others were promised beside this one: only what is held
        counts against it, and so no quota is ever passed."""
        growing: dict[int, list[tuple[int, Proven]]] = {}
        for place, proven in self._left():
            home = homes[self._home(proven)]
            if (home.id, proven.oid) not in linked and self._quotas.applies(home.quota):
                growing.setdefault(home.namespace_id, []).append((place, proven))
        for namespace_id in sorted(growing):
            usage = self._quotas.held(self._connection, namespace_id)
            taken: dict[tuple[int, str], int] = {}
            for place, proven in growing[namespace_id]:
                new = taken | {(self._home(proven), proven.oid): proven.size}
                try:
                    if usage is not None:
                        usage.check(sum(new.values()), reserved=False)
                    taken = new
                except QuotaExceeded as error:
                    self._answers[place] = error

    def _store(self) -> None:
        """Make the object rows, or bring them back to life, and find the keys that are served."""
        by_oid: dict[str, list[tuple[int, Proven]]] = {}
        for place, proven in self._left():
            by_oid.setdefault(proven.oid, []).append((place, proven))
        for row in self._objects({oid: by_oid[oid][0][1] for oid in sorted(by_oid)}):
            state, key = row.state, row.key
            for place, proven in by_oid[row.oid]:
                error = _unfit(proven, row.size, state, key)
                if error is None and (state != "stored" or self._is_needed(proven, key)):
                    self._revive(proven, state)
                    state, key = "stored", proven.key
                self._answers[place] = error or key

    def _is_needed(self, proven: Proven, key: str) -> bool:
        """Say whether these bytes stand in for a file under `key` that is holed, or strewn as they are not."""
        if proven.key == key or not key.startswith(FILES):
            return False
        if holed_among([key], lambda files: self._statements.holed.within(self._connection, files)):
            return True
        keys = [key, proven.key]
        return holed_among(keys, lambda files: self._statements.strewn.within(self._connection, files)) == {key}

    def _objects(self, wanted: dict[str, Proven]) -> list[Any]:
        """Lock the rows of objects, made where there is none."""
        found: dict[str, Any] = {}
        while left := [oid for oid in wanted if oid not in found]:
            self._statements.new_objects.put(self._connection, [self._new_object(wanted[oid]) for oid in left])
            # A row that the insert met may have been swept since: then it is made in another turn.
            found |= {row.oid: row for row in self._statements.objects.within(self._connection, {"oids": left})}
        return [found[oid] for oid in wanted]

    def _new_object(self, proven: Proven) -> tuple[object, ...]:
        return (proven.oid, proven.size, proven.key, _kind(proven.key), "stored", self._moment, None, None)

    def _revive(self, proven: Proven, state: str) -> None:
        # Guarded by the state: what a sweeper does later to the row it claimed finds no such row any more.
        again = sa.update(lfs_objects).where(lfs_objects.c.oid == proven.oid, lfs_objects.c.state == state)
        values = {"state": "stored", "key": proven.key, "stored_at": self._moment, "condemned_at": None}
        self._connection.execute(again.values(values | {"kind": _kind(proven.key), "checked_at": None}))

    def _link(self, linked: set[tuple[int, str]]) -> None:
        new: dict[tuple[int, str], tuple[object, ...]] = {}
        grown: dict[int, int] = {}
        for _, proven in self._left():
            row = self._uploads[proven.upload_id]
            at = (row.repo_id, proven.oid)
            if at in linked or at in new:
                continue
            new[at] = (row.repo_id, proven.oid, proven.size, row.actor_id, self._moment, self._moment)
            grown[row.repo_id] = grown.get(row.repo_id, 0) + proven.size
        more = [{"repo": repo_id, "more": grown[repo_id]} for repo_id in sorted(grown)]
        self._statements.new_links.put(self._connection, list(new.values()))
        self._statements.grown.put(self._connection, more)
        kept = sorted((repo_id, oid) for repo_id, oids in self._by_repo().items() for oid in oids)
        seen = [{"repo": at[0], "seen": at[1], "moment": self._moment} for at in kept if at in linked]
        self._statements.seen.put(self._connection, seen)

    def _close(self) -> None:
        done = sorted((proven.upload_id, str(self._answers[place])) for place, proven in self._left())
        self._statements.done.put(self._connection, [{"upload": upload, "served": key} for upload, key in done])
        files = [
            {"repo": self._home(proven), "hash": parse(proven.key.removeprefix(FILES)), "oid": proven.oid}
            for _, proven in self._left()
            if proven.key.startswith(FILES)
        ]
        self._statements.file_proven.put(self._connection, files)


def _kind(key: str) -> str:
    return "xet" if key.startswith(FILES) else "whole"


def _objection(proven: Proven, upload: Any, alive: Iterable[int]) -> RegistryError | None:
    if upload is None:
        return ObjectAbsent("This upload is unknown or was closed; ask for a new one with a batch request.")
    if upload.oid != proven.oid:
        return DigestMismatch(f"This upload is for LFS object {upload.oid}, not {proven.oid}.")
    if upload.size != proven.size:
        return SizeMismatch(f"LFS object {proven.oid} was announced with {upload.size} bytes, not {proven.size}.")
    if upload.repo_id not in alive:
        return ObjectAbsent("The repo of this upload is gone.")
    if upload.state == "failed":
        return ObjectAbsent(f"This upload failed: {upload.reason} Ask for a new one with a batch request.")
    return None


def _unfit(proven: Proven, size: int, state: str, key: str) -> RegistryError | None:
    """Say why bytes at this key cannot stand for the object as it is known."""
    if size != proven.size:
        return Damaged(
            f"LFS object {proven.oid} is recorded with {size} bytes, not {proven.size}; run `weightroom fsck`."
        )
    if state in ("deleting", "damaged") and key == proven.key and not key.startswith(FILES):
        # Under this key lie the damaged bytes, or soon nothing; another upload is given a key of its own. A file that
        # is put together from chunks has nothing of its own there.
        return Busy("This object is being replaced at this moment; send it again in a few seconds.")
    return None
