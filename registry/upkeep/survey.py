"""How much lies on which shelf while bytes move, and whether the one that is left may be left for good.

A key that only the old shelf has is needed if a row names it. Others are left over: an upload that was dropped, bytes
that a repair set aside, what can be rebuilt.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import datetime
from itertools import islice
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from lfs.errors import Missing
from lfs.store import ObjectStore
from registry.db import Database, now
from registry.tables.objects import lfs_objects, lfs_uploads, packs
from registry.tables.xet import xet_grants
from registry.upkeep.moving import missing, named
from registry.upkeep.xet_keys import named_keys

_CHUNK = 500
_THREADS = 8
_BY_PARTS = ("multipart", "tus", "staging", "direct")


@dataclass(slots=True)
class Share:
    """Keys and their bytes."""

    keys: int = 0
    bytes: int = 0

    def add(self, size: int) -> None:
        """Count one key."""
        self.keys += 1
        self.bytes += size


@dataclass(slots=True)
class Survey:
    """What lies where. `to` and `source` are by the first part of keys; `needed` and `spare` are in `source` alone."""

    to: dict[str, Share] = field(default_factory=dict)
    source: dict[str, Share] = field(default_factory=dict)
    needed: Share = field(default_factory=Share)
    spare: Share = field(default_factory=Share)
    uploads: int = 0
    """Uploads on their way; those begun on the old shelf would have to begin again."""

    @property
    def done(self) -> bool:
        """True if the old shelf holds nothing that is needed and not on the new one."""
        return not self.needed.keys

    def fields(self) -> dict[str, Any]:
        """Say it by name."""
        return asdict(self) | {"done": self.done}


def survey(database: Database, *, to: ObjectStore, source: ObjectStore | None) -> Survey:
    """Look at both shelves; they may be in use. Raises: Denied, Unavailable, Busy."""
    made = Survey()
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="survey") as pool:
        _measure(pool, to, to.walk(), made.to)
        if source is not None:
            _measure(pool, source, source.walk(), made.source)
            for keys in _chunks(missing(to, source)):
                with database.read() as connection:
                    wanted = _wanted(connection, keys)
                for key, size in zip(keys, _sizes(pool, source, keys), strict=True):
                    # What went meanwhile is nowhere, and so is not left behind.
                    if size is not None:
                        (made.needed if key in wanted else made.spare).add(size)
    made.uploads = _open_uploads(database, now())
    return made


def _measure(pool: ThreadPoolExecutor, store: ObjectStore, keys: Iterator[str], into: dict[str, Share]) -> None:
    for chunk in _chunks(keys):
        for key, size in zip(chunk, _sizes(pool, store, chunk), strict=True):
            if size is not None:
                into.setdefault(key.partition("/")[0], Share()).add(size)


def _sizes(pool: ThreadPoolExecutor, store: ObjectStore, keys: Iterable[str]) -> Iterator[int | None]:
    def size(key: str) -> int | None:
        try:
            return store.stat(key).size
        except Missing:
            return None

    return pool.map(size, keys)


def _wanted(connection: Connection, keys: list[str]) -> set[str]:
    """Choose the keys that a row names: an object that is served or may be asked back, a pack, a xorb and its table, a
    shard, bytes to be proven."""
    # Found by what the keys are named after: few objects have an index of keys.
    oids = {oid for key in keys if key.startswith("lfs/") and (oid := named(key))}
    objects = sa.select(lfs_objects.c.key).where(
        lfs_objects.c.oid.in_(sorted(oids)), lfs_objects.c.state.in_(["stored", "condemned"])
    )
    arrived = sa.select(lfs_uploads.c.key).where(lfs_uploads.c.key.in_(keys), lfs_uploads.c.state == "arrived")
    wanted = {*connection.execute(objects).scalars(), *connection.execute(arrived).scalars()}
    files = {oid: key for key in keys if key.startswith("git/") and (oid := named(key))}
    for column in (packs.c.id, packs.c.idx_oid, packs.c.intro_oid):
        chosen = sa.select(column).where(column.in_(list(files)), packs.c.state != "deleting")
        wanted.update(files[oid] for oid in connection.execute(chosen).scalars())
    waiting = {key.rpartition("/")[2]: key for key in keys if key.startswith("staging/")}
    if waiting:
        chosen = sa.select(lfs_uploads.c.id).where(
            lfs_uploads.c.id.in_(list(waiting)), lfs_uploads.c.state.in_(["open", "arrived"])
        )
        granted = sa.select(xet_grants.c.id).where(xet_grants.c.id.in_(list(waiting)), xet_grants.c.expires_at > now())
        for ids in (chosen, granted):
            wanted.update(waiting[upload] for upload in connection.execute(ids).scalars())
    return wanted & set(keys) | named_keys(connection, keys)


def _open_uploads(database: Database, moment: datetime) -> int:
    chosen = sa.select(sa.func.count()).where(
        lfs_uploads.c.state == "open", lfs_uploads.c.mode.in_(_BY_PARTS), lfs_uploads.c.expires_at > moment
    )
    with database.read() as connection:
        return int(connection.execute(chosen).scalar_one())


def _chunks(keys: Iterator[str]) -> Iterator[list[str]]:
    while chunk := list(islice(keys, _CHUNK)):
        yield chunk
