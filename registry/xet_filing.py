"""Shards → files, links, marks: one transaction for each shard.

    file   new, or known with chunks that all can be served: the terms that stand first stay
           known with a chunk that cannot: it is kept by the terms of this shard from now on
    link   declared; with a SHA-256 also an upload that waits for its proof: `xet_links`
    mark   the newest file wins: the next version of a file is most like the last

Locks are taken in the order repos, namespaces, files, xorbs, marks, each kind by rising key, so that no two
transactions wait for each other. A sweeper that locks a xorb before it condemns it is waited for here, or waits.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection

from lfs.xet.hashes import text
from lfs.xet.index import File, Filing, Leave
from registry.db import Database, now
from registry.errors import ObjectAbsent, RepoAbsent
from registry.links import parts_of
from registry.prepared import Prepared
from registry.quota import Quotas
from registry.tables.repos import repos
from registry.tables.xet import xet_file_xorbs, xet_files, xet_marks
from registry.xet_links import XetLinks
from registry.xet_xorbs import Xorbs

_HOME = (
    sa.select(repos.c.namespace_id)
    .where(repos.c.id == sa.bindparam("repo"), repos.c.deleted_at.is_(None))
    .with_for_update()
)
_LOCKED = (
    sa.select(xet_files.c.hash, xet_files.c.size, xet_files.c.terms)
    .where(xet_files.c.hash.in_(sa.bindparam("hashes", expanding=True)))
    .order_by(xet_files.c.hash)
    .with_for_update(key_share=True)
)
_KNOWN = sa.select(xet_files.c.hash).where(xet_files.c.hash.in_(sa.bindparam("hashes", expanding=True)))


class XetFiling:
    """Files shards. Thread-safe, among processes too."""

    def __init__(
        self, database: Database, quotas: Quotas, xorbs: Xorbs, *, clock: Callable[[], datetime] = now
    ) -> None:
        self._db = database
        self._rooms = _Rooms(database, quotas, xorbs)
        self._clock = clock

    def file(self, leave: Leave, filings: Sequence[Filing]) -> bool:
        """File what a shard names, all or nothing; False if all of it was there before.

        Raises: RepoAbsent, QuotaExceeded, ObjectAbsent (a xorb is not live in this domain any more; names them).
        """
        with self._db.write() as connection:
            return _Transaction(connection, self._rooms, self._clock(), leave, filings).run()


class _Rooms:
    """What every filing asks, made and compiled once."""

    def __init__(self, database: Database, quotas: Quotas, xorbs: Xorbs) -> None:
        self.quotas = quotas
        self.xorbs = xorbs
        self.links = XetLinks(database)
        self.home = database.prepare(_HOME)
        self.locked = database.prepare(_LOCKED)
        self.known = database.prepare(_KNOWN)
        self.new_files = database.prepare_insert(xet_files, unless_there=True)
        self.new_needs = database.prepare_insert(xet_file_xorbs, unless_there=True)


class _Transaction:
    """One shard on its way into the rows."""

    def __init__(
        self, connection: Connection, rooms: _Rooms, moment: datetime, leave: Leave, filings: Sequence[Filing]
    ) -> None:
        self._connection = connection
        self._rooms = rooms
        self._moment = moment
        self._leave = leave
        self._filings = filings
        # Each file once, whatever is said of it.
        self._files = {filing.file.hash: filing.file for filing in filings}
        self._marks = {chunk: (filing.file.hash, xorb) for filing in filings for chunk, xorb in filing.marks}

    def run(self) -> bool:
        homes = self._rooms.home.within(self._connection, {"repo": self._leave.repo_id})
        if not homes:
            raise RepoAbsent("The repository is gone.")
        opening = self._rooms.links.look(self._connection, self._leave, self._filings, self._moment)
        usage = self._rooms.quotas.held(self._connection, homes[0].namespace_id)
        if usage is not None:
            opening.check(usage)
        stored = self._store()
        opened = self._rooms.links.open(self._connection, opening)
        self._mark()
        return stored or opened

    def _store(self) -> bool:
        """Make the files, lock them and their xorbs, and mend what cannot be served; True if anything changed."""
        kept, changed = self._rows()
        sound = self._claim(kept)
        for hash, file in self._files.items():
            if kept[hash].terms != file.terms and not _xorbs([kept[hash]]) <= sound:
                here = xet_files.c.hash == hash
                self._connection.execute(sa.update(xet_files).where(here).values(size=file.size, terms=file.terms))
                self._connection.execute(sa.delete(xet_file_xorbs).where(xet_file_xorbs.c.file == hash))
                kept[hash] = file
                changed.add(hash)
        needs = sorted((hash, xorb) for hash in changed for xorb in _xorbs([kept[hash]]))
        self._rooms.new_needs.put(self._connection, needs)
        return bool(changed)

    def _rows(self) -> tuple[dict[bytes, File], set[bytes]]:
        """Lock the rows of the files, made where there is none; return them, and which were made."""
        made: set[bytes] = set()
        kept: dict[bytes, File] = {}
        new = self._absent(self._hashes(self._rooms.known))
        while len(kept) < len(self._files):
            rows = [(file.hash, file.size, file.terms, "", self._moment) for file in new]
            self._rooms.new_files.put(self._connection, rows)
            made |= {file.hash for file in new}
            found = [row for part in parts_of(self._files) for row in self._within(self._rooms.locked, part)]
            kept = {bytes(row.hash): File(bytes(row.hash), row.size, bytes(row.terms)) for row in found}
            # A row that was there may have been swept since: then it is made in another turn.
            new = self._absent(kept)
        return kept, made

    def _hashes(self, statement: Prepared) -> set[bytes]:
        return {bytes(row.hash) for part in parts_of(self._files) for row in self._within(statement, part)}

    def _within(self, statement: Prepared, hashes: list[bytes]) -> list[Any]:
        return statement.within(self._connection, {"hashes": hashes})

    def _absent(self, known: Collection[bytes]) -> list[File]:
        return [file for hash, file in sorted(self._files.items()) if hash not in known]

    def _claim(self, kept: Mapping[bytes, File]) -> set[bytes]:
        """Lock, revive and promise the xorbs of a shard and of the files that it names; return those that are sound.

        Raises: ObjectAbsent (one that the shard names is not, or not in this domain).
        """
        xorbs, named = self._rooms.xorbs, _xorbs(self._files.values())
        sound = xorbs.claim(self._connection, named | _xorbs(kept.values()))
        gone = named - (xorbs.shown(self._connection, self._leave.domain, named) & sound)
        if gone:
            raise ObjectAbsent(
                f"{len(gone)} of {len(named)} xorbs of this upload are not stored here any more; upload the files "
                "again.",
                oids=[text(hash) for hash in sorted(gone)],
            )
        return sound

    def _mark(self) -> None:
        rows = [
            {"domain_id": self._leave.domain, "chunk": chunk, "file": hash, "xorb": xorb}
            for chunk, (hash, xorb) in sorted(self._marks.items())
        ]
        dialect = sqlite if self._connection.dialect.name == "sqlite" else postgresql
        insert = dialect.insert(xet_marks)
        newest = insert.on_conflict_do_update(
            index_elements=["domain_id", "chunk"],
            set_={"file": insert.excluded.file, "xorb": insert.excluded.xorb},
            where=(xet_marks.c.file != insert.excluded.file) | (xet_marks.c.xorb != insert.excluded.xorb),
        )
        if rows:
            self._connection.execute(newest, rows)


def _xorbs(files: Iterable[File]) -> set[bytes]:
    return {part.xorb for file in files for part in file.parts()}
