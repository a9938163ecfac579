"""Xorbs whose bytes are others: put aside, so that nobody is told that they are here, and told as events.

xorb.damaged   the xorb, its key, and what is wrong
file.damaged   for each repo: the names of its files that cannot be read any more, SHA-256 or hash of the file
xorb.sound     it was put aside, and its bytes are right after all
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

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
_HOLED = (
    sa.select(xet_links.c.repo_id, repos.c.type, namespaces.c.name.label("namespace"), repos.c.name)
    .add_columns(xet_links.c.file, xet_links.c.sha256)
    .join(xet_file_xorbs, xet_file_xorbs.c.file == xet_links.c.file)
    .join(repos, repos.c.id == xet_links.c.repo_id)
    .join(namespaces, namespaces.c.id == repos.c.namespace_id)
    .where(xet_file_xorbs.c.xorb == sa.bindparam("xorb"), xet_links.c.state != "refuted")
    .order_by(xet_links.c.repo_id, xet_links.c.sha256)
)


@dataclass(frozen=True, slots=True)
class Holed:
    """A file of a repo that needs a xorb: its SHA-256, or its own hash where nobody said one."""

    repo_id: int
    repo: str
    name: str


class Damage:
    """Notes which xorbs are bad, and which are not any more. Thread-safe."""

    def __init__(self, database: Database, *, clock: Callable[[], datetime] = now) -> None:
        self._db = database
        self._clock = clock

    def put_aside(self, xorb: Xorb, why: str) -> bool:
        """Quarantine a xorb, with its events; False if it lies under other keys by now, or was put aside before."""
        here = sa.and_(xet_xorbs.c.hash == xorb.hash, xet_xorbs.c.key == xorb.key, USABLE)
        name = hashes.text(xorb.hash)
        with self._db.write() as connection:
            aside = sa.update(xet_xorbs).where(here).values(state="quarantined", condemned_at=None)
            if connection.execute(aside).rowcount != 1:
                return False
            files = holed(connection, xorb.hash)
            self._tell(connection, "xorb.damaged", name, {"key": xorb.key, "why": why, "files": len(files)})
            for repo_id in sorted({one.repo_id for one in files}):
                names = [one.name for one in files if one.repo_id == repo_id][:_NAMES]
                self._tell(connection, "file.damaged", name, {"files": names}, repo_id)
        log.error("xorb %s is put aside: it %s; files that need it: %s", name, why, listed(files))
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
    """List the files that need a xorb, for each repo that links them."""
    return [
        Holed(row.repo_id, RepoId(row.type, row.namespace, row.name).web, row.sha256 or hashes.text(bytes(row.file)))
        for row in connection.execute(_HOLED, {"xorb": hash})
    ]


def listed(files: list[Holed], most: int = 10) -> str:
    """Name files for people, not more than `most` of them."""
    said = [f"{one.repo} {one.name}" for one in files[:most]]
    if len(files) > most:
        said.append(f"{len(files) - most} more")
    return ", ".join(said) or "none"
