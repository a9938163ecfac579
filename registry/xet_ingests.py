"""Work rows: objects that came whole to a repo and are to be sent by their chunks as well.

    (no row) ── look: linked, here, large, and no Xet link ──▶ waiting ── done ──▶ done     filed, the prover goes on
                                                                  │  ▲── fail: pause ──┐
                                                                  └────────────────────┴──▶ failed   after `MOST` tries

The door that links objects knows nothing of this: `look` walks over the links, a page at a time. A row whose link has
gone, or that somebody's client made needless, goes by the same walk. What another repo has by its chunks already is due
here all the same, since this repo's domain knows nothing of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from registry.db import Database, now
from registry.links import insert_unless_there
from registry.tables.objects import lfs_links, lfs_objects
from registry.tables.repos import repos
from registry.tables.xet import xet_ingests, xet_links

MOST = 5
"""Times that an object is begun, also by a process that dies of it, before it is given up."""
PAUSES = (timedelta(minutes=1), timedelta(minutes=10), timedelta(hours=1), timedelta(hours=6))
"""How long an object rests after each failure but the last."""
PAGE = 2_000
"""Links in one look, which takes some 20 ms of a core whatever is due (measured 2026-11, SQLite, 300,000 links)."""

_START = (0, "")
_NEXT = (
    sa.select(lfs_links.c.repo_id, lfs_links.c.oid)
    .where(sa.tuple_(lfs_links.c.repo_id, lfs_links.c.oid) > sa.tuple_(sa.bindparam("repo"), sa.bindparam("oid")))
    .order_by(lfs_links.c.repo_id, lfs_links.c.oid)
)
_ALIVE = sa.exists().where(repos.c.id == lfs_links.c.repo_id, repos.c.deleted_at.is_(None))
_HERE = lfs_objects.c.state == "stored"
_NOTED = sa.exists().where(xet_ingests.c.repo_id == lfs_links.c.repo_id, xet_ingests.c.oid == lfs_links.c.oid)


@dataclass(frozen=True, slots=True)
class Due:
    """An object that is to be sent: for which repo, where it lies, and how often it was begun, this time included."""

    repo_id: int
    oid: str
    size: int
    key: str
    tries: int


class Ingests:
    """Finds and leases what is due. Thread-safe, among processes too, but for `look`, which is one thread's.

    Nothing here outlives a power cut for sure, and nothing has to: what was done and forgotten is found to be done.
    """

    def __init__(
        self, database: Database, *, smallest: int, page: int = PAGE, clock: Callable[[], datetime] = now
    ) -> None:
        self._db = database
        self._smallest, self._page = smallest, page
        self._clock = clock
        self._after: tuple[int, str] = _START

    def look(self) -> int:
        """Note what is due among the next links, and forget what is not any more; return how many were noted.

        The end is followed by the beginning: every link is looked at once in a while.
        """
        with self._db.read() as connection:
            asked = {"repo": self._after[0], "oid": self._after[1]}
            last = connection.execute(_NEXT.offset(self._page - 1).limit(1), asked).first()
            end = None if last is None else (last.repo_id, last.oid)
            due = connection.execute(self._due(end)).all()
            stale = connection.execute(self._stale(end)).all()
        moment = self._clock()
        if due or stale:
            with self._db.note() as connection:
                for row in stale:
                    connection.execute(sa.delete(xet_ingests).where(_row(row), xet_ingests.c.state == row.state))
                rows = [_waiting(row, moment) for row in due]
                insert_unless_there(connection, xet_ingests, rows)
        self._after = end or _START
        return len(due)

    def take(self, holder: str, seconds: float) -> Due | None:
        """Lease the object that has waited longest and that nobody works on, for `seconds`; None if there is none."""
        moment = self._clock()
        free = sa.or_(xet_ingests.c.lease_until.is_(None), xet_ingests.c.lease_until <= moment)
        columns = (xet_ingests.c.repo_id, xet_ingests.c.oid, xet_ingests.c.tries, lfs_objects.c.size, lfs_objects.c.key)
        linked = sa.and_(lfs_links.c.repo_id == xet_ingests.c.repo_id, lfs_links.c.oid == xet_ingests.c.oid)
        chosen = (
            sa.select(*columns)
            .select_from(xet_ingests.join(lfs_links, linked).join(lfs_objects, lfs_objects.c.oid == xet_ingests.c.oid))
            .where(xet_ingests.c.state == "waiting", free, _HERE, _ALIVE, ~_by_xet(lfs_links))
            .order_by(xet_ingests.c.created_at)
            .limit(1)
        )
        with self._db.look() as connection:
            # Most of the time there is nothing, and no writer has to wait for finding that out.
            if connection.execute(chosen).first() is None:
                return None
        with self._db.note() as connection:
            found = connection.execute(chosen.with_for_update(skip_locked=True, of=xet_ingests)).first()
            if found is None:
                return None
            values = {"lease": holder, "lease_until": moment + timedelta(seconds=seconds), "tries": found.tries + 1}
            connection.execute(sa.update(xet_ingests).where(_row(found)).values(values))
        return Due(found.repo_id, found.oid, found.size, found.key, found.tries + 1)

    def counts(self) -> Mapping[str, int]:
        """Count the objects that wait, and those that were given up, by these words: `waiting`, `failed`."""
        states = ("waiting", "failed")
        chosen = sa.select(xet_ingests.c.state, sa.func.count()).where(xet_ingests.c.state.in_(states))
        with self._db.look() as connection:
            found = connection.execute(chosen.group_by(xet_ingests.c.state)).all()
        return dict.fromkeys(states, 0) | {row.state: int(row[1]) for row in found}

    def hold(self, due: Due, holder: str, seconds: float) -> bool:
        """Prolong one's own lease; False if it was lost."""
        return self._change(due, holder, {"lease_until": self._clock() + timedelta(seconds=seconds)})

    def done(self, due: Due, holder: str) -> None:
        """Note that an object was sent and filed."""
        self._change(due, holder, {"state": "done", "lease": "", "lease_until": None, "reason": ""})

    def give_back(self, due: Due, holder: str) -> None:
        """Let somebody else begin anew, as if it had not been begun."""
        self._change(due, holder, {"lease": "", "lease_until": None, "tries": due.tries - 1})

    def fail(self, due: Due, holder: str, reason: str) -> bool:
        """Let an object rest, longer each time; True if it was tried often enough and is given up."""
        if due.tries >= MOST:
            return self._change(due, holder, {"state": "failed", "lease": "", "lease_until": None, "reason": reason})
        until = self._clock() + PAUSES[due.tries - 1]
        self._change(due, holder, {"lease": "", "lease_until": until, "reason": reason})
        return False

    def _change(self, due: Due, holder: str, values: dict[str, object]) -> bool:
        mine = sa.and_(_row(due), xet_ingests.c.state == "waiting", xet_ingests.c.lease == holder)
        with self._db.note() as connection:
            return connection.execute(sa.update(xet_ingests).where(mine).values(values)).rowcount == 1

    def _due(self, end: tuple[int, str] | None) -> sa.Select[Any]:
        joined = lfs_links.join(lfs_objects, lfs_objects.c.oid == lfs_links.c.oid)
        chosen = sa.select(lfs_links.c.repo_id, lfs_links.c.oid).select_from(joined)
        large = lfs_links.c.size >= self._smallest
        return chosen.where(self._between(lfs_links, end), large, _HERE, _ALIVE, ~_by_xet(lfs_links), ~_NOTED).order_by(
            lfs_links.c.repo_id, lfs_links.c.oid
        )

    def _stale(self, end: tuple[int, str] | None) -> sa.Select[Any]:
        """Choose rows that have lost their link, that wait for what is here already, or whose Xet link was collected.

        A refuted link stays: what was read and did not prove to be the object is not sent again.
        """
        unlinked = ~sa.exists().where(
            lfs_links.c.repo_id == xet_ingests.c.repo_id, lfs_links.c.oid == xet_ingests.c.oid
        )
        is_done = xet_ingests.c.state == "done"
        collected = sa.and_(is_done, ~_by_xet(xet_ingests, refuted=True))
        needless = sa.and_(~is_done, _by_xet(xet_ingests))
        chosen = sa.select(xet_ingests.c.repo_id, xet_ingests.c.oid, xet_ingests.c.state)
        return chosen.where(self._between(xet_ingests, end), sa.or_(unlinked, collected, needless))

    def _between(self, table: sa.Table, end: tuple[int, str] | None) -> sa.ColumnElement[bool]:
        at = sa.tuple_(table.c.repo_id, table.c.oid)
        after = at > sa.tuple_(*map(sa.literal, self._after))
        return after if end is None else sa.and_(after, at <= sa.tuple_(*map(sa.literal, end)))


def _by_xet(table: sa.Table, *, refuted: bool = False) -> sa.ColumnElement[bool]:
    """Say whether the repo has the object by Xet, proven or about to be; with `refuted` also if that failed."""
    here = sa.and_(xet_links.c.repo_id == table.c.repo_id, xet_links.c.sha256 == table.c.oid)
    return sa.exists().where(here if refuted else sa.and_(here, xet_links.c.state != "refuted"))


def _row(found: Any) -> sa.ColumnElement[bool]:
    return sa.and_(xet_ingests.c.repo_id == found.repo_id, xet_ingests.c.oid == found.oid)


def _waiting(row: Any, moment: datetime) -> dict[str, object]:
    found = {"repo_id": row.repo_id, "oid": row.oid, "state": "waiting", "tries": 0, "lease": ""}
    return found | {"lease_until": None, "reason": "", "created_at": moment}
