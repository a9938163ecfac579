"""What the bucket enforces: asked once a day for all processes, kept in a row, told to the shelf.

Until something is known of a bucket no upload goes to it directly. A row speaks for one address and one access key:
another bucket, or other credentials, are asked anew.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import datetime, timedelta

import sqlalchemy as sa

from lfs.store import ObjectStore, Probe
from registry.db import Database, now
from registry.links import insert_unless_there
from registry.tables.work import storage_probes

FRESH = timedelta(days=1)


class Probing:
    """Finds out, remembers and applies. Thread-safe; several processes that ask at once do no harm.

    `url` is the storage URL and `access_key` the one that goes with it, empty if boto3 finds its own.
    """

    def __init__(
        self,
        *,
        database: Database,
        store: ObjectStore,
        url: str,
        access_key: str,
        clock: Callable[[], datetime] = now,
    ) -> None:
        self._db = database
        self._store = store
        self._id = hashlib.sha256(f"{url}\n{access_key}".encode()).hexdigest()
        self._clock = clock
        self.found: Probe | None = None
        """What the shelf was told last."""

    def settle(self) -> Probe:
        """Tell the shelf what is known of it, after asking if that is older than a day.

        Raises: Busy (the database), Denied, Unavailable.
        """
        probe = self._recorded() or self.ask()
        self._store.believe(probe)
        self.found = probe
        return probe

    def ask(self) -> Probe:
        """Try out what the shelf enforces, and record it. Raises: Busy, Denied, Unavailable."""
        probe = self._store.probe()
        found = {"proof": probe.enforces, "details": dict(probe.details), "at": self._clock()}
        with self._db.write() as connection:
            here = sa.update(storage_probes).where(storage_probes.c.id == self._id)
            if connection.execute(here.values(found)).rowcount == 0:
                # Another process may have asked at the same moment; the answers are the same.
                insert_unless_there(connection, storage_probes, [{"id": self._id, **found}])
        return probe

    def _recorded(self) -> Probe | None:
        chosen = sa.select(storage_probes.c.proof, storage_probes.c.details, storage_probes.c.at)
        with self._db.read() as connection:
            row = connection.execute(chosen.where(storage_probes.c.id == self._id)).first()
        if row is None or row.at < self._clock() - FRESH:
            return None
        return Probe(row.proof, row.details)
