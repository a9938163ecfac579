"""What it costs to close and to open a large repo, whose chunks follow it from circle to circle.

    python -m tests.bench.xet_following [VERSIONS]

Makes rows for 16,000 xorbs of 64 MiB in 200 files (1 TB), each xorb in 20 terms, in a new SQLite file; every further
version is 200 files more of the same xorbs. Prints seconds of the transaction, and of CPU.
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
import time
from datetime import datetime

import sqlalchemy as sa

from lfs.xet.index import Part, packed
from registry import schema
from registry.db import Database, now
from registry.tables.repos import repos
from registry.tables.xet import xet_file_xorbs, xet_files, xet_links, xet_marks, xet_xorb_domains, xet_xorbs
from registry.xet_circles import Circle, find_domain, make_domain
from registry.xet_following import Following
from tests.registry import people

XORBS, FILES, CHUNKS, TERMS = 16_000, 200, 1000, 20


def main() -> None:
    """Measure both ways."""
    versions = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    with tempfile.TemporaryDirectory() as folder:
        database = Database(f"sqlite:///{folder}/registry.db")
        schema.migrate(database)
        people.add_user(database, "ann")
        repo = people.add_repo(database, "ann", "large")
        fill(database, repo, versions)
        for visibility in ("private", "public"):
            seconds, cpu = change(database, repo, visibility)
            print(f"to {visibility}: {seconds:.2f} s, {cpu:.2f} s of CPU")
        database.dispose()


def change(database: Database, repo: int, visibility: str) -> tuple[float, float]:
    """Change who may read a repo; return how long it took."""
    following = Following(database, "namespace")
    began, cpu = time.perf_counter(), time.process_time()
    with database.write() as connection:
        before = following.circle(connection, repo)
        connection.execute(sa.update(repos).where(repos.c.id == repo).values(visibility=visibility))
        following.follow(connection, repo, before)
    return time.perf_counter() - began, time.process_time() - cpu


def fill(database: Database, repo: int, versions: int) -> None:
    """Make the rows of a repo that is public."""
    at, circle = now(), Circle("n1", "public")
    xorbs = [name(f"xorb {number}") for number in range(XORBS)]
    with database.write() as connection:
        make_domain(connection, circle)
        domain = find_domain(connection, circle)
        connection.execute(sa.insert(xet_xorbs), [xorb_row(hash, at) for hash in xorbs])
        connection.execute(sa.insert(xet_xorb_domains), [{"domain_id": domain, "hash": hash} for hash in xorbs])
        for number in range(FILES * versions):
            file, start = name(f"file {number}"), number % FILES * (XORBS // FILES)
            mine = xorbs[start : start + XORBS // FILES]
            row = {"hash": file, "size": len(mine) << 26, "terms": terms(mine), "created_at": at}
            connection.execute(sa.insert(xet_files).values(row))
            connection.execute(sa.insert(xet_file_xorbs), [{"file": file, "xorb": hash} for hash in mine])
            link = {"repo_id": repo, "file": file, "sha256": "", "size": 1, "state": "proven", "created_at": at}
            connection.execute(sa.insert(xet_links).values(link))
            if number < FILES:
                connection.execute(
                    sa.insert(xet_marks),
                    [{"domain_id": domain, "chunk": hash, "file": file, "xorb": hash} for hash in mine],
                )


def xorb_row(hash: bytes, at: datetime) -> dict[str, object]:
    """Make the row of a full xorb."""
    times = {"promised_until": at, "verified_at": at, "scrubbed_at": at}
    size = {"size": 1 << 26, "raw_size": 1 << 26, "chunks": CHUNKS}
    return {"hash": hash, "key": hash.hex(), "table_key": hash.hex(), "state": "live"} | size | times


def terms(xorbs: list[bytes]) -> bytes:
    """Name all chunks of some xorbs, in runs."""
    step = CHUNKS // TERMS
    return packed([Part(hash, at, at + step, 0) for hash in xorbs for at in range(0, CHUNKS, step)])


def name(text: str) -> bytes:
    """Make a hash."""
    return hashlib.sha256(text.encode()).digest()


if __name__ == "__main__":
    main()
