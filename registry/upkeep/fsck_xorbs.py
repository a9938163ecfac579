"""Checks what came by Xet: xorbs and their tables, files and the xorbs that they are made of, links and their files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa

from lfs.errors import LfsError
from lfs.store import ObjectStore
from lfs.xet import hashes
from lfs.xet.index import File, Xorb
from registry.db import Database
from registry.links import parts_of
from registry.tables.xet import xet_file_xorbs, xet_files, xet_links, xet_xorbs
from registry.upkeep.faults import BadXorb, Found, LooseFile
from registry.upkeep.findings import Finding
from registry.upkeep.paging import in_groups, paged
from registry.upkeep.xorb_flaws import judge
from registry.xet_damage import holed, listed

_TOGETHER = 100
_XORBS = sa.select(*(xet_xorbs.c[name] for name in ("hash", "key", "table_key", "size", "raw_size", "chunks", "state")))
_FILES = sa.select(xet_files.c.hash, xet_files.c.size, xet_files.c.terms)
_ALONE = (
    sa.select(xet_links.c.repo_id, xet_links.c.file, xet_links.c.sha256)
    .outerjoin(xet_files, xet_files.c.hash == xet_links.c.file)
    .where(xet_files.c.hash.is_(None))
)


class XorbCheck:
    """Checks the rows of Xet against bytes and against each other."""

    def __init__(self, database: Database, store: ObjectStore) -> None:
        self._db = database
        self._store = store

    def xorbs(self, *, read_data: bool) -> Iterator[Found]:
        """Yield xorbs whose body or table is not theirs, and those put aside that a file needs."""
        for row in paged(self._db, _XORBS, xet_xorbs.c.hash):
            if row.state == "quarantined":
                yield from self._put_aside(row)
            elif row.state != "deleting":
                yield from self._standing(row, read_data=read_data)

    def _put_aside(self, row: Any) -> Iterator[Found]:
        with self._db.look() as connection:
            files = holed(connection, bytes(row.hash))
        if files:
            text = f"is known to be damaged; upload again the files that need it: {listed(files)}"
            yield _found(row, text, BadXorb(xorb_of(row), row.state))

    def _standing(self, row: Any, *, read_data: bool) -> Iterator[Found]:
        xorb = xorb_of(row)
        try:
            judged = judge(self._store, xorb, read=read_data)
        except LfsError as error:
            yield _found(row, f"cannot be read: {error.message}", None)
            return
        said = [text for text in (judged.body, judged.row, judged.table and f"its table {judged.table}") if text]
        if said and not self._changed(row):
            yield _found(row, "; ".join(said), BadXorb(xorb, row.state))

    def files(self) -> Iterator[Found]:
        """Yield files that lack a xorb, or do not say that they need it, and links that lead to no file."""
        for rows in in_groups(paged(self._db, _FILES, xet_files.c.hash), _TOGETHER):
            needs = {bytes(row.hash): {part.xorb for part in File(*row).parts()} for row in rows}
            held, noted = self._held(needs), self._noted(list(needs))
            for hash, xorbs in needs.items():
                yield from self._file(hash, xorbs - held, xorbs - noted[hash])
        with self._db.read() as connection:
            alone = connection.execute(_ALONE).all()
        for row in alone:
            text = f"repo {row.repo_id} links it as {row.sha256 or 'what has no name'}, and it is not filed"
            yield Found(Finding("xorbs", "file", hashes.text(bytes(row.file)), text))

    def _file(self, hash: bytes, gone: set[bytes], loose: set[bytes]) -> Iterator[Found]:
        if not (gone or loose) or not self._is_there(hash):
            return
        name = hashes.text(hash)
        if gone:
            text = f"{len(gone)} of its xorbs are not here, such as {hashes.text(min(gone))}; upload it again"
            yield Found(Finding("xorbs", "file", name, text))
        if loose - gone:
            text = f"a collection would not see that it needs {len(loose - gone)} of its xorbs"
            yield Found(Finding("xorbs", "file", name, text), LooseFile(hash))

    def _held(self, needs: dict[bytes, set[bytes]]) -> set[bytes]:
        """Return those of the needed xorbs that are here, or put aside, which is told of the xorb."""
        chosen = sa.select(xet_xorbs.c.hash).where(xet_xorbs.c.state != "deleting")
        with self._db.read() as connection:
            return {
                bytes(hash)
                for part in parts_of(set().union(*needs.values()))
                for hash in connection.execute(chosen.where(xet_xorbs.c.hash.in_(part))).scalars()
            }

    def _noted(self, files: list[bytes]) -> dict[bytes, set[bytes]]:
        noted: dict[bytes, set[bytes]] = {hash: set() for hash in files}
        with self._db.read() as connection:
            for row in connection.execute(sa.select(xet_file_xorbs).where(xet_file_xorbs.c.file.in_(files))):
                noted[bytes(row.file)].add(bytes(row.xorb))
        return noted

    def _is_there(self, hash: bytes) -> bool:
        with self._db.look() as connection:
            return connection.execute(sa.select(xet_files.c.hash).where(xet_files.c.hash == hash)).first() is not None

    def _changed(self, row: Any) -> bool:
        """True if the row is gone, or another, since it was read."""
        with self._db.read() as connection:
            return bool(connection.execute(_XORBS.where(xet_xorbs.c.hash == row.hash)).first() != row)


def xorb_of(row: Any) -> Xorb:
    """Read a row of `xet_xorbs`."""
    return Xorb(bytes(row.hash), row.key, row.table_key, row.size, row.raw_size, row.chunks)


def _found(row: Any, text: str, fault: BadXorb | None) -> Found:
    return Found(Finding("xorbs", "xorb", hashes.text(bytes(row.hash)), text), fault)
