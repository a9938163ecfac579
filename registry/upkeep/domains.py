"""What a domain knows of xorbs that none of its repos needs any more: forgotten once their promise has ended.

    xorb   a file that is linked elsewhere needs it, and no file that a repo of the circle links
    mark   it leads to a file that is linked elsewhere, and by no repo of the circle

A repo that was deleted, or moved to where everybody may read it, leaves such rows; one that was closed took them along
at once. What nothing at all needs goes with its xorb or its file. No byte goes here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from registry.db import Database
from registry.names import RepoId
from registry.tables.identity import namespaces
from registry.tables.repos import repos
from registry.tables.xet import xet_domains, xet_file_xorbs, xet_links, xet_marks, xet_xorb_domains, xet_xorbs
from registry.upkeep.paging import in_groups, paged
from registry.upkeep.reclaim import Line, Step
from registry.xet_circles import Circle, is_in

_TOGETHER = 500
_PAGE = 20_000
"""Rows that are looked for at a time: PostgreSQL goes through all of a domain to find the next ones."""
_DOMAINS = sa.select(xet_domains.c.id, xet_domains.c.owner, xet_domains.c.kind)
_REPO = sa.select(repos.c.type, namespaces.c.name.label("namespace"), repos.c.name)
_REPO = _REPO.select_from(repos.join(namespaces, namespaces.c.id == repos.c.namespace_id))


@dataclass(frozen=True, slots=True)
class _Rows:
    """Rows of one domain: by which column they are told apart, which of them go, what keeps them still meanwhile."""

    column: sa.Column[Any]
    useless: sa.ColumnElement[bool]
    locked: sa.Select[Any]

    def count(self, connection: Connection) -> int:
        """Say how many would go."""
        chosen = sa.select(sa.func.count()).select_from(self.column.table).where(self.useless)
        return int(connection.execute(chosen).scalar_one())


class Domains:
    """Plans and forgets, domain by domain."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def steps(self, moment: datetime) -> Iterator[Step]:
        """Plan all domains, one step for each."""
        for row in paged(self._db, _DOMAINS, xet_domains.c.id):
            circle = Circle(row.owner, row.kind)
            kinds = _xorbs(row.id, circle, moment), _marks(row.id, circle, moment)
            with self._db.read() as connection:
                xorbs, marks = (rows.count(connection) for rows in kinds)
                name = _name(connection, circle) if xorbs or marks else ""
            if name:
                why = f"{xorbs} xorbs and {marks} marks: only repos elsewhere need them, and their promise has ended"
                line = Line("forget", "domain", name, 0, why, "who uploads the same to it sends the bytes")
                yield self._forgetting(line, kinds)

    def _forgetting(self, line: Line, kinds: Sequence[_Rows]) -> Step:
        def do(run: int) -> Sequence[Line]:
            gone = sum(self._drop(rows) for rows in kinds)
            return [line if gone else line.kept("a repo of it needs them again, or they are promised again")]

        return Step((line,), do)

    def _drop(self, rows: _Rows) -> int:
        """Remove rows some hundred at a time, and say how many went."""
        gone, last = 0, b""
        while page := self._page(rows, last):
            for some in in_groups(page, _TOGETHER):
                with self._db.write() as connection:
                    # Who files, or brings a repo here, holds these locks too: the next statement sees what they did.
                    connection.execute(rows.locked.where(rows.locked.selected_columns[0].in_(some)).with_for_update())
                    dropped = sa.delete(rows.column.table).where(rows.column.in_(some), rows.useless)
                    gone += connection.execute(dropped).rowcount
            last = page[-1]
        return gone

    def _page(self, rows: _Rows, last: bytes) -> list[bytes]:
        chosen = sa.select(rows.column).where(rows.useless, rows.column > last).order_by(rows.column).limit(_PAGE)
        with self._db.read() as connection:
            return [bytes(hash) for hash in connection.execute(chosen).scalars()]


def _xorbs(domain: str, circle: Circle, moment: datetime) -> _Rows:
    hash = xet_xorb_domains.c.hash
    useless = sa.and_(
        xet_xorb_domains.c.domain_id == domain,
        sa.exists().where(xet_xorbs.c.hash == hash, xet_xorbs.c.promised_until <= moment),
        _is_needed(),
        ~_is_needed(is_in(circle)),
    )
    return _Rows(hash, useless, sa.select(xet_xorbs.c.hash).order_by(xet_xorbs.c.hash))


def _is_needed(*links: sa.ColumnElement[bool]) -> sa.ColumnElement[bool]:
    """Say of a xorb of a domain that a file needs it which has such a link."""
    linked = sa.select(xet_links.c.file).where(xet_links.c.file == xet_file_xorbs.c.file, *links)
    needs = sa.select(xet_file_xorbs.c.file).where(xet_file_xorbs.c.xorb == xet_xorb_domains.c.hash)
    return sa.exists(needs.where(sa.exists(linked.correlate(xet_file_xorbs))).correlate(xet_xorb_domains))


def _marks(domain: str, circle: Circle, moment: datetime) -> _Rows:
    here = xet_marks.c.domain_id == domain
    linked = sa.select(xet_links.c.file).where(xet_links.c.file == xet_marks.c.file).correlate(xet_marks)
    useless = sa.and_(
        here,
        ~sa.exists().where(xet_xorbs.c.hash == xet_marks.c.xorb, xet_xorbs.c.promised_until > moment),
        sa.exists(linked),
        ~sa.exists(linked.where(is_in(circle))),
    )
    return _Rows(xet_marks.c.chunk, useless, sa.select(xet_marks.c.chunk).where(here).order_by(xet_marks.c.chunk))


def _name(connection: Connection, circle: Circle) -> str:
    """Say for people whose domain it is."""
    number = circle.owner[1:]
    match circle.owner[0]:
        case "n":
            chosen = sa.select(namespaces.c.name).where(namespaces.c.id == int(number))
            return f"{circle.kind} of {connection.execute(chosen).scalar_one()}"
        case "r":
            row = connection.execute(_REPO.where(repos.c.id == int(number))).one()
            return f"{circle.kind} of {RepoId(row.type, row.namespace, row.name).web}"
    return f"{circle.kind} of all"
