"""Files by their chunks: who may read one by which link, what the hub may say of them, and marks that lead to them.

A file opens to a repo by its link alone. While that is declared it serves Xet readers of this repo and nobody else;
the hub names a file only once its SHA-256 is proven, and as long as all of its chunks can be served.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import sqlalchemy as sa

from lfs.xet.index import File, Marked
from registry.db import Database
from registry.links import parts_of
from registry.tables.repos import repos
from registry.tables.xet import xet_files, xet_links, xet_marks
from registry.xet_holes import holed

_COLUMNS = (xet_files.c.hash, xet_files.c.size, xet_files.c.terms)
_WHOLE = sa.select(*_COLUMNS).where(xet_files.c.hash == sa.bindparam("file"))
_ALIVE = sa.exists().where(repos.c.id == sa.bindparam("repo"), repos.c.deleted_at.is_(None))
_LINKED = sa.exists().where(
    xet_links.c.repo_id == sa.bindparam("repo"), xet_links.c.file == xet_files.c.hash, xet_links.c.state != "refuted"
)
_FIND = _WHOLE.where(_LINKED, _ALIVE)
_AROUND = (
    sa.select(*_COLUMNS, xet_marks.c.xorb)
    .select_from(xet_marks.join(xet_files, xet_files.c.hash == xet_marks.c.file))
    .where(xet_marks.c.domain_id == sa.bindparam("domain"), xet_marks.c.chunk == sa.bindparam("chunk"))
)
_ADVERTISED = sa.select(xet_links.c.sha256, xet_links.c.file).where(
    xet_links.c.repo_id == sa.bindparam("repo"),
    xet_links.c.sha256.in_(sa.bindparam("oids", expanding=True)),
    xet_links.c.state == "proven",
    ~holed(xet_links.c.file),
)


class XetFiles:
    """Reads files, links and marks. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._whole = database.prepare(_WHOLE)
        self._find = database.prepare(_FIND)
        self._around = database.prepare(_AROUND)
        self._advertised = database.prepare(_ADVERTISED)

    def find(self, repo_id: int, hash: bytes) -> File | None:
        """Return a file that this repo links, refuted links left out; None also if only others have it."""
        return _file(self._find.first({"repo": repo_id, "file": hash}))

    def whole(self, hash: bytes) -> File | None:
        """Return a file whoever links it: for readers who were let in by another door."""
        return _file(self._whole.first({"file": hash}))

    def around(self, domain: str, chunk: bytes) -> Marked | None:
        """Return the newest file of this domain that has this chunk as a mark, and where the chunk is."""
        row = self._around.first({"domain": domain, "chunk": chunk})
        return None if row is None else Marked(File(bytes(row.hash), row.size, bytes(row.terms)), bytes(row.xorb))

    def advertised(self, repo_id: int, oids: Collection[str]) -> dict[str, bytes]:
        """Return, by SHA-256, the hashes of files that this repo has proven and that can be served now."""
        asked = [{"repo": repo_id, "oids": part} for part in parts_of(oids)]
        return {row.sha256: bytes(row.file) for each in asked for row in self._advertised.every(each)}


def _file(row: Any) -> File | None:
    return None if row is None else File(bytes(row.hash), row.size, bytes(row.terms))
