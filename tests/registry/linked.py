"""Uploads, links and quotas of one database, and objects linked in one go."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from lfs.host import Opening, Upload, UploadMode, Wanted
from registry.db import Database, now
from registry.linking import Linker, Proven
from registry.links import Links
from registry.quota import Quotas
from registry.uploads import Uploads


@dataclass
class Linked:
    """What the LFS door does to the rows, without the door."""

    database: Database
    quota: int | None = None
    clock: Callable[[], datetime] = now
    quotas: Quotas = field(init=False)
    links: Links = field(init=False)
    uploads: Uploads = field(init=False)
    linker: Linker = field(init=False)

    def __post_init__(self) -> None:
        self.quotas = Quotas(self.database, default=self.quota, clock=self.clock)
        self.links = Links(self.database, clock=self.clock)
        self.uploads = Uploads(self.database, self.quotas, clock=self.clock)
        self.linker = Linker(self.database, self.quotas, clock=self.clock)

    def begin(self, repo_id: int, oid: str, size: int, mode: UploadMode = "proxy", part_size: int = 0) -> Upload:
        """Announce one object as user 1."""
        return self.uploads.begin(repo_id, 1, [Opening(Wanted(oid, size), mode, part_size)])[oid]

    def finish(self, upload: Upload, key: str = "") -> str:
        """Prove an upload; return the key that is served."""
        return self.linker.finish(Proven(upload.id, key or usual_key(upload.oid), upload.oid, upload.size))

    def link(self, repo_id: int, oid: str, size: int, key: str = "") -> str:
        """Announce and prove one object; return the key that is served."""
        return self.finish(self.begin(repo_id, oid, size), key)


def usual_key(oid: str) -> str:
    """The key of an object that came through the server."""
    return f"lfs/{oid[:2]}/{oid[2:4]}/{oid}"


def waits_for_a_lock(database: Database) -> bool:
    """Tell whether some session of a PostgreSQL database waits for another's lock."""
    with database.look() as connection:
        waiting = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        return connection.exec_driver_sql(waiting).first() is not None


def until(true: Callable[[], bool]) -> None:
    """Wait until something is true."""
    late = time.monotonic() + 10
    while not true():
        assert time.monotonic() < late
        time.sleep(0.01)
