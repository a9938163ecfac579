"""Takes away the links that no ref needs, and everything of repos that were deleted long ago.

roots at some version → BEGIN, lock the repo → same version? → links still unseen? → to `gc_unlinked` → COMMIT

A push takes the same lock. If it comes first, the version has changed and the roots are found anew; if it comes later,
it finds the epoch changed and looks at its pointers again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from registry.db import Database, lock_repo
from registry.errors import RepoAbsent
from registry.names import RepoId
from registry.tables.identity import namespaces
from registry.tables.objects import lfs_links, packs, repo_packs
from registry.tables.repos import repos
from registry.tables.work import events, gc_unlinked
from registry.upkeep.old_packs import condemn_unlisted
from registry.upkeep.paging import in_groups, paged
from registry.upkeep.reclaim import Graces, Line, Step, day, human
from registry.upkeep.roots import RootFinder, Roots, Unsure

MOST = 0.2
"""Share of a repo's bytes that goes without being asked for."""
_ATTEMPTS = 3
_TOGETHER = 5000

_REPOS = sa.select(repos.c.id, repos.c.type, namespaces.c.name.label("namespace"), repos.c.name, repos.c.deleted_at)
_REPOS = _REPOS.select_from(repos.join(namespaces, namespaces.c.id == repos.c.namespace_id))
_LINKS = sa.select(lfs_links).where(lfs_links.c.repo_id == sa.bindparam("repo"))
_BYTES = sa.select(sa.func.coalesce(sa.func.sum(lfs_links.c.size), 0)).where(
    lfs_links.c.repo_id == sa.bindparam("repo")
)
_PACKS = sa.select(packs.c.id, packs.c.bytes).join(repo_packs, repo_packs.c.pack_id == packs.c.id)


@dataclass(frozen=True, slots=True)
class _Going:
    """Links of one repo without a root, and the roots that say so."""

    links: tuple[Any, ...]
    roots: Roots
    size: int
    whole: int


class Unlink:
    """Plans and takes away the links of one house, repo by repo."""

    def __init__(self, database: Database, finder: RootFinder, graces: Graces) -> None:
        self._db = database
        self._finder = finder
        self._graces = graces

    def steps(self, moment: datetime, *, only: int | None = None, allow: bool = False) -> Iterator[Step]:
        """Plan every repo, or one; with `allow` also more than a fifth of a repo's bytes."""
        chosen = _REPOS if only is None else _REPOS.where(repos.c.id == only)
        for row in paged(self._db, chosen, repos.c.id):
            if row.deleted_at is None:
                yield from self._living(row, moment, allow=allow)
            elif row.deleted_at <= moment - self._graces.repo:
                yield from self._dead(row, moment)

    def _living(self, row: Any, moment: datetime, *, allow: bool) -> Iterator[Step]:
        name = RepoId(row.type, row.namespace, row.name).web
        try:
            going = self._going(row.id, moment)
        except RepoAbsent:
            return
        except Unsure as error:
            yield _skipped(name, str(error))
            return
        if going is None:
            return
        if going.size > MOST * going.whole and not allow:
            yield _skipped(name, _too_much(going))
            return
        lines = tuple(self._line(name, link, moment) for link in going.links)
        yield Step(lines, lambda run: self._take(row.id, name, going, moment, run))

    def _going(self, repo_id: int, moment: datetime) -> _Going | None:
        """Find the links that can go; None if there are none."""
        old = _LINKS.where(*self._rested(moment)).order_by(lfs_links.c.oid)
        with self._db.read() as connection:
            links = connection.execute(old, {"repo": repo_id}).all()
            whole = int(connection.execute(_BYTES, {"repo": repo_id}).scalar_one())
        if not links:
            return None
        roots = self._finder.find(repo_id, moment - self._graces.log)
        free = tuple(link for link in links if link.oid not in roots.oids)
        return _Going(free, roots, sum(link.size for link in free), whole) if free else None

    def _rested(self, moment: datetime) -> tuple[sa.ColumnElement[bool], ...]:
        until = moment - self._graces.link
        return lfs_links.c.linked_at <= until, lfs_links.c.seen_at <= until

    def _line(self, name: str, link: Any, moment: datetime) -> Line:
        why = f"no ref names it, nor did one since {day(moment - self._graces.log)}; last asked for {day(link.seen_at)}"
        then = f"condemned after {day(moment + self._graces.object)} unless another repo links it"
        return Line("unlink", "link", f"{name} {link.oid}", link.size, why, then)

    def _take(self, repo_id: int, name: str, going: _Going, moment: datetime, run: int) -> Sequence[Line]:
        """Take links away; if the repo changed since they were found, find them anew."""
        done: list[Line] = []
        left = going.size
        for _ in range(_ATTEMPTS):
            gone, whole = self._take_part(repo_id, going, moment, run)
            done += [self._line(name, link, moment) for link in gone]
            left -= sum(link.size for link in gone)
            if whole:
                return done
            try:
                found = self._going(repo_id, moment)
            except (RepoAbsent, Unsure) as error:
                return [*done, _skip(name, str(error))]
            # Never more than was planned.
            if found is None or found.size > left:
                return [*done, _skip(name, "its refs moved meanwhile; the next run looks again")]
            going = found
        return [*done, _skip(name, "its refs keep moving; the next run looks again")]

    def _take_part(self, repo_id: int, going: _Going, moment: datetime, run: int) -> tuple[list[Any], bool]:
        """Take links away some thousand at a time, so that pushes get their turn; False once the repo changed."""
        gone: list[Any] = []
        for links in in_groups(going.links, _TOGETHER):
            with self._db.write() as connection:
                lock_repo(connection, repo_id)
                if not _still(connection, repo_id, going.roots):
                    return gone, False
                gone += self._unlink(connection, repo_id, [link.oid for link in links], moment, run)
        return gone, True

    def _unlink(
        self, connection: Connection, repo_id: int, oids: Sequence[str], moment: datetime, run: int
    ) -> list[Any]:
        here = sa.and_(lfs_links.c.repo_id == repo_id, lfs_links.c.oid.in_(oids), *self._rested(moment))
        gone = connection.execute(sa.delete(lfs_links).where(here).returning(*lfs_links.c)).all()
        _note(connection, repo_id, gone, moment, run)
        size = sum(link.size for link in gone)
        changed = sa.update(repos).where(repos.c.id == repo_id)
        connection.execute(changed.values(lfs_bytes=repos.c.lfs_bytes - size, gc_epoch=repos.c.gc_epoch + 1))
        return sorted(gone, key=lambda link: str(link.oid))

    def _dead(self, row: Any, moment: datetime) -> Iterator[Step]:
        """Plan a repo that was deleted long ago: all its links and packs."""
        with self._db.read() as connection:
            links = connection.execute(_LINKS, {"repo": row.id}).all()
            listed = connection.execute(_PACKS.where(repo_packs.c.repo_id == row.id)).all()
        if not links and not listed:
            return
        name = RepoId(row.type, row.namespace, row.name).web
        size = sum(link.size for link in links) + sum(pack.bytes for pack in listed)
        why = f"deleted {day(row.deleted_at)}, with {len(links)} links and {len(listed)} packs"
        line = Line("unlink", "repo", name, size, why, "what no other repo uses is condemned after its grace")
        yield Step((line,), lambda run: self._bury(row.id, line, moment, run))

    def _bury(self, repo_id: int, line: Line, moment: datetime, run: int) -> Sequence[Line]:
        some = sa.select(lfs_links.c.oid).where(lfs_links.c.repo_id == repo_id).limit(_TOGETHER)
        taken = sa.delete(lfs_links).where(lfs_links.c.repo_id == repo_id, lfs_links.c.oid.in_(some))
        gone = _TOGETHER
        while gone == _TOGETHER:
            with self._db.write() as connection:
                lock_repo(connection, repo_id)
                links = connection.execute(taken.returning(*lfs_links.c)).all()
                _note(connection, repo_id, links, moment, run)
            gone = len(links)
        with self._db.write() as connection:
            lock_repo(connection, repo_id)
            left = sa.delete(repo_packs).where(repo_packs.c.repo_id == repo_id).returning(repo_packs.c.pack_id)
            ids = connection.execute(left).scalars().all()
            buried = sa.update(repos).where(repos.c.id == repo_id)
            connection.execute(buried.values(lfs_bytes=0, git_bytes=0, manifest_version=repos.c.manifest_version + 1))
            condemn_unlisted(connection, sorted(ids), moment)
        return [line]


def _still(connection: Connection, repo_id: int, roots: Roots) -> bool:
    """True if the repo is as it was when its roots were found; called under its lock."""
    chosen = sa.select(repos.c.refs_version, repos.c.manifest_version).where(
        repos.c.id == repo_id, repos.c.deleted_at.is_(None)
    )
    row = connection.execute(chosen).first()
    return row is not None and tuple(row) == (roots.refs_version, roots.manifest_version)


def _note(connection: Connection, repo_id: int, gone: Sequence[Any], moment: datetime, run: int) -> None:
    """Keep what goes, for undo, and say so among the events."""
    if gone:
        connection.execute(sa.insert(gc_unlinked), [dict(link._mapping) | {"run_id": run} for link in gone])
        body = {"run": run, "links": len(gone), "bytes": sum(link.size for link in gone)}
        event = {"at": moment, "act": "gc.unlink", "repo_id": repo_id, "body": body}
        connection.execute(sa.insert(events).values(event))


def _too_much(going: _Going) -> str:
    share = 100 * going.size / going.whole
    return (
        f"{len(going.links)} links with {human(going.size)} of {human(going.whole)} ({share:.0f} %) would go, "
        f"more than {100 * MOST:.0f} %; look at them with --dry-run --yes --repo, then run that without --dry-run"
    )


def _skip(name: str, why: str) -> Line:
    return Line("skip", "repo", name, 0, why)


def _skipped(name: str, why: str) -> Step:
    line = _skip(name, why)
    return Step((line,), lambda run: (line,))
