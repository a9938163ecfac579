"""Objects that are here twice, as the bytes that came and by their chunks: after a day they are kept by their chunks.

    lfs/ab/cd/<oid>  ── one change of the object's row ──▶  xet/files/<hash>
                        a week later, or more, a sweep ──▶  the bytes that came are gone

The change is one transaction: before it readers are sent the bytes that came, after it the same bytes put together.
Nothing is deleted here. To the sweep, a key that an object has left is as old as the leaving: downloads and signed URLs
that began before end well, and if a xorb goes bad `upkeep/once` goes back to the bytes while they lie there.

Locks are taken in the order files, xorbs, objects, uploads: whoever drops the file, or puts a xorb of it aside, comes
before this and is seen, or comes after it and sees the object.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from lfs.store import file_key
from lfs.xet.hashes import text
from registry.db import Database, now
from registry.tables.objects import lfs_objects, lfs_uploads
from registry.tables.work import events
from registry.tables.xet import xet_file_xorbs, xet_files, xet_links, xet_xorbs
from registry.xet_pieces import IS_STREWN

log = logging.getLogger(__name__)

REST = timedelta(hours=24)
"""Since a file was filed by its chunks. A new file is read most on its first day, and costs least as it came; and many
an upload is replaced or taken back by then."""
PAGE = 2_000
"""Links in one look."""

_START = (0, b"", "")
_PLACE = (xet_links.c.repo_id, xet_links.c.file, xet_links.c.sha256)
_OWN = re.compile(r"lfs/[0-9a-f]{2}/[0-9a-f]{2}/[0-9a-f]{64}\.(?P<upload>[0-9a-f]{32})")


@dataclass(frozen=True, slots=True)
class Twice:
    """An object that lies whole under `key`, and is `file` by its chunks."""

    oid: str
    size: int
    key: str
    file: bytes


class Wholes:
    """Finds such objects, of `smallest` bytes and more, and lets them be kept by their chunks.

    `freed` hears of the bytes of each. Thread-safe among processes; `run` is one thread's.
    """

    def __init__(
        self,
        database: Database,
        *,
        smallest: int,
        freed: Callable[[int], object] = lambda size: None,
        page: int = PAGE,
        clock: Callable[[], datetime] = now,
    ) -> None:
        self._db = database
        self._smallest, self._page = smallest, page
        self._freed, self._clock = freed, clock
        self._after: tuple[int, bytes, str] = _START

    def run(self) -> int:
        """Look at the next links, and change what is due; return how many were. The end is followed by the beginning.

        Raises: Busy.
        """
        found, end = self._look()
        changed = [one for one in found if self.change(one)]
        self._after = end
        return len(changed)

    def _look(self) -> tuple[list[Twice], tuple[int, bytes, str]]:
        here = sa.tuple_(*_PLACE) > sa.tuple_(*map(sa.literal, self._after))
        # Cut off inside: else SQLite goes through all links of a repo, by another index: 0.7 s in
        # place of 11 ms (measured 2026-11, 300,000 links).
        page = sa.select(xet_links).where(here).order_by(*_PLACE).limit(self._page).subquery()
        both = page.join(lfs_objects, lfs_objects.c.oid == page.c.sha256)
        both = both.join(xet_files, xet_files.c.hash == page.c.file)
        columns = (lfs_objects.c.oid, lfs_objects.c.size, lfs_objects.c.key, page.c.file)
        after = sa.select(*_PLACE).where(here).order_by(*_PLACE).offset(self._page - 1).limit(1)
        with self._db.read() as connection:
            last = connection.execute(after).first()
            due = sa.select(*columns).select_from(both).where(self._is_proven(page), self._is_whole(), ~IS_STREWN)
            rows = connection.execute(due).all()
        end = _START if last is None else (last.repo_id, bytes(last.file), last.sha256)
        return [Twice(row.oid, row.size, row.key, bytes(row.file)) for row in rows], end

    def _is_proven(self, links: sa.FromClause) -> sa.ColumnElement[bool]:
        """Say of a link that its file was read back and hashed, and that it is old enough."""
        return sa.and_(links.c.state == "proven", links.c.created_at <= self._clock() - REST)

    def _is_whole(self) -> sa.ColumnElement[bool]:
        large = lfs_objects.c.size >= self._smallest
        return sa.and_(lfs_objects.c.kind == "whole", lfs_objects.c.state == "stored", large)

    def change(self, one: Twice) -> bool:
        """Let an object be put together from now on; False, and nothing happens, if it is not what it was, a chunk is
        not sound, or the file is strewn.

        One transaction, durable at return. Raises: Busy.
        """
        moment = self._clock()
        linked = sa.exists().where(
            xet_links.c.file == one.file, xet_links.c.sha256 == one.oid, xet_links.c.size == one.size
        )
        here = sa.and_(lfs_objects.c.oid == one.oid, lfs_objects.c.key == one.key, lfs_objects.c.size == one.size)
        values = {"key": file_key(text(one.file)), "kind": "xet", "stored_at": moment, "checked_at": None}
        with self._db.write() as connection:
            if not _is_sound(connection, one):
                return False
            changing = sa.update(lfs_objects).where(here, self._is_whole(), linked.where(self._is_proven(xet_links)))
            if connection.execute(changing.values(values)).rowcount != 1:
                return False
            _forget_upload(connection, one)
            body = {"was": one.key, "key": values["key"], "bytes": one.size}
            event = {"at": moment, "act": "object.chunked", "subject": one.oid, "body": body}
            connection.execute(sa.insert(events).values(event))
        log.info("object %s is kept by its chunks; its %d bytes under %s may go", one.oid, one.size, one.key)
        self._freed(one.size)
        return True


def _is_sound(connection: Connection, one: Twice) -> bool:
    """Lock a file and its xorbs against changes, and say whether it is here, not strewn, and all of them are."""
    here = sa.and_(xet_files.c.hash == one.file, ~IS_STREWN)
    file = sa.select(xet_files.c.size).where(here).with_for_update(read=True)
    if connection.execute(file).scalar() != one.size:
        return False
    needed = sa.select(xet_xorbs.c.state).join(xet_file_xorbs, xet_file_xorbs.c.xorb == xet_xorbs.c.hash)
    needed = needed.where(xet_file_xorbs.c.file == one.file).order_by(xet_xorbs.c.hash)
    states = connection.execute(needed.with_for_update(read=True, of=xet_xorbs)).scalars().all()
    return set(states) == {"live"}


def _forget_upload(connection: Connection, one: Twice) -> None:
    """Forget the upload that brought the bytes under a key of its own: nobody proves them once more, so they may go."""
    found = _OWN.fullmatch(one.key)
    if found is not None:
        mine = sa.and_(lfs_uploads.c.id == found["upload"], lfs_uploads.c.state == "done")
        connection.execute(sa.delete(lfs_uploads).where(mine))
