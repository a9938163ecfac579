"""Keys of Xet in the store that no row names.

    xet/xorbs/ab/<hash>.<proof>    the row of the xorb names it; bytes come before their row
    xet/tables/ab/<hash>.<proof>   the same
    xet/shards/ab/<sha256>         a file has its terms from it

No proof takes up the key of another. A shard may come again under its key, and its bytes are old then: whoever files it
finds them in their place, and they may go before its rows are there. That harms nobody. A shard is a record of what a
client said; rows are made from the bytes that came, and nothing reads what is stored.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from lfs.errors import Missing
from lfs.store import ObjectStore, shard_key
from lfs.xet import hashes
from registry.db import Database
from registry.tables.xet import xet_files, xet_xorbs
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

    def orphans(self, moment: datetime) -> Iterator[Step]:
        """Plan to delete bodies, tables and shards that no row names."""
        for page in in_groups(self._store.walk("xet/"), _TOGETHER):
            for key in self._unnamed(page):
                yield from self._orphan(key, moment)

    def _orphan(self, key: str, moment: datetime) -> Iterator[Step]:
        if _SHAPE.fullmatch(key) is None:
            line = Line("skip", "key", key, 0, "no room of ours makes such a key; look whose it is")
            yield Step((line,), lambda run: (line,))
            return
        try:
            stat = self._store.stat(key)
        except Missing:
            return
        if stat.at > moment - max(self._graces.key, COMING):
            return
        line = Line("sweep", "key", key, stat.size, f"no row names it, and it was written {day(stat.at)}")

        def do(run: int) -> Sequence[Line]:
            if not self._unnamed([key]):
                return [line.kept("a row names it by now")]
            self._store.delete(key)
            return [line]

        yield Step((line,), do)

    def _unnamed(self, keys: Sequence[str]) -> list[str]:
        """Leave out the keys that rows name at this moment."""
        with self._db.read() as connection:
            named = named_keys(connection, keys)
        return [key for key in keys if key not in named]


def named_keys(connection: Connection, keys: Sequence[str]) -> set[str]:
    """Choose, of any keys, those that the row of a xorb or of a file names."""
    found = [match for match in map(_SHAPE.fullmatch, keys) if match is not None]
    xorbs = {hashes.parse(match["xorb"]) for match in found if match["xorb"]}
    shards = {match["shard"] for match in found if match["shard"]}
    named: set[str] = set()
    if xorbs:
        chosen = sa.select(xet_xorbs.c.key, xet_xorbs.c.table_key).where(xet_xorbs.c.hash.in_(sorted(xorbs)))
        named |= {key for row in connection.execute(chosen) for key in row}
    if shards:
        told = sa.select(xet_files.c.shard).where(xet_files.c.shard.in_(sorted(shards))).distinct()
        named |= {shard_key(sha256) for sha256 in connection.execute(told).scalars()}
    return named & set(keys)
