"""Upload rows: what was announced to a repo, where its bytes lie, and who works on it.

    open ── arrive ──▶ arrived ── proof ──▶ done
      └──── proof ────────┼───────────────▶ done          `registry/linking` alone makes it done
                          └── fail ───────▶ failed        also from open

A row ends with its repo: nothing arrives in, or is proven for, a repo that is gone.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from lfs.host import Opening, Upload
from lfs.store import FILES
from lfs.xet.hashes import parse
from registry.db import Database, lock_repo, now
from registry.errors import ObjectAbsent, RepoAbsent
from registry.links import parts_of
from registry.proving import ALIVE, COLUMNS, Waiting
from registry.quota import Quotas, pending
from registry.tables.identity import namespaces
from registry.tables.objects import lfs_links, lfs_uploads
from registry.tables.repos import repos
from registry.tables.xet import xet_links
from registry.xet_arrivals import count_again

_MIB = 1 << 20
_SHORTEST, _LONGEST = timedelta(days=1), timedelta(days=7)
_WAITING = ("staging", "multipart", "tus")
# The weakest lock there is keeps the repo from being deleted or moved, and lets batches pass each other.
_HOME = (
    sa.select(repos.c.namespace_id, namespaces.c.quota)
    .join(namespaces, namespaces.c.id == repos.c.namespace_id)
    .where(repos.c.id == sa.bindparam("repo"), repos.c.deleted_at.is_(None))
    .with_for_update(read=True, key_share=True, of=repos)
)
_GONE = "This upload is unknown, has expired or was given up; ask for a new one with a batch request."


@dataclass(frozen=True, slots=True)
class Standing:
    """What uploads tell of an object that is not linked to the repo: sizes that arrived and wait for their proof, and,
    if none did, why the last one failed."""

    arrived: frozenset[int] = frozenset()
    reason: str = ""


class Uploads:
    """Reads and changes upload rows. Thread-safe, among processes too.

    What arrived, failed or is attached is durable at return. Leases are not, nor is an upload in one piece: a power cut
    ends both anyway.
    """

    def __init__(self, database: Database, quotas: Quotas, *, clock: Callable[[], datetime] = now) -> None:
        self._db = database
        self._quotas = quotas
        self._clock = clock
        self._insert = database.prepare_insert(lfs_uploads)
        self._home = database.prepare(_HOME)
        self._waiting = Waiting(database, clock=clock)
        self._find = database.prepare(
            sa.select(*COLUMNS, lfs_uploads.c.expires_at, ALIVE.label("alive")).where(
                lfs_uploads.c.id == sa.bindparam("id")
            )
        )

    def begin(self, repo_id: int, actor_id: int, openings: Sequence[Opening]) -> dict[str, Upload]:
        """Open an upload for each object; return them by oid.

        A tus upload that can go on is given again, and so is one that arrived and waits for its proof.

        Raises: RepoAbsent, QuotaExceeded (nothing is opened then).
        """
        moment = self._clock()
        wanted = {opening.wanted.oid: opening for opening in openings}
        # Bytes that come in one piece come anew if a power cut loses their row; of others a client was told that they
        # are kept.
        whole = all(opening.mode in ("proxy", "direct") for opening in openings)
        with self._db.note() if whole else self._db.write() as connection:
            homes = self._home.within(connection, {"repo": repo_id})
            if not homes:
                raise RepoAbsent("The repository is gone.")
            home = homes[0]
            if self._quotas.applies(home.quota):
                self._reserve(connection, repo_id, home.namespace_id, wanted, moment)
            opened = _resumed(connection, repo_id, actor_id, wanted, moment)
            made = _made(repo_id, actor_id, [one for oid, one in wanted.items() if oid not in opened])
            self._insert.put(connection, [_row(upload, moment) for upload in made.values()])
        return opened | made

    def upload(self, upload_id: str) -> Upload:
        """Return an upload. Raises: ObjectAbsent (no such one, it has expired, or its repo is gone)."""
        row = self._find.first({"id": upload_id})
        if row is None or not row.alive or (row.state == "open" and row.expires_at <= self._clock()):
            raise ObjectAbsent(_GONE)
        return _upload(row)

    def attach(self, sessions: Mapping[str, str]) -> None:
        """Note the shelf's own names of uploads in parts."""
        if not sessions:
            return
        named = sa.case(dict(sessions), value=lfs_uploads.c.id, else_=lfs_uploads.c.session)
        with self._db.write() as connection:
            connection.execute(sa.update(lfs_uploads).where(lfs_uploads.c.id.in_(sessions)).values(session=named))

    def arrive(self, upload_id: str, key: str) -> None:
        """Note that the bytes lie whole under `key` and wait for their proof. Repeating it changes nothing.

        Raises: ObjectAbsent (no such upload, it failed, or its repo is gone), QuotaExceeded.
        """
        here = lfs_uploads.c.id == upload_id
        with self._db.write() as connection:
            repo_id = connection.execute(sa.select(lfs_uploads.c.repo_id).where(here)).scalar()
            if repo_id is None:
                raise ObjectAbsent(_GONE)
            namespace_id = _lock_alive(connection, repo_id)
            # Read under the lock: whoever fails an upload removes its bytes then.
            found = connection.execute(sa.select(*COLUMNS).where(here)).first()
            if found is None:
                raise ObjectAbsent(_GONE)
            if found.state == "failed":
                raise ObjectAbsent(f"This upload failed: {found.reason} Ask for a new one with a batch request.")
            if found.state == "open":
                self._count(connection, namespace_id, found)
                arriving = sa.update(lfs_uploads).where(here, lfs_uploads.c.state == "open")
                connection.execute(arriving.values(state="arrived", key=key))

    def arrived(
        self, holder: str, seconds: float, limit: int, *, largest: int | None = None, besides: Collection[int] = ()
    ) -> list[Upload]:
        """Lease up to `limit` arrived uploads of one account that nobody works on, for `seconds`; as `Host.arrived`."""
        found = self._waiting.lease(holder, seconds, limit, largest=largest, besides=besides)
        return [_upload(row) for row in found]

    def hold(self, upload_id: str, holder: str, seconds: float) -> bool:
        """Lease an upload, or prolong one's own lease; False if another holder has it or it is gone."""
        return bool(self.hold_all([upload_id], holder, seconds))

    def hold_all(self, upload_ids: Collection[str], holder: str, seconds: float) -> set[str]:
        """Do the same for some at once, in one statement; return the ids of those that `holder` has."""
        moment = self._clock()
        mine = sa.or_(
            lfs_uploads.c.lease.in_(["", holder]),
            lfs_uploads.c.lease_until.is_(None),
            lfs_uploads.c.lease_until <= moment,
        )
        leased = sa.update(lfs_uploads).where(lfs_uploads.c.id.in_(upload_ids), mine)
        held = leased.values(lease=holder, lease_until=moment + timedelta(seconds=seconds))
        with self._db.note() as connection:
            return set(connection.execute(held.returning(lfs_uploads.c.id)).scalars())

    def release(self, upload_id: str, holder: str) -> None:
        """Give a lease back, if it is `holder`'s."""
        mine = sa.and_(lfs_uploads.c.id == upload_id, lfs_uploads.c.lease == holder)
        with self._db.note() as connection:
            connection.execute(sa.update(lfs_uploads).where(mine).values(lease="", lease_until=None))

    def fail(self, upload_id: str, reason: str) -> None:
        """Close an upload whose bytes are not the announced ones; one that is done stays so."""
        here = lfs_uploads.c.id == upload_id
        failed = sa.update(lfs_uploads).where(here, lfs_uploads.c.state.in_(["open", "arrived"]))
        with self._db.write() as connection:
            # The maker of links looks at the state under this lock: no link is made to bytes that are removed next.
            lock_repo(connection, connection.execute(sa.select(lfs_uploads.c.repo_id).where(here)).scalar() or 0)
            closed = failed.values(state="failed", reason=reason, lease="", lease_until=None)
            row = connection.execute(closed.returning(*COLUMNS)).first()
            if row is not None and row.mode == "xet":
                _refute(connection, row, self._clock())

    def standing(self, repo_id: int, oids: Collection[str]) -> dict[str, Standing]:
        """Say of objects that are not linked here what their uploads tell; one without any is left out."""
        columns = (lfs_uploads.c.oid, lfs_uploads.c.size, lfs_uploads.c.state, lfs_uploads.c.reason)
        closed = lfs_uploads.c.state.in_(["arrived", "failed"])
        chosen = sa.select(*columns).where(lfs_uploads.c.repo_id == repo_id, closed)
        chosen = chosen.order_by(lfs_uploads.c.created_at, lfs_uploads.c.id)
        found: dict[str, Standing] = {}
        with self._db.read() as connection:
            for part in parts_of(oids):
                for row in connection.execute(chosen.where(lfs_uploads.c.oid.in_(part))):
                    before = found.get(row.oid, Standing())
                    if row.state == "arrived":
                        found[row.oid] = Standing(before.arrived | {row.size}, before.reason)
                    else:
                        found[row.oid] = Standing(before.arrived, row.reason)
        return found

    def unproven(self, repo_id: int, oids: Collection[str]) -> dict[str, int]:
        """Return those of these objects that still wait in a repo for their proof, with their sizes."""
        chosen = sa.select(lfs_uploads.c.oid, lfs_uploads.c.size)
        chosen = chosen.where(lfs_uploads.c.repo_id == repo_id, lfs_uploads.c.state == "arrived", ALIVE)
        found: dict[str, int] = {}
        with self._db.read() as connection:
            for part in parts_of(oids):
                found |= {row.oid: row.size for row in connection.execute(chosen.where(lfs_uploads.c.oid.in_(part)))}
        return found

    def _reserve(
        self,
        connection: Connection,
        repo_id: int,
        namespace_id: int,
        wanted: Mapping[str, Opening],
        moment: datetime,
    ) -> None:
        """Look whether a quota has room for what is neither linked nor announced here already."""
        usage = self._quotas.held(connection, namespace_id)
        if usage is None:
            return
        known: dict[str, int] = {}
        for part in parts_of(wanted):
            for table, more in ((lfs_links, sa.true()), (lfs_uploads, pending(moment))):
                chosen = sa.select(table.c.oid, table.c.size).where(table.c.repo_id == repo_id, table.c.oid.in_(part))
                for row in connection.execute(chosen.where(more)):
                    known[row.oid] = max(known.get(row.oid, 0), row.size)
        usage.check(sum(max(0, one.wanted.size - known.get(oid, 0)) for oid, one in wanted.items()))

    def _count(self, connection: Connection, namespace_id: int, upload: Any) -> None:
        """Count an arriving object against what is held; reservations of others were promised beside its own."""
        usage = self._quotas.held(connection, namespace_id)
        if usage is None:
            return
        here = sa.and_(lfs_links.c.repo_id == upload.repo_id, lfs_links.c.oid == upload.oid)
        if connection.execute(sa.select(lfs_links.c.oid).where(here)).first() is None:
            usage.check(upload.size, reserved=False)


def give_up(connection: Connection, repo_id: int, reason: str) -> None:
    """Close every upload to a repo that is not done, within a transaction that the caller holds."""
    waiting = sa.and_(lfs_uploads.c.repo_id == repo_id, lfs_uploads.c.state.in_(["open", "arrived"]))
    connection.execute(sa.update(lfs_uploads).where(waiting).values(state="failed", reason=reason))


def arrived_rows(uploads: Sequence[Upload], moment: datetime) -> list[tuple[object, ...]]:
    """Lay out uploads that are whole when they are made, each with an id of its own, as their table does."""
    made = zip(_new_ids(len(uploads)), uploads, strict=True)
    return [_row(replace(upload, id=id, state="arrived"), moment) for id, upload in made]


def lasting(size: int, mode: str) -> timedelta:
    """Say how long an upload may take: as long as its size needs at 1 MiB/s, from a day to a week; tus, a week."""
    if mode == "tus":
        return _LONGEST
    return max(_SHORTEST, min(_LONGEST, timedelta(seconds=min(size // _MIB, 10**6))))


def _refute(connection: Connection, upload: Any, moment: datetime) -> None:
    """Close a file to Xet readers, too, if it was not proven before; what it is made of counts again."""
    file = parse(upload.key.removeprefix(FILES))
    link = sa.and_(xet_links.c.repo_id == upload.repo_id, xet_links.c.file == file)
    link = sa.and_(link, xet_links.c.sha256 == upload.oid, xet_links.c.state == "declared")
    if connection.execute(sa.update(xet_links).where(link).values(state="refuted")).rowcount:
        count_again(connection, upload.repo_id, file, moment)


def _lock_alive(connection: Connection, repo_id: int) -> int:
    lock_repo(connection, repo_id)
    alive = sa.select(repos.c.namespace_id).where(repos.c.id == repo_id, repos.c.deleted_at.is_(None))
    found = connection.execute(alive).scalar()
    if found is None:
        raise ObjectAbsent("The repo of this upload is gone.")
    return int(found)


def _resumed(
    connection: Connection, repo_id: int, actor_id: int, wanted: Mapping[str, Opening], moment: datetime
) -> dict[str, Upload]:
    """Find the uploads of this actor that wait for their proof, and the tus uploads that can go on; let these live on.

    What comes in one piece through us or signed never waits: it is not looked for.
    """
    asked = {oid: one for oid, one in wanted.items() if one.mode in _WAITING}
    if not asked:
        return {}
    going_on = sa.and_(lfs_uploads.c.mode == "tus", lfs_uploads.c.state == "open", lfs_uploads.c.expires_at > moment)
    chosen = sa.select(*COLUMNS).where(
        lfs_uploads.c.repo_id == repo_id,
        lfs_uploads.c.actor_id == actor_id,
        sa.or_(lfs_uploads.c.state == "arrived", going_on),
    )
    found: dict[str, Upload] = {}
    for part in parts_of(asked):
        for row in connection.execute(chosen.where(lfs_uploads.c.oid.in_(part)).order_by(lfs_uploads.c.created_at)):
            one = asked[row.oid]
            if row.state == "arrived" and row.size == one.wanted.size:
                found[row.oid] = _upload(row)
            elif one.mode == "tus" and (row.size, row.part_size) == (one.wanted.size, one.part_size):
                found.setdefault(row.oid, _upload(row))
    if resumed := [upload.id for upload in found.values() if upload.state == "open"]:
        longer = sa.update(lfs_uploads).where(lfs_uploads.c.id.in_(resumed))
        connection.execute(longer.values(expires_at=moment + _LONGEST))
    return found


def _made(repo_id: int, actor_id: int, openings: Sequence[Opening]) -> dict[str, Upload]:
    return {
        one.wanted.oid: Upload(
            id, repo_id, actor_id, one.wanted.oid, one.wanted.size, one.mode, part_size=one.part_size
        )
        for id, one in zip(_new_ids(len(openings)), openings, strict=True)
    }


def _new_ids(count: int) -> list[str]:
    """Make 32 hex digits each: milliseconds first, so that rows come in the order of their ids, then 80 random bits."""
    since, tails = f"{time.time_ns() // 10**6:012x}", secrets.token_hex(10 * count)
    return [since + tails[20 * number : 20 * number + 20] for number in range(count)]


def _row(upload: Upload, moment: datetime) -> tuple[object, ...]:
    """Lay an upload out as its table does."""
    cells = (upload.id, upload.repo_id, upload.actor_id, upload.oid, upload.size, upload.mode, upload.key)
    until = moment + lasting(upload.size, upload.mode)
    return (*cells, upload.session, upload.part_size, upload.state, upload.reason, "", None, moment, until)


def _upload(row: Any) -> Upload:
    return Upload(**{name: getattr(row, name) for name in Upload.__slots__} | {"actor_id": row.actor_id or 0})
