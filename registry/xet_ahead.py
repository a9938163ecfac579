"""What a change of circles asks of terms, read before the transaction: hostile files have gigabytes of them.

    ahead    up to `MOST` terms for where the repo comes, and as many for where it was; nobody waits for it
    inside   which of those files are linked now, and up to `INSIDE` terms of files that were linked since

That a file has chunks of a xorb lies in their hashes and stays true. That it is linked does not: it is looked up again
under the locks, and what rests on a file that went is not believed. A xorb that is not proven whole by then, because
files are too scattered, too many or too new, counts as not whole: it comes to no circle, and leaves one that may not
keep it. That costs dedup, and shows nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from registry.tables.xet import xet_file_xorbs, xet_files, xet_links, xet_xorbs
from registry.xet_circles import Circle, is_in
from registry.xet_uses import Uses

MOST = 2_000_000
"""Terms that are read before the transaction: 1 TB in the pieces of 512 KiB that clients make at least on the average,
and a second or so of CPU."""
INSIDE = 100_000
"""Terms that are read inside it: 0.1 s of SQLite's one writer."""

_ASKED = 500
"""Files whose length is asked for together; also how many new ones are read inside."""
_HELD = 4 << 20
"""Bytes of terms that are held at a time, or one file's: up to 32 MiB."""
_TERM = 48

LINKED = sa.select(xet_links.c.file).where(xet_links.c.repo_id == sa.bindparam("repo"))
"""The repo's files."""
ITS_XORBS = sa.select(xet_file_xorbs.c.xorb).where(xet_file_xorbs.c.file.in_(LINKED))
"""All xorbs of the repo."""
SHARING = sa.select(xet_file_xorbs.c.file).where(xet_file_xorbs.c.xorb.in_(ITS_XORBS))
"""All files that have chunks in one of them."""

# By the time of the link: that of the file lies behind its terms, and SQLite would read through all of them.
_NEWEST = sa.select(xet_links.c.file).group_by(xet_links.c.file)
_NEWEST = _NEWEST.order_by(sa.func.max(xet_links.c.created_at).desc(), xet_links.c.file)
ITS_FILES = _NEWEST.where(xet_links.c.repo_id == sa.bindparam("repo"))
"""Its files, newest first."""
CHUNKS = sa.select(xet_xorbs.c.hash, xet_xorbs.c.chunks).where(xet_xorbs.c.hash.in_(ITS_XORBS))
_LENGTHS = sa.select(xet_files.c.hash, sa.func.length(xet_files.c.terms).label("length"))
_TERMS = sa.select(xet_files.c.hash, xet_files.c.terms)


@dataclass(frozen=True, slots=True)
class Ahead:
    """What files have of the repo's xorbs: its own files, and those that stay where it was. It is used up once."""

    coming: Uses = field(default_factory=lambda: Uses({}))
    going: Uses = field(default_factory=lambda: Uses({}))


def staying(circle: Circle) -> sa.Select[Any]:
    """Choose the files that other repos of a circle link and that share xorbs with the repo, newest first."""
    others = xet_links.c.repo_id != sa.bindparam("repo")
    return _NEWEST.where(xet_links.c.file.in_(SHARING), others, is_in(circle))


def look_ahead(connection: Connection, repo_id: int, before: Circle, after: Circle) -> Ahead:
    """Read what the files have, as far as it is read ahead at all."""
    its = {"repo": repo_id}
    xorbs = {bytes(row.hash): row.chunks for row in connection.execute(CHUNKS, its)}
    ahead = Ahead(Uses(xorbs), Uses(xorbs))
    _read(connection, ahead.coming, files_of(connection, ITS_FILES, repo_id), MOST)
    if after.kind == "private":
        _read(connection, ahead.going, files_of(connection, staying(before), repo_id), MOST)
    return ahead


def files_of(connection: Connection, chosen: sa.Select[Any], repo_id: int) -> list[bytes]:
    """Return the files that a choice gives for a repo, in its order."""
    return [bytes(hash) for hash in connection.execute(chosen, {"repo": repo_id}).scalars()]


def settle(connection: Connection, uses: Uses, files: Sequence[bytes], xorbs: Mapping[bytes, int]) -> set[bytes]:
    """Return which xorbs are whole by the files that are linked now, of those that the repo has now.

    The caller holds the locks.
    """
    uses.count_only(frozenset(files))
    uses.begin(xorbs)
    new = [hash for hash in files if hash not in uses.files]
    _read(connection, uses, new[:_ASKED], INSIDE)
    return uses.whole & xorbs.keys()


def _read(connection: Connection, uses: Uses, files: Sequence[bytes], most: int) -> None:
    """Read files until nothing is open, or `most` terms; one that is too large by itself is passed over."""
    for part in (files[at : at + _ASKED] for at in range(0, len(files), _ASKED)):
        if not uses.open:
            return
        found = connection.execute(_LENGTHS.where(xet_files.c.hash.in_(part)))
        lengths = {bytes(row.hash): row.length for row in found}
        for batch in _batches(part, lengths):
            taken = []
            for hash in batch:
                if lengths.get(hash, 0) // _TERM <= most:
                    most -= lengths.get(hash, 0) // _TERM
                    taken.append(hash)
            _read_batch(connection, uses, batch, taken)


def _read_batch(connection: Connection, uses: Uses, batch: Collection[bytes], taken: Collection[bytes]) -> None:
    terms = {}
    if taken and uses.open:
        found = connection.execute(_TERMS.where(xet_files.c.hash.in_(taken)))
        terms = {bytes(row.hash): bytes(row.terms) for row in found}
    for hash in batch:
        # Also those that were passed over: they are not tried again inside.
        uses.read(hash, terms.get(hash, b""))


def _batches(files: Sequence[bytes], lengths: Mapping[bytes, int]) -> Iterator[list[bytes]]:
    batch: list[bytes] = []
    held = 0
    for hash in files:
        if batch and held + lengths.get(hash, 0) > _HELD:
            yield batch
            batch, held = [], 0
        batch.append(hash)
        held += lengths.get(hash, 0)
    yield batch
