"""What a change of circles asks of terms and marks, read before the transaction: hostile files have gigabytes of them.

    ahead    up to `MOST` terms for where the repo comes, and as many for where it was; nobody waits for it
    inside   which of the files are linked now by which a xorb was found to be whole

That a file has chunks of a xorb lies in their hashes and stays true, and so does which xorb has a chunk. That a file is
linked does not: it is looked up under the locks. A xorb that is not proven whole by then, because files are too
scattered, too many or too new, counts as not whole: it comes to no circle, and leaves one that may not keep it. That
costs dedup, and shows nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from registry.links import parts_of
from registry.tables.xet import xet_file_xorbs, xet_files, xet_links, xet_marks, xet_xorbs
from registry.xet_circles import Circle, is_in
from registry.xet_uses import Uses

MOST = 2_000_000
"""Terms that are read: 1 TB in the pieces of 512 KiB that clients make at least on the average, about 1 s of CPU."""
_FILES = 100_000
"""The newest files, whose terms may be read: so many at most are looked up inside."""
_MARKS = 100_000
"""Marks that come along: those of 6 TB."""
_ASKED = 500
"""Files whose length is asked for together."""
_HELD = 4 << 20
"""Bytes of terms that are held at a time, or one file's: up to 32 MiB."""
_TERM = 48

LINKED = sa.select(xet_links.c.file).where(xet_links.c.repo_id == sa.bindparam("repo"))
"""The repo's files."""
ITS_XORBS = sa.select(xet_file_xorbs.c.xorb).where(xet_file_xorbs.c.file.in_(LINKED))
"""All xorbs of the repo."""
# Each file of each xorb: a million rows for 12,000 files that share 84 xorbs, too many for the writer's time.
_SHARING = sa.select(xet_file_xorbs.c.file).where(xet_file_xorbs.c.xorb.in_(ITS_XORBS))

# By the time of the link: that of the file lies behind its terms, and SQLite would read through all of them.
_NEWEST = sa.select(xet_links.c.file).group_by(xet_links.c.file)
_NEWEST = _NEWEST.order_by(sa.func.max(xet_links.c.created_at).desc(), xet_links.c.file)
_ITS_FILES = _NEWEST.where(xet_links.c.repo_id == sa.bindparam("repo")).limit(_FILES)
CHUNKS = sa.select(xet_xorbs.c.hash, xet_xorbs.c.chunks).where(xet_xorbs.c.hash.in_(ITS_XORBS))
_TOLD_OF = sa.select(xet_marks.c.chunk, xet_marks.c.xorb).where(xet_marks.c.file.in_(_SHARING)).limit(_MARKS)
_LENGTHS = sa.select(xet_files.c.hash, sa.func.length(xet_files.c.terms).label("length"))
_TERMS = sa.select(xet_files.c.hash, xet_files.c.terms)


@dataclass(frozen=True, slots=True)
class Ahead:
    """What files have of the repo's xorbs: its own files, and those that stay where it was.

    `told` are chunks of these xorbs that are marks in some domain, each with its xorb.
    """

    coming: Uses = field(default_factory=lambda: Uses({}))
    going: Uses = field(default_factory=lambda: Uses({}))
    told: Mapping[bytes, bytes] = field(default_factory=dict)


def look_ahead(connection: Connection, repo_id: int, before: Circle, after: Circle) -> Ahead:
    """Read what the files have, as far as it is read at all."""
    its = {"repo": repo_id}
    xorbs = {bytes(row.hash): row.chunks for row in connection.execute(CHUNKS, its)}
    told = {bytes(row.chunk): bytes(row.xorb) for row in connection.execute(_TOLD_OF, its)}
    ahead = Ahead(Uses(xorbs), Uses(xorbs), {chunk: xorb for chunk, xorb in told.items() if xorb in xorbs})
    _read(connection, ahead.coming, _files(connection, _ITS_FILES, its))
    if after.kind == "private":
        others = xet_links.c.repo_id != sa.bindparam("repo")
        staying = _NEWEST.where(xet_links.c.file.in_(_SHARING), others, is_in(before)).limit(_FILES)
        _read(connection, ahead.going, _files(connection, staying, its))
    return ahead


def linked_among(connection: Connection, files: Collection[bytes], by: sa.ColumnElement[bool]) -> set[bytes]:
    """Return those of these files that are linked by one whom a condition on `xet_links` names."""
    chosen = sa.select(xet_links.c.file).where(by)
    found = (connection.execute(chosen.where(xet_links.c.file.in_(part))) for part in parts_of(files))
    return {bytes(hash) for rows in found for hash in rows.scalars()}


def _files(connection: Connection, chosen: sa.Select[Any], its: Mapping[str, object]) -> list[bytes]:
    return [bytes(hash) for hash in connection.execute(chosen, its).scalars()]


def _read(connection: Connection, uses: Uses, files: Sequence[bytes]) -> None:
    """Read files until nothing is open, or `MOST` terms; what does not fit any more is passed over."""
    left = MOST
    for part in (files[at : at + _ASKED] for at in range(0, len(files), _ASKED)):
        found = connection.execute(_LENGTHS.where(xet_files.c.hash.in_(part)))
        terms = {bytes(row.hash): row.length // _TERM for row in found}
        for batch in _batches([hash for hash in part if hash in terms], terms):
            if not uses.open:
                return
            fitting = []
            for hash in batch:
                if terms[hash] <= left:
                    left -= terms[hash]
                    fitting.append(hash)
            _read_batch(connection, uses, fitting)


def _read_batch(connection: Connection, uses: Uses, batch: Collection[bytes]) -> None:
    found = connection.execute(_TERMS.where(xet_files.c.hash.in_(batch)))
    terms = {bytes(row.hash): bytes(row.terms) for row in found}
    for hash in batch:
        if hash in terms:
            uses.read(hash, terms[hash])


def _batches(files: Sequence[bytes], terms: Mapping[bytes, int]) -> Iterator[list[bytes]]:
    batch: list[bytes] = []
    held = 0
    for hash in files:
        if batch and held + terms[hash] * _TERM > _HELD:
            yield batch
            batch, held = [], 0
        batch.append(hash)
        held += terms[hash] * _TERM
    if batch:
        yield batch
