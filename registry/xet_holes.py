"""Files that cannot be put together now, since a xorb of theirs was put aside or is going; objects that are such files.

    row of the object   stored, as long as nobody brings its bytes another way
    what doors see      damaged, as long as one of its xorbs is bad: read nowhere, asked for again by the next upload

That is asked each time, and noted nowhere. A xorb may be in a hundred thousand files: to mark them, and to take the
marks away, would be a long transaction that races with every proof. So it is one row that changes, and whatever makes
the xorb sound, its bytes that come again or a check that finds them right, heals all its files at that moment. The
question costs 0.3 ms for 100 objects of a batch, and 0.02 ms for one (measured 2026-11, SQLite).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import sqlalchemy as sa

from lfs.store import FILES
from lfs.xet.hashes import parse
from registry.tables.xet import xet_file_xorbs, xet_files, xet_xorbs


def holed(file: sa.Column[bytes]) -> sa.ColumnElement[bool]:
    """Say of a column with hashes of files that a xorb of the file is bad."""
    first = xet_xorbs.alias("first_bad")
    # Looked up by state, and once: where all is well, a file of thousands of xorbs costs nothing.
    any_bad = sa.select(first.c.hash).where(_is_bad(first)).correlate(None).exists()
    bad = xet_xorbs.alias("bad")
    needed = xet_file_xorbs.alias("needed")
    of_it = sa.select(bad.c.hash).join(needed, needed.c.xorb == bad.c.hash).where(needed.c.file == file, _is_bad(bad))
    return sa.and_(any_bad, of_it.exists())


def _is_bad(xorbs: sa.FromClause) -> sa.ColumnElement[bool]:
    return sa.or_(xorbs.c.state == "quarantined", xorbs.c.state == "deleting")


HOLED = sa.select(xet_files.c.hash).where(
    xet_files.c.hash.in_(sa.bindparam("files", expanding=True)), holed(xet_files.c.hash)
)
"""Choose the holed ones of some `files`."""


def holed_among(keys: Iterable[str], ask: Callable[[Mapping[str, object]], Iterable[Any]]) -> set[str]:
    """Return those of these keys of objects that are holed files; `ask` runs `HOLED`, if any of them is a file.

    Or files of which another such choice tells.
    """
    files = {parse(key.removeprefix(FILES)): key for key in keys if key.startswith(FILES)}
    return {files[bytes(row.hash)] for row in ask({"files": list(files)})} if files else set()
