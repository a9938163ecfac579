"""Ref rows, moved by compare-and-swap.

Every function here works inside the caller's write transaction, under the repo's row lock.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from registry.git.snapshot import Ref
from registry.git.verdict import Update
from registry.tables.repos import refs


def swap(connection: Connection, repo_id: int, update: Update, peeled: str | None, at: datetime) -> bool:
    """Move one ref if it still is where the caller saw it; False if it is not. Nothing changes then."""
    here = sa.and_(refs.c.repo_id == repo_id, refs.c.name == update.name)
    if update.creates and update.deletes:
        return not _exists(connection, repo_id, update.name)
    if update.creates:
        if _exists(connection, repo_id, update.name):
            return False
        values = {"repo_id": repo_id, "name": update.name, "target": update.new, "peeled": peeled, "updated_at": at}
        connection.execute(sa.insert(refs).values(values))
        return True
    if update.deletes:
        return connection.execute(sa.delete(refs).where(here, refs.c.target == update.old)).rowcount == 1
    moved = sa.update(refs).where(here, refs.c.target == update.old)
    return connection.execute(moved.values(target=update.new, peeled=peeled, updated_at=at)).rowcount == 1


def current(connection: Connection, repo_id: int) -> Mapping[bytes, Ref]:
    """Read every ref as this transaction sees it, in byte order of names."""
    chosen = sa.select(refs.c.name, refs.c.target, refs.c.peeled).where(refs.c.repo_id == repo_id)
    rows = connection.execute(chosen.order_by(refs.c.name))
    return {bytes(row.name): Ref(bytes(row.name), row.target, row.peeled) for row in rows}


def clash(connection: Connection, repo_id: int, name: bytes) -> bytes | None:
    """Return a ref that cannot stand beside `name`, because one would be a folder of the other."""
    parts = name.split(b"/")
    above = [b"/".join(parts[:cut]) for cut in range(1, len(parts))]
    # "0" is the byte after "/": the range holds exactly the names below.
    below = sa.and_(refs.c.name > name + b"/", refs.c.name < name + b"0")
    found = sa.select(refs.c.name).where(refs.c.repo_id == repo_id, sa.or_(refs.c.name.in_(above), below)).limit(1)
    other = connection.execute(found).scalar()
    return None if other is None else bytes(other)


def _exists(connection: Connection, repo_id: int, name: bytes) -> bool:
    found = sa.select(sa.literal(1)).where(refs.c.repo_id == repo_id, refs.c.name == name)
    return connection.execute(found).first() is not None
