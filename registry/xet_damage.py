"""Xorbs whose bytes are others: put aside, so that nobody is told that they are here, and told as events.

    xorb.damaged   the xorb, its key, what is wrong, and how many files cannot be read any more
    file.damaged   for each repo: the names of such files, SHA-256 or hash of the file
    xorb.sound     it was put aside, and its bytes are right after all
    xorb.healed    it was put aside, and its bytes came again (`xet_xorbs`)

Whoever meets them comes here: a reader, a filing, a scrub, a repair. It is heard once: who is second, or speaks of
bytes that were replaced meanwhile, changes nothing. What that makes of objects: `xet_holes`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from lfs.xet import hashes
from lfs.xet.index import Xorb
from registry.db import Database, now
from registry.names import RepoId
from registry.tables.identity import namespaces
from registry.tables.repos import repos
from registry.tables.work import events
from registry.tables.xet import xet_file_xorbs, xet_links, xet_xorbs
from registry.xet_xorbs import USABLE

log = logging.getLogger(__name__)

_NAMES = 1000
"""Files of one repo that are named in an event."""
_LISTED = 10
"""Files that are named to people."""
_LINKS = xet_links.join(xet_file_xorbs, xet_file_xorbs.c.file == xet_links.c.file)
_OF_IT = sa.and_(xet_file_xorbs.c.xorb == sa.bindparam("xorb"), xet_links.c.state != "refuted")
_REPOS = (
    sa.select(repos.c.id, repos.c.type, namespaces.c.name.label("namespace"), repos.c.name)
    .add_columns(sa.func.count().label("files"))
    .select_from(
        _LINKS.join(repos, repos.c.id == xet_links.c.repo_id).join(namespaces, namespaces.c.id == repos.c.namespace_id)
    )
    .where(_OF_IT)
    .group_by(repos.c.id, repos.c.type, namespaces.c.name, repos.c.name)
    .order_by(repos.c.id)
)
_FILES = (
    sa.select(xet_links.c.file, xet_links.c.sha256)
    .select_from(_LINKS)
    .where(_OF_IT, xet_links.c.repo_id == sa.bindparam("repo"))
    .order_by(xet_links.c.sha256, xet_links.c.file)
    .limit(sa.bindparam("most"))
)


@dataclass(frozen=True, slots=True)
class Holed:
    """Files of a repo that need a xorb: how many, and the first of their names, which are SHA-256s, or hashes of files
    where nobody said one."""

    repo_id: int
    repo: str
    files: int
    names: tuple[str, ...]


class Damage:
    """Notes which xorbs are bad, and which are not any more. Thread-safe, among processes too."""

    def __init__(self, database: Database, *, clock: Callable[[], datetime] = now) -> None:
        self._db = database
        self._clock = clock

    def put_aside(self, hash: bytes, key: str, why: str) -> bool:
        """Quarantine a xorb that lies under `key`, with its events, in one transaction; `why` says what "it" does.

        False if it lies under another key by now, or was put aside before.
        """
        here = sa.and_(xet_xorbs.c.hash == hash, xet_xorbs.c.key == key, USABLE)
        name = hashes.text(hash)
        with self._db.write() as connection:
            aside = sa.update(xet_xorbs).where(here).values(state="quarantined", condemned_at=None)
            if connection.execute(aside).rowcount != 1:
                return False
            rows = connection.execute(_REPOS, {"xorb": hash}).all()
            files = sum(row.files for row in rows)
            self._tell(connection, "xorb.damaged", name, {"key": key, "why": why, "files": files})
            # One repo after another: all the names together may be millions.
            for row in rows:
                names = _names(connection, hash, row.id, _NAMES)
                self._tell(connection, "file.damaged", name, {"files": names}, row.id)
            needed = listed(_holed(connection, hash, rows))
        log.error("xorb %s is put aside: it %s; files that need it: %s", name, why, needed)
        return True

    def believe(self, xorb: Xorb, state: str, **values: object) -> bool:
        """Change what the row of a sound xorb in this state says, and let it live if it was put aside; False if it
        changed meanwhile."""
        here = sa.and_(xet_xorbs.c.hash == xorb.hash, xet_xorbs.c.key == xorb.key, xet_xorbs.c.state == state)
        moment = self._clock()
        if state == "quarantined":
            values |= {"state": "live", "verified_at": moment, "scrubbed_at": moment}
        with self._db.write() as connection:
            if connection.execute(sa.update(xet_xorbs).where(here).values(values)).rowcount != 1:
                return False
            self._tell(connection, "xorb.sound", hashes.text(xorb.hash), {"key": xorb.key, "was": state})
        return True

    def count(self) -> int:
        """Count the xorbs that are put aside."""
        with self._db.look() as connection:
            bad = sa.select(sa.func.count()).where(xet_xorbs.c.state == "quarantined")
            return int(connection.execute(bad).scalar_one())

    def _tell(
        self, connection: Connection, act: str, subject: str, body: dict[str, object], repo_id: int | None = None
    ) -> None:
        event = {"at": self._clock(), "act": act, "repo_id": repo_id, "subject": subject, "body": body}
        connection.execute(sa.insert(events).values(event))


def holed(connection: Connection, hash: bytes) -> list[Holed]:
    """List the files that need a xorb, repo by repo; those that `listed` names have their names."""
    return _holed(connection, hash, connection.execute(_REPOS, {"xorb": hash}).all())


def _holed(connection: Connection, hash: bytes, rows: Sequence[Any]) -> list[Holed]:
    found: list[Holed] = []
    for row in rows:
        left = max(0, _LISTED - sum(len(each.names) for each in found))
        names = _names(connection, hash, row.id, left) if left else []
        repo = RepoId(row.type, row.namespace, row.name).web
        found.append(Holed(row.id, repo, row.files, tuple(names)))
    return found


def _names(connection: Connection, hash: bytes, repo_id: int, most: int) -> list[str]:
    rows = connection.execute(_FILES, {"xorb": hash, "repo": repo_id, "most": most})
    return [row.sha256 or hashes.text(bytes(row.file)) for row in rows]


def listed(files: Sequence[Holed]) -> str:
    """Name files for people, the first ten of them."""
    said = [f"{each.repo} {name}" for each in files for name in each.names]
    more = sum(each.files for each in files) - len(said)
    return ", ".join([*said, f"{more} more"] if more else said) or "none"
