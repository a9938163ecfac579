"""What a shard says of its files, before a repo: links, and uploads by whose proof these become proven or refuted.

link      declared when it is made, or when it was refuted and is filed again
upload    arrived; owed for each SHA-256 that is not proven, or whose object the repo lost or was found damaged
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from lfs.host import Upload
from lfs.store import file_key
from lfs.xet.hashes import text
from lfs.xet.index import File, Filing, Leave
from registry.db import Database
from registry.links import parts_of
from registry.quota import Usage
from registry.tables.objects import lfs_links, lfs_objects, lfs_uploads
from registry.tables.xet import xet_links
from registry.uploads import arrived_rows

Said = tuple[bytes, str]
"""A file, and the SHA-256 that it is said to have."""

_FRESH = timedelta(days=1)
_STATES = sa.select(xet_links.c.file, xet_links.c.sha256, xet_links.c.state, xet_links.c.created_at).where(
    xet_links.c.repo_id == sa.bindparam("repo"), xet_links.c.file.in_(sa.bindparam("hashes", expanding=True))
)
_HELD = (
    sa.select(lfs_links.c.oid, lfs_objects.c.state)
    .join(lfs_objects, lfs_objects.c.oid == lfs_links.c.oid)
    .where(lfs_links.c.repo_id == sa.bindparam("repo"), lfs_links.c.oid.in_(sa.bindparam("oids", expanding=True)))
)
_UPLOADS = sa.select(lfs_uploads.c.oid, lfs_uploads.c.size, lfs_uploads.c.key).where(
    lfs_uploads.c.repo_id == sa.bindparam("repo"), lfs_uploads.c.oid.in_(sa.bindparam("oids", expanding=True))
)
# Word for word as their index says it, and cast, as SQLite would look through all that wait otherwise: of a shard of
# 131,072 files that was filed again, that was most of the time.
_ARRIVED: sa.ColumnClause[Any] = sa.literal_column("'arrived'")
_WAITING = _UPLOADS.where(sa.cast(lfs_uploads.c.state, sa.Text) == _ARRIVED)
_OPEN = _UPLOADS.where(lfs_uploads.c.state == "open", lfs_uploads.c.expires_at > sa.bindparam("moment"))
# Young again for upkeep, which takes old links away: a commit of the file may be still to come.
_AGAIN = (
    sa.update(xet_links)
    .where(
        xet_links.c.repo_id == sa.bindparam("repo"),
        xet_links.c.file == sa.bindparam("hash"),
        xet_links.c.sha256 == sa.bindparam("oid"),
    )
    .values(
        state=sa.case((xet_links.c.state == "refuted", "declared"), else_=xet_links.c.state),
        created_at=sa.bindparam("moment"),
    )
)
_SEEN = (
    sa.update(lfs_links)
    .where(lfs_links.c.repo_id == sa.bindparam("repo"), lfs_links.c.oid == sa.bindparam("seen"))
    .values(seen_at=sa.bindparam("moment"))
)


@dataclass(frozen=True, slots=True)
class _Link:
    """A link that the repo has to a file of a shard."""

    state: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class _Standing:
    """How the objects of a shard stand in the repo."""

    linked: Mapping[str, str]
    """The states of those that it holds."""
    sizes: Mapping[str, int]
    """Bytes that were announced to it, or came and wait for their proof."""
    waiting: frozenset[tuple[str, str]]
    """Oids and keys that wait for their proof."""


class XetLinks:
    """Opens files to repos, within transactions that others hold. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._states = database.prepare(_STATES)
        self._held = database.prepare(_HELD)
        self._waiting = database.prepare(_WAITING)
        self._open = database.prepare(_OPEN)
        self._new_links = database.prepare_insert(xet_links)
        self._new_uploads = database.prepare_insert(lfs_uploads)
        self._again = database.prepare_change(_AGAIN)
        self._seen = database.prepare_change(_SEEN)

    def look(self, connection: Connection, leave: Leave, filings: Sequence[Filing], moment: datetime) -> Opening:
        """Find out what is to be opened. The caller holds the lock of the repo."""
        said = {(filing.file.hash, filing.sha256): filing.file for filing in filings}
        links = {
            (bytes(row.file), row.sha256): _Link(row.state, row.created_at)
            for part in parts_of({hash for hash, _ in said})
            for row in self._states.within(connection, {"repo": leave.repo_id, "hashes": part})
        }
        standing = self._standing(connection, leave.repo_id, {sha256 for _, sha256 in said if sha256}, moment)
        owed, seen = {}, set()
        for (hash, sha256), file in said.items():
            link = links.get((hash, sha256))
            if link is not None and link.state == "proven" and standing.linked.get(sha256) == "stored":
                seen.add(sha256)
            elif sha256 and (sha256, file_key(text(hash))) not in standing.waiting:
                owed[hash, sha256] = _upload(leave, file, sha256)
        return Opening(leave, moment, said, links, owed, frozenset(seen), standing)

    def _standing(self, connection: Connection, repo_id: int, oids: set[str], moment: datetime) -> _Standing:
        linked: dict[str, str] = {}
        sizes: dict[str, int] = {}
        waiting: set[tuple[str, str]] = set()
        for part in parts_of(oids):
            asked = {"repo": repo_id, "oids": part}
            linked |= {row.oid: row.state for row in self._held.within(connection, asked)}
            arrived = self._waiting.within(connection, asked)
            waiting |= {(row.oid, row.key) for row in arrived}
            for row in (*arrived, *self._open.within(connection, asked | {"moment": moment})):
                sizes[row.oid] = max(sizes.get(row.oid, 0), row.size)
        return _Standing(linked, sizes, frozenset(waiting))

    def open(self, connection: Connection, opening: Opening) -> bool:
        """Write the links and uploads; True if one was not there, or has to be proven again."""
        leave, moment = opening.leave, opening.moment
        at = {"repo": leave.repo_id, "moment": moment}
        new, again, changed = [], [], bool(opening.owed)
        for (hash, sha256), file in sorted(opening.said.items()):
            link = opening.links.get((hash, sha256))
            if link is None:
                new.append((leave.repo_id, hash, sha256, file.size, leave.actor_id or None, "declared", moment))
            elif link.state == "refuted" or link.created_at < moment - _FRESH or (hash, sha256) in opening.owed:
                again.append(at | {"hash": hash, "oid": sha256})
                changed |= link.state == "refuted"
        self._new_links.put(connection, new)
        self._again.put(connection, again)
        self._seen.put(connection, [at | {"seen": oid} for oid in sorted(opening.seen)])
        self._new_uploads.put(connection, arrived_rows(list(opening.owed.values()), moment))
        return changed or bool(new)


@dataclass(frozen=True, slots=True)
class Opening:
    """What a shard opens to the repo of `leave`."""

    leave: Leave
    moment: datetime
    said: Mapping[Said, File]
    links: Mapping[Said, _Link]
    """Those that are there."""
    owed: Mapping[Said, Upload]
    """Uploads for what has to be proven yet."""
    seen: frozenset[str]
    """Objects that the repo has, proven."""
    standing: _Standing

    def check(self, usage: Usage, *, more: int = 0) -> None:
        """Look whether what is owed fits beside what is held and on its way, each object once; and `more` bytes.

        A file that says no SHA-256 is owed when its link is made. Raises: QuotaExceeded.
        """
        asked: dict[str, int] = {}
        for upload in self.owed.values():
            if upload.oid not in self.standing.linked:
                left = max(0, upload.size - self.standing.sizes.get(upload.oid, 0))
                asked[upload.oid] = max(asked.get(upload.oid, 0), left)
        unnamed = sum(file.size for said, file in self.said.items() if not said[1] and said not in self.links)
        usage.check(sum(asked.values()) + unnamed + more)


def _upload(leave: Leave, file: File, oid: str) -> Upload:
    key = file_key(text(file.hash))
    return Upload("", leave.repo_id, leave.actor_id, oid, file.size, "xet", "arrived", key)
