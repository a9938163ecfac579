"""Bytes that no row names: left by a crash, by an upload that lost its race, by a delete that did not end.

    lfs/ab/cd/<oid>            an object row names it, or an upload of the oid may be writing it
    lfs/ab/cd/<oid>.<upload>   an object row names it, or the row of that very upload is there and has not failed
    staging/<id>               the upload is open, or has arrived; or it is a grant for a xorb
    git/ab/cd/<sha256>         a pack row names it, as pack, index or sidecar

The age of a key is that of its bytes, or less: the time since its object has lain elsewhere. Downloads and signed URLs
that began before that have the whole grace to end.

A listing proves nothing: each key is looked up again right before it goes. Keys that others may take up under the
same name are claimed first by a row that says `deleting`, as if it had been there, committed before the last look.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from lfs.errors import Missing
from lfs.store import ObjectStore, Stat
from registry.db import Database
from registry.links import insert_unless_there
from registry.tables.objects import lfs_objects, lfs_uploads, packs
from registry.tables.xet import xet_grants
from registry.upkeep.old_packs import OldPacks
from registry.upkeep.paging import in_groups
from registry.upkeep.reclaim import Graces, Line, Step, day
from registry.upkeep.trash import Trash

_TOGETHER = 500
_SHAPE = re.compile(
    r"lfs/(?P<l>[0-9a-f]{2})/(?P<m>[0-9a-f]{2})/(?P<oid>(?P=l)(?P=m)[0-9a-f]{60})(?:\.(?P<own>[0-9a-f]{32}))?"
    r"|staging/(?P<staged>[0-9a-f]{32})"
    r"|git/(?P<g>[0-9a-f]{2})/(?P<h>[0-9a-f]{2})/(?P<sha>(?P=g)(?P=h)[0-9a-f]{60})"
)


@dataclass(frozen=True, slots=True)
class _Key:
    """A key of the store, taken apart; what it does not have is empty."""

    text: str
    oid: str = ""
    upload: str = ""
    sha: str = ""

    @property
    def shared(self) -> bool:
        """True if anybody who brings these bytes may take the key up."""
        return bool(self.sha) or (bool(self.oid) and not self.upload)


class Orphans:
    """Plans and deletes keys without rows."""

    def __init__(
        self,
        database: Database,
        store: ObjectStore,
        graces: Graces,
        *,
        trash: Trash,
        old_packs: OldPacks,
        clock: Callable[[], datetime],
    ) -> None:
        self._db = database
        self._store = store
        self._graces = graces
        self._trash = trash
        self._old_packs = old_packs
        self._clock = clock

    def steps(self, moment: datetime) -> Iterator[Step]:
        """Plan: list the store, ask the rows page by page, and look at the age of what they do not name."""
        for prefix in ("git/", "lfs/", "staging/"):
            for page in in_groups(self._store.walk(prefix), _TOGETHER):
                for key in self._unnamed([_parsed(text) for text in page]):
                    yield from self._step(key, moment)

    def _step(self, key: _Key, moment: datetime) -> Iterator[Step]:
        if not (key.oid or key.upload or key.sha):
            line = Line("skip", "key", key.text, 0, "no room of ours makes such a key; look whose it is")
            yield Step((line,), lambda run: (line,))
            return
        try:
            stat = self._store.stat(key.text)
        except Missing:
            return
        since, why = stat.at, f"it was written {day(stat.at)}"
        if (left := self._left(key)) and left > since:
            since, why = left, f"its object has lain elsewhere since {day(left)}"
        if since <= moment - self._graces.key:
            line = Line("sweep", "key", key.text, stat.size, f"no row names it, and {why}")
            yield self._deleting(key, stat, line)

    def _left(self, key: _Key) -> datetime | None:
        """Say when the object of a key came to lie where it lies now, if it is another place."""
        chosen = sa.select(lfs_objects.c.stored_at).where(lfs_objects.c.oid == key.oid, lfs_objects.c.key != key.text)
        with self._db.look() as connection:
            return connection.execute(chosen).scalar()

    def _deleting(self, key: _Key, stat: Stat, line: Line) -> Step:
        def do(run: int) -> Sequence[Line]:
            gone = self._take(key, stat) if key.shared else self._drop(key)
            return [line if gone else line.kept("a row names it by now")]

        return Step((line,), do)

    def _drop(self, key: _Key) -> bool:
        """Delete a key that nobody can take up again, such as that of an upload that has ended."""
        if not self._unnamed([key]):
            return False
        self._store.delete(key.text)
        return True

    def _take(self, key: _Key, stat: Stat) -> bool:
        """Claim a shared key, look once more, delete."""
        claimed = self._clock()
        with self._db.write() as connection:
            mine = _claim_pack(connection, key, stat, claimed) if key.sha else _claim(connection, key, stat, claimed)
        if key.sha:
            return mine and self._take_pack(key, claimed)
        if not mine:
            # The object lives under another key: whoever brings these bytes again is told of that one.
            return self._drop(key)
        with self._db.write() as connection:
            if _is_coming(connection, key.oid):
                here = sa.and_(lfs_objects.c.oid == key.oid, lfs_objects.c.key == key.text)
                connection.execute(sa.delete(lfs_objects).where(here, lfs_objects.c.state == "deleting"))
                return False
        self._trash.finish({key.oid: key.text}, claimed)
        return True

    def _take_pack(self, key: _Key, claimed: datetime) -> bool:
        chosen = sa.select(packs).where(packs.c.id == key.sha, packs.c.condemned_at == claimed)
        with self._db.look() as connection:
            row = connection.execute(chosen).first()
        if row is not None:
            # It deletes nothing that another row names, and takes the claim away.
            self._old_packs.finish(row, claimed)
        try:
            self._store.stat(key.text)
        except Missing:
            return True
        return False

    def _unnamed(self, keys: Sequence[_Key]) -> list[_Key]:
        """Leave out the keys that rows name at this moment."""
        with self._db.read() as connection:
            named = _named(connection, keys)
        return [key for key in keys if key.text not in named]


def _named(connection: Connection, keys: Sequence[_Key]) -> set[str]:
    oids = {key.oid for key in keys if key.oid}
    objects = sa.select(lfs_objects.c.key).where(lfs_objects.c.oid.in_(oids))
    found = set(connection.execute(objects).scalars())
    coming = sa.select(lfs_uploads.c.oid).where(lfs_uploads.c.oid.in_(oids), _unproven())
    busy = set(connection.execute(coming).scalars())
    chosen = sa.select(lfs_uploads.c.id, lfs_uploads.c.state)
    chosen = chosen.where(lfs_uploads.c.id.in_({key.upload for key in keys if key.upload}))
    uploads = {row.id: row.state for row in connection.execute(chosen)}
    staged = {key.upload for key in keys if key.upload and not key.oid}
    granted = sa.select(xet_grants.c.id).where(xet_grants.c.id.in_(staged))
    uploads |= dict.fromkeys(connection.execute(granted).scalars(), "open")
    git = _named_packs(connection, {key.sha for key in keys if key.sha})
    return found | {key.text for key in keys if _is_used(key, busy, uploads, git)}


def _is_used(key: _Key, busy: set[str], uploads: dict[str, str], git: set[str]) -> bool:
    if key.sha:
        return key.sha in git
    if not key.upload:
        return key.oid in busy
    if key.oid:
        # One that is done may be proven once more, to heal its object: its key stays its own.
        return uploads.get(key.upload, "failed") != "failed"
    return uploads.get(key.upload) in ("open", "arrived")


def _named_packs(connection: Connection, shas: set[str]) -> set[str]:
    names = (packs.c.id, packs.c.idx_oid, packs.c.intro_oid)
    if not shas:
        return set()
    found = connection.execute(sa.select(*names).where(sa.or_(*(name.in_(shas) for name in names))))
    return {sha for row in found for sha in row}


def _unproven() -> sa.ColumnElement[bool]:
    return lfs_uploads.c.state.in_(["open", "arrived"])


def _is_coming(connection: Connection, oid: str) -> bool:
    chosen = sa.select(lfs_uploads.c.id).where(lfs_uploads.c.oid == oid, _unproven()).limit(1)
    return connection.execute(chosen).first() is not None


def _claim(connection: Connection, key: _Key, stat: Stat, claimed: datetime) -> bool:
    """Make an object row that says `deleting`, unless there is a row: uploads that look from now on keep away."""
    values = {"oid": key.oid, "size": stat.size, "key": key.text, "kind": "whole", "state": "deleting"}
    insert_unless_there(connection, lfs_objects, [values | {"stored_at": stat.at, "condemned_at": claimed}])
    chosen = sa.select(lfs_objects.c.state, lfs_objects.c.condemned_at).where(lfs_objects.c.oid == key.oid)
    return tuple(connection.execute(chosen).one()) == ("deleting", claimed)


def _claim_pack(connection: Connection, key: _Key, stat: Stat, claimed: datetime) -> bool:
    """Make a pack row that says `deleting`; the key stands for pack, index and sidecar, since nobody knows which."""
    if _named_packs(connection, {key.sha}):
        return False
    values = {"id": key.sha, "git_sha1": "0" * 40, "bytes": stat.size, "objects": 0, "commits": 0, "why": "push"}
    values |= {"idx_oid": key.sha, "idx_bytes": 0, "intro_oid": key.sha, "intro_bytes": 0, "state": "deleting"}
    insert_unless_there(connection, packs, [values | {"created_at": claimed, "condemned_at": claimed}])
    return True


def _parsed(text: str) -> _Key:
    match = _SHAPE.fullmatch(text)
    if match is None:
        return _Key(text)
    found = match.groupdict(default="")
    return _Key(text, found["oid"], found["own"] or found["staged"], found["sha"])
