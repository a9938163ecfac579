"""Xet files that nobody needs: links of repos go once the object they stand for is unlinked, then files without links.

    link ── filed days ago, and no LFS link or upload of its repo is of its object; or the repo is gone ──▶ gone
    file ── no link, no object and no upload names it ──▶ gone, with its marks; its xorbs have one need less

Bytes go later, with the xorbs. Whoever files the same file meanwhile locks its repo first, and makes anew what is gone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from lfs.store import file_key
from lfs.xet import hashes
from registry.db import Database, lock_repo
from registry.names import RepoId
from registry.tables.identity import namespaces
from registry.tables.objects import lfs_links, lfs_objects, lfs_uploads
from registry.tables.repos import repos
from registry.tables.xet import xet_file_xorbs, xet_files, xet_links, xet_marks
from registry.upkeep.paging import in_groups, paged
from registry.upkeep.reclaim import Graces, Line, Step, came_true, day

_TOGETHER = 200
_REPOS = (
    sa.select(repos.c.id, repos.c.type, namespaces.c.name.label("namespace"), repos.c.name, repos.c.deleted_at)
    .select_from(repos.join(namespaces, namespaces.c.id == repos.c.namespace_id))
    .where(sa.exists().where(xet_links.c.repo_id == repos.c.id))
)
_LINKED = sa.exists().where(lfs_links.c.repo_id == xet_links.c.repo_id, lfs_links.c.oid == xet_links.c.sha256)
# Its proof will make the link that it stands for.
_COMING = sa.exists().where(
    lfs_uploads.c.repo_id == xet_links.c.repo_id,
    lfs_uploads.c.oid == xet_links.c.sha256,
    lfs_uploads.c.state == "arrived",
)
_FILES = sa.select(xet_files.c.hash, xet_files.c.size, xet_files.c.created_at)
_UNLINKED = ~sa.exists().where(xet_links.c.file == xet_files.c.hash)


class Chunked:
    """Plans and takes away links to Xet files, and the files."""

    def __init__(self, database: Database, graces: Graces, *, clock: Callable[[], datetime]) -> None:
        self._db = database
        self._graces = graces
        self._clock = clock

    def links(self, moment: datetime) -> Iterator[Step]:
        """Plan, repo by repo, which links have lost the object that they stood for."""
        for row in paged(self._db, _REPOS, repos.c.id):
            ripe = self._ripe(row, moment)
            with self._db.read() as connection:
                found = connection.execute(sa.select(xet_links).where(xet_links.c.repo_id == row.id, ripe)).all()
            if found:
                yield self._unlinking(row, found, ripe)

    def _ripe(self, row: Any, moment: datetime) -> sa.ColumnElement[bool]:
        if row.deleted_at is not None and row.deleted_at <= moment - self._graces.repo:
            return sa.true()
        return sa.and_(xet_links.c.created_at <= moment - self._graces.link, ~_LINKED, ~_COMING)

    def _unlinking(self, row: Any, found: Sequence[Any], ripe: sa.ColumnElement[bool]) -> Step:
        name = RepoId(row.type, row.namespace, row.name).web
        size = sum(link.size for link in found)
        why = f"{len(found)} links, and the repo holds none of their objects any more"
        line = Line("unlink", "xet", name, size, why, "files that no repo links go in the next run")

        def do(run: int) -> Sequence[Line]:
            with self._db.write() as connection:
                lock_repo(connection, row.id)
                gone = connection.execute(sa.delete(xet_links).where(xet_links.c.repo_id == row.id, ripe)).rowcount
            return [line if gone else line.kept("the repo holds them again")]

        return Step((line,), do)

    def files(self, moment: datetime) -> Iterator[Step]:
        """Plan which files nothing names any more."""
        chosen = _FILES.where(_UNLINKED, xet_files.c.created_at <= moment - self._graces.claim)
        for rows in in_groups(paged(self._db, chosen, xet_files.c.hash), _TOGETHER):
            with self._db.read() as connection:
                free = _free(connection, [row.hash for row in rows])
            lines = tuple(self._line(row) for row in rows if row.hash in free)
            if lines:
                yield self._dropping(lines)

    def _line(self, row: Any) -> Line:
        why = f"filed {day(row.created_at)}, and no repo links it"
        return Line(
            "delete", "file", hashes.text(row.hash), row.size, why, "xorbs that no file needs are condemned next"
        )

    def _dropping(self, lines: tuple[Line, ...]) -> Step:
        def do(run: int) -> Sequence[Line]:
            asked = [hashes.parse(line.subject) for line in lines]
            with self._db.write() as connection:
                _lock(connection, asked)
                gone = sorted(_free(connection, asked))
                _lock_marks(connection, gone)
                for table, column in ((xet_marks, xet_marks.c.file), (xet_file_xorbs, xet_file_xorbs.c.file)):
                    connection.execute(sa.delete(table).where(column.in_(gone)))
                connection.execute(sa.delete(xet_files).where(xet_files.c.hash.in_(gone)))
            return came_true(lines, {hashes.text(hash) for hash in gone}, "it is linked again, or about to be read")

        return Step(lines, do)


def _free(connection: Connection, asked: Sequence[bytes]) -> set[bytes]:
    """Choose the files that no link, waiting upload or object names.

    Asked in this order: a link is made with its upload, and a proof makes the object as it ends the upload.
    """
    free = set(connection.execute(sa.select(xet_files.c.hash).where(xet_files.c.hash.in_(asked), _UNLINKED)).scalars())
    keys = {file_key(hashes.text(hash)): hash for hash in free}
    # As the index says it, and no parameter: it holds the keys of these objects alone.
    made = lfs_objects.c.kind == sa.literal_column("'xet'")
    for column, more in ((lfs_uploads.c.key, lfs_uploads.c.state == "arrived"), (lfs_objects.c.key, made)):
        named = connection.execute(sa.select(column).where(column.in_(list(keys)), more)).scalars()
        free -= {keys[key] for key in named}
    return free


def _lock(connection: Connection, asked: Sequence[bytes]) -> None:
    """Wait for whoever files these at this moment. SQLite has one writer."""
    if connection.dialect.name != "sqlite":
        chosen = sa.select(xet_files.c.hash).where(xet_files.c.hash.in_(asked)).order_by(xet_files.c.hash)
        connection.execute(chosen.with_for_update())


def _lock_marks(connection: Connection, files: Sequence[bytes]) -> None:
    """Take the marks of files in the order in which whoever files takes them, so that nobody waits in a ring."""
    if connection.dialect.name != "sqlite":
        chosen = sa.select(xet_marks.c.chunk).where(xet_marks.c.file.in_(files))
        connection.execute(chosen.order_by(xet_marks.c.domain_id, xet_marks.c.chunk).with_for_update())
