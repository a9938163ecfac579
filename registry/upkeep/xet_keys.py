"""Grants that nobody can use any more, and keys of Xet that no row names.

    xet/xorbs/ab/<hash>.<proof>    the row of the xorb names it; bytes come before their row
    xet/tables/ab/<hash>.<proof>   the same
    xet/shards/ab/<sha256>         a file is here that it tells of

No proof takes up the key of another. A shard may come again under its key: who files it needs the rows, not the shard.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from lfs.errors import BadXet, Damaged, Missing
from lfs.store import ObjectStore
from lfs.xet import hashes, shards
from registry.db import Database
from registry.links import parts_of
from registry.tables.xet import xet_files, xet_grants, xet_xorbs
from registry.upkeep.paging import in_groups
from registry.upkeep.reclaim import Graces, Line, Step, day

COMING = timedelta(hours=1)
"""Longer than a proof takes from the first byte that is stored to the row; no grace is shorter."""
_TOGETHER = 500
_SHAPE = re.compile(
    r"xet/(?:xorbs|tables)/[0-9a-f]{2}/(?P<xorb>[0-9a-f]{64})\.[0-9a-f]+|xet/shards/[0-9a-f]{2}/(?P<shard>[0-9a-f]{64})"
)


class XetKeys:
    """Plans and deletes what no row of Xet names."""

    def __init__(self, database: Database, store: ObjectStore, graces: Graces) -> None:
        self._db = database
        self._store = store
        self._graces = graces

    def grants(self, moment: datetime) -> Iterator[Step]:
        """Plan to forget grants that have expired; bytes that came by them are swept as keys."""
        old = xet_grants.c.expires_at <= moment - self._graces.claim
        sums = sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(xet_grants.c.length), 0))
        with self._db.read() as connection:
            count, size = connection.execute(sums.where(old)).one()
        if not count:
            return
        line = Line("forget", "grant", f"{count} of them", int(size), "they have expired and were not used")

        def do(run: int) -> Sequence[Line]:
            with self._db.write() as connection:
                connection.execute(sa.delete(xet_grants).where(old))
            return [line]

        yield Step((line,), do)

    def orphans(self, moment: datetime) -> Iterator[Step]:
        """Plan to delete bodies, tables and shards that no row names."""
        for page in in_groups(self._store.walk("xet/"), _TOGETHER):
            for key in self._unnamed(page):
                yield from self._orphan(key, moment)

    def _orphan(self, key: str, moment: datetime) -> Iterator[Step]:
        found = _SHAPE.fullmatch(key)
        if found is None:
            line = Line("skip", "key", key, 0, "no room of ours makes such a key; look whose it is")
            yield Step((line,), lambda run: (line,))
            return
        try:
            stat = self._store.stat(key)
        except Missing:
            return
        if stat.at > moment - max(self._graces.key, COMING) or (found["shard"] and self._is_told_of(key)):
            return
        line = Line("sweep", "key", key, stat.size, f"no row names it, and it was written {day(stat.at)}")

        def do(run: int) -> Sequence[Line]:
            if not self._unnamed([key]) or (found["shard"] and self._is_told_of(key)):
                return [line.kept("a row names it by now")]
            self._store.delete(key)
            return [line]

        yield Step((line,), do)

    def _unnamed(self, keys: Sequence[str]) -> list[str]:
        """Leave out the keys that rows name at this moment."""
        with self._db.read() as connection:
            named = named_xorbs(connection, keys)
        return [key for key in keys if key not in named]

    def _is_told_of(self, key: str) -> bool:
        """Say whether a shard still tells how a file that is here is made."""
        try:
            with self._store.open(key) as reader:
                wanted = [file.hash for file in shards.parse(reader.read_all()).files]
        except (BadXet, Damaged, Missing):
            return False
        chosen = sa.select(xet_files.c.hash).limit(1)
        with self._db.read() as connection:
            some = (connection.execute(chosen.where(xet_files.c.hash.in_(part))) for part in parts_of(wanted))
            return any(found.first() is not None for found in some)


def named_xorbs(connection: Connection, keys: Sequence[str]) -> set[str]:
    """Choose, of any keys, those that the row of a xorb names."""
    found = [match["xorb"] for match in map(_SHAPE.fullmatch, keys) if match is not None and match["xorb"]]
    if not found:
        return set()
    chosen = sa.select(xet_xorbs.c.key, xet_xorbs.c.table_key)
    chosen = chosen.where(xet_xorbs.c.hash.in_(sorted({hashes.parse(text) for text in found})))
    return {key for row in connection.execute(chosen) for key in row} & set(keys)
