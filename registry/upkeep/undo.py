"""Gives back the links that a run took away, as far as their objects are still there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from registry.db import Database, lock_repo
from registry.links import insert_unless_there
from registry.names import RepoId
from registry.tables.identity import namespaces
from registry.tables.objects import lfs_links, lfs_objects
from registry.tables.repos import repos
from registry.tables.work import events, gc_unlinked
from registry.upkeep.paging import in_groups
from registry.upkeep.reclaim import Line

_TOGETHER = 500
_ROWS = (
    sa.select(gc_unlinked, repos.c.type, namespaces.c.name.label("namespace"), repos.c.name)
    .join(repos, repos.c.id == gc_unlinked.c.repo_id)
    .join(namespaces, namespaces.c.id == repos.c.namespace_id)
    .order_by(gc_unlinked.c.repo_id, gc_unlinked.c.oid)
)


class Undo:
    """Undoes the unlinking of one run. Repeating it is harmless; a death leaves what is done, done."""

    def __init__(self, database: Database, *, clock: Callable[[], datetime]) -> None:
        self._db = database
        self._clock = clock

    def run(self, run_id: int) -> Iterator[Line]:
        """Give back, some hundred links of a repo in each transaction; say of each what became of it."""
        with self._db.read() as connection:
            rows = connection.execute(_ROWS.where(gc_unlinked.c.run_id == run_id)).all()
        by_repo: dict[int, list[Any]] = {}
        for row in rows:
            by_repo.setdefault(row.repo_id, []).append(row)
        for repo_id, mine in by_repo.items():
            for group in in_groups(mine, _TOGETHER):
                with self._db.write() as connection:
                    lines = self._give_back(connection, repo_id, group)
                yield from lines

    def _give_back(self, connection: Connection, repo_id: int, rows: Sequence[Any]) -> list[Line]:
        lock_repo(connection, repo_id)
        alive = sa.select(repos.c.id).where(repos.c.id == repo_id, repos.c.deleted_at.is_(None))
        if connection.execute(alive).first() is None:
            return [_line("keep", row, "its repo is deleted") for row in rows]
        there = self._revive(connection, [row.oid for row in rows])
        fit = [row for row in rows if row.oid in there and there[row.oid].size == row.size]
        linked = self._link(connection, repo_id, fit)
        mine = sa.and_(gc_unlinked.c.run_id == rows[0].run_id, gc_unlinked.c.repo_id == repo_id)
        back = [row.oid for row in fit]
        connection.execute(sa.delete(gc_unlinked).where(mine, gc_unlinked.c.oid.in_(back)))
        self._settle(connection, repo_id, rows[0].run_id, [row for row in fit if row.oid in linked])
        return [_outcome(row, there, linked) for row in rows]

    def _revive(self, connection: Connection, oids: Sequence[str]) -> dict[str, Any]:
        """Bring condemned objects back; return the rows, as they were, of those that are there. They stay locked.

        Damaged ones stay damaged: a link to them is what asks their next push for the bytes.
        """
        chosen = sa.select(lfs_objects.c.oid, lfs_objects.c.size, lfs_objects.c.state)
        chosen = chosen.where(lfs_objects.c.oid.in_(oids)).order_by(lfs_objects.c.oid)
        rows = connection.execute(chosen.with_for_update(key_share=True)).all()
        condemned = sa.and_(lfs_objects.c.oid.in_(oids), lfs_objects.c.state == "condemned")
        connection.execute(sa.update(lfs_objects).where(condemned).values(state="stored", condemned_at=None))
        return {row.oid: row for row in rows if row.state != "deleting"}

    def _link(self, connection: Connection, repo_id: int, rows: Sequence[Any]) -> set[str]:
        """Insert the links that are not there; they count as asked for now. Return which."""
        oids = [row.oid for row in rows]
        here = sa.select(lfs_links.c.oid).where(lfs_links.c.repo_id == repo_id, lfs_links.c.oid.in_(oids))
        before = set(connection.execute(here).scalars())
        new = [row for row in rows if row.oid not in before]
        names = ("repo_id", "oid", "size", "linked_by", "linked_at")
        cells = [{name: getattr(row, name) for name in names} | {"seen_at": self._clock()} for row in new]
        insert_unless_there(connection, lfs_links, cells)
        return {row.oid for row in new}

    def _settle(self, connection: Connection, repo_id: int, run_id: int, rows: Sequence[Any]) -> None:
        if not rows:
            return
        size = sum(row.size for row in rows)
        grown = sa.update(repos).where(repos.c.id == repo_id)
        connection.execute(grown.values(lfs_bytes=repos.c.lfs_bytes + size))
        body = {"run": run_id, "links": len(rows), "bytes": size}
        event = {"at": self._clock(), "act": "gc.undo", "repo_id": repo_id, "body": body}
        connection.execute(sa.insert(events).values(event))


def _outcome(row: Any, there: dict[str, Any], linked: set[str]) -> Line:
    found = there.get(row.oid)
    if found is None or found.size != row.size:
        return _line("skip", row, "its bytes are gone; only an upload brings it back")
    if row.oid not in linked:
        return _line("keep", row, "was linked again already")
    if found.state == "damaged":
        return _line("link", row, "back, but its bytes are damaged: push it again to heal it")
    return _line("link", row, "back, and counts as asked for now")


def _line(act: Any, row: Any, why: str) -> Line:
    name = RepoId(row.type, row.namespace, row.name).web
    return Line(act, "link", f"{name} {row.oid}", row.size, why)
