"""Rolls the packs of a repo up, so that the number of packs stays small however many pushes there are.

lease the packs → merge them (heavy) → bytes durable → BEGIN, lock the repo → all still in its list? → swap → COMMIT

A repo is due when it has more than 16 packs. The smallest are rolled together, as many as leave each of the others at
least twice as large as all smaller ones together: so a byte is copied once per doubling of the repo, not once per
roll-up. No object comes or goes, so what was checked or pinned before stays true: the epoch and the refs stay, a push
on its way adds its pack to the new list, and packs that no repo lists any more keep their bytes until they are
reclaimed. A death before COMMIT leaves the old list, and files that no row names.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path

import sqlalchemy as sa

from lfs.heavy import Heavy
from registry.db import Database, lock_repo, now
from registry.errors import RepoAbsent
from registry.git import repack
from registry.git.cache import PackCache
from registry.git.repository import Repositories
from registry.git.snapshot import PackRow
from registry.git.verdict import PackFacts
from registry.publish import Publisher, Stale, add_pack
from registry.tables.objects import repo_packs
from registry.tables.repos import repos
from registry.upkeep.old_packs import condemn_unlisted

MOST_PACKS = 16
"""Packs that a request opens without harm: the next one makes a roll-up due."""
_LEFT = MOST_PACKS // 2
LARGEST = 2 << 30
"""Bytes of a pack that is never touched: rewriting it costs more than opening it."""


def due(rows: Sequence[PackRow]) -> tuple[PackRow, ...]:
    """Choose the packs to roll into one, in the order given; none if there are few.

    After it at most 8 of them are left, so the next roll-up is at least 8 packs away.
    """
    movable = sorted((row for row in rows if row.bytes <= LARGEST), key=lambda row: row.bytes)
    if len(movable) <= MOST_PACKS:
        return ()
    count, smaller = len(movable) - _LEFT + 1, 0
    for at, row in enumerate(movable):
        if 2 * smaller > row.bytes:
            count = max(count, at + 1)
        smaller += row.bytes
    taken = {row.id for row in movable[:count]}
    return tuple(row for row in rows if row.id in taken)


class Repack:
    """Rolls up one repo at a time. Thread-safe; several processes may meet at one repo, and one of them wins.

    `folder` holds packs in the making and may be swept when the process is gone.
    """

    def __init__(
        self,
        *,
        database: Database,
        repositories: Repositories,
        packs: PackCache,
        publisher: Publisher,
        heavy: Heavy,
        folder: Path,
        clock: Callable[[], datetime] = now,
    ) -> None:
        self._db = database
        self._repositories = repositories
        self._packs = packs
        self._publisher = publisher
        self._heavy = heavy
        self._folder = folder
        self._clock = clock

    def run(self, repo_id: int, *, stopping: Callable[[], bool] = lambda: False) -> bool:
        """Roll a repo up if it is due; True if its list of packs was replaced.

        `stopping` is asked between the steps; nothing visible has happened when it is heeded.
        Raises: Damaged, Busy, lfs errors, OSError (no room in `folder`).
        """
        try:
            rows = due(self._repositories.snapshot(repo_id).packs)
        except RepoAbsent:
            return False
        if not rows:
            return False
        target = self._folder / f"repack-{repo_id}-{secrets.token_hex(8)}.pack"
        try:
            made = self._merge(rows, target)
            if stopping():
                return False
            return self._swap(repo_id, rows, made, self._publisher.keep(made))
        except Stale:
            # The merged pack was here once and its bytes are going at this moment: the next push tries again.
            return False
        finally:
            for path in (target, target.with_suffix(".idx"), target.with_suffix(".intro")):
                path.unlink(missing_ok=True)

    def _merge(self, rows: Sequence[PackRow], target: Path) -> PackFacts:
        with ExitStack() as held:
            leases = [(row.id, held.enter_context(self._packs.lease(row))) for row in rows]
            sources = [repack.Source(id, str(lease.pack), str(lease.idx), str(lease.intro)) for id, lease in leases]
            return self._heavy.submit(repack.repack, sources, str(target))

    def _swap(self, repo_id: int, rows: Sequence[PackRow], made: PackFacts, kept: datetime) -> bool:
        """Replace the rows of the old packs by that of the new one, unless one of the old is gone meanwhile."""
        old = {row.id for row in rows}
        with self._db.write() as connection:
            lock_repo(connection, repo_id)
            listed = sa.select(repo_packs.c.pack_id, repo_packs.c.ordinal).where(repo_packs.c.repo_id == repo_id)
            alive = sa.select(repos.c.id).where(repos.c.id == repo_id, repos.c.deleted_at.is_(None))
            ordinals = {row.pack_id: row.ordinal for row in connection.execute(listed) if row.pack_id in old}
            if len(ordinals) < len(old) or connection.execute(alive).first() is None:
                return False
            # If one pack held all that the others have, the new one is that one.
            gone = sorted(old - {made.id})
            used = sa.and_(repo_packs.c.repo_id == repo_id, repo_packs.c.pack_id.in_(gone))
            connection.execute(sa.delete(repo_packs).where(used))
            # Pushes that came meanwhile have higher ordinals and are still read first.
            added = add_pack(connection, repo_id, made, kept, max(ordinals.values()), self._clock(), why="repack")
            freed = sum(row.bytes for row in rows if row.id != made.id)
            version, size = repos.c.manifest_version + 1, repos.c.git_bytes + added - freed
            changed = sa.update(repos).where(repos.c.id == repo_id)
            connection.execute(changed.values(manifest_version=version, git_bytes=size))
            condemn_unlisted(connection, gone, self._clock())
        return True
