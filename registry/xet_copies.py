"""Files from repo to repo without their bytes: what one has proven, another is given, too.

The file is filed in the target as by a shard, and with it the target's domain learns of the xorbs that hold nothing
else; the upload that comes of it is settled by the proof that the source has. A death in between leaves an upload that
waits for its proof, as any does.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from lfs.store import file_key
from lfs.xet.hashes import text
from lfs.xet.index import File, Filing, Leave
from registry.access import RepoRow
from registry.db import Database
from registry.errors import RegistryError
from registry.linking import Linker, Proven
from registry.links import Links, parts_of
from registry.tables.objects import lfs_uploads
from registry.tables.xet import xet_marks
from registry.xorbs import XetRows


@dataclass(frozen=True, slots=True)
class Wanted:
    """A file to be copied, by the hash over its chunks and by its SHA-256."""

    hash: bytes
    sha256: str


class Copies:
    """Copies links. Thread-safe, among processes too."""

    def __init__(self, database: Database, rows: XetRows, links: Links, linker: Linker) -> None:
        self._db = database
        self._rows = rows
        self._links = links
        self._linker = linker

    def copy(self, source: int, target: RepoRow, actor_id: int, wanted: Sequence[Wanted]) -> dict[str, str]:
        """Give a repo files that another has proven; return, by SHA-256, why some were left out. Repeatable.

        Raises: QuotaExceeded (nothing is copied), RepoAbsent, ObjectAbsent (a xorb went at this moment), Busy.
        """
        oids = {one.sha256 for one in wanted}
        held, proven = self._links.held(source, oids), self._rows.files.advertised(source, oids)
        files: dict[str, File] = {}
        failed: dict[str, str] = {}
        for one in wanted:
            file = None
            if one.sha256 in held and proven.get(one.sha256) == one.hash:
                file = self._rows.files.whole(one.hash)
            if file is None or file.size != held[one.sha256]:
                failed[one.sha256] = "The source has no such file with this hash, or it is not proven yet."
            else:
                files[one.sha256] = file
        if files:
            failed |= self._file(target, actor_id, files)
        return failed

    def _file(self, target: RepoRow, actor_id: int, files: Mapping[str, File]) -> dict[str, str]:
        domain = self._rows.domains.domain_of(target).id
        marks = self._marks({file.hash for file in files.values()})
        leave = Leave(target.id, actor_id, domain, "write", 0)
        self._rows.copy(leave, [Filing(file, oid, marks.get(file.hash, ())) for oid, file in files.items()])
        waiting = self._waiting(target.id, {oid: file_key(text(file.hash)) for oid, file in files.items()})
        settled = self._linker.finish_all(waiting) if waiting else []
        return {
            proof.oid: answer.message
            for proof, answer in zip(waiting, settled, strict=True)
            if isinstance(answer, RegistryError)
        }

    def _marks(self, hashes: Collection[bytes]) -> dict[bytes, tuple[tuple[bytes, bytes], ...]]:
        """Find the chunks by which these files are found, in whatever domain, and where they are."""
        found: dict[bytes, dict[bytes, bytes]] = {}
        chosen = sa.select(xet_marks.c.file, xet_marks.c.chunk, xet_marks.c.xorb)
        with self._db.look() as connection:
            for part in parts_of(hashes):
                for row in connection.execute(chosen.where(xet_marks.c.file.in_(part))):
                    found.setdefault(bytes(row.file), {})[bytes(row.chunk)] = bytes(row.xorb)
        return {file: tuple(sorted(places.items())) for file, places in found.items()}

    def _waiting(self, repo_id: int, keys: Mapping[str, str]) -> list[Proven]:
        """Find the uploads that wait in a repo for the proof that these objects have elsewhere."""
        chosen = sa.select(lfs_uploads.c.id, lfs_uploads.c.oid, lfs_uploads.c.size, lfs_uploads.c.key)
        chosen = chosen.where(lfs_uploads.c.repo_id == repo_id, lfs_uploads.c.state == "arrived")
        with self._db.look() as connection:
            rows = [
                row for part in parts_of(keys) for row in connection.execute(chosen.where(lfs_uploads.c.oid.in_(part)))
            ]
        return [Proven(row.id, row.key, row.oid, row.size) for row in rows if row.key == keys[row.oid]]
