"""What it costs to close and to open a large repo, whose chunks follow it from circle to circle.

    python -m tests.bench.xet_following [VERSIONS]
    python -m tests.bench.xet_following FILES XORBS TERMS

Makes rows for 16,000 xorbs of 64 MiB in 200 files (1 TB), each xorb in 20 terms, in a new SQLite file; every further
version is 200 files more of the same xorbs. With three numbers the files are hostile: each of so many terms of one
chunk, dealt in turn over so many xorbs of 8,192 chunks, of which one chunk is never named. Prints seconds and CPU of
what is read ahead, which nobody waits for, and of the transaction.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import sys
import tempfile
import time
from collections.abc import Iterator
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
    numbers = [int(each) for each in sys.argv[1:]]
    with tempfile.TemporaryDirectory() as folder:
        database = Database(f"sqlite:///{folder}/registry.db")
        schema.migrate(database)
        people.add_user(database, "ann")
        repo = people.add_repo(database, "ann", "large")
        if len(numbers) == 3:
            strew(database, repo, *numbers)
        else:
            fill(database, repo, *(numbers or [1]))
        for visibility in ("private", "public"):
            change(database, repo, visibility)
        database.dispose()


def change(database: Database, repo: int, visibility: str) -> None:
    """Change who may read a repo; print how long it took."""
    following = Following(database, "namespace")
    with timed(f"to {visibility}, ahead"):
        ahead = following.ahead(repo, {"visibility": visibility})
    with timed(f"to {visibility}, inside"), database.write() as connection:
        before = following.circle(connection, repo)
        connection.execute(sa.update(repos).where(repos.c.id == repo).values(visibility=visibility))
        following.follow(connection, repo, before, ahead)


@contextlib.contextmanager
def timed(what: str) -> Iterator[None]:
    """Print what it takes."""
    began, cpu = time.perf_counter(), time.process_time()
    yield
    print(f"{what}: {time.perf_counter() - began:.2f} s, {time.process_time() - cpu:.2f} s of CPU")


def strew(database: Database, repo: int, files: int, many: int, count: int) -> None:
    """Make the rows of files that never have the first chunk of any xorb."""
    at, circle = now(), Circle("n1", "public")
    xorbs = [name(f"xorb {number}") for number in range(many)]
    with database.write() as connection:
        make_domain(connection, circle)
        domain = find_domain(connection, circle)
        connection.execute(sa.insert(xet_xorbs), [xorb_row(hash, at) | {"chunks": 8192} for hash in xorbs])
        connection.execute(sa.insert(xet_xorb_domains), [{"domain_id": domain, "hash": hash} for hash in xorbs])
        places = itertools.islice(((hash, chunk) for chunk in range(1, 8192) for hash in xorbs), count)
        terms = packed([Part(hash, chunk, chunk + 1, 0) for hash, chunk in places])
        for number in range(files):
            file = name(f"file {number}")
            row = {"hash": file, "size": 1, "terms": terms, "created_at": at}
            connection.execute(sa.insert(xet_files).values(row))
            needed = [{"file": file, "xorb": hash} for hash in xorbs[:count]]
            connection.execute(sa.insert(xet_file_xorbs), needed)
            link = {"repo_id": repo, "file": file, "sha256": "", "size": 1, "state": "proven", "created_at": at}
            connection.execute(sa.insert(xet_links).values(link))
            mark = {"domain_id": domain, "chunk": file, "file": file, "xorb": needed[0]["xorb"]}
            connection.execute(sa.insert(xet_marks).values(mark))


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
    size: dict[str, object] = {"size": 1 << 26, "raw_size": 1 << 26, "chunks": CHUNKS}
    return {"hash": hash, "key": hash.hex(), "table_key": hash.hex(), "state": "live", **size, **times}


def terms(xorbs: list[bytes]) -> bytes:
    """Name all chunks of some xorbs, in runs."""
    step = CHUNKS // TERMS
    return packed([Part(hash, at, at + step, 0) for hash in xorbs for at in range(0, CHUNKS, step)])


def name(text: str) -> bytes:
    """Make a hash."""
    return hashlib.sha256(text.encode()).digest()


if __name__ == "__main__":
    main()
