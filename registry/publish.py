"""The last step of a write: bytes durable in the store, then one transaction that makes them visible.

announce the pack      → its row keeps collection away from the bytes, before there are any
put pack, idx, intro   → each durable at return, named by its own hash, so repeating is harmless
BEGIN, lock the repo   → epoch as pinned? links still proven? every ref still where the caller saw it?
refs, pack row, pointers, ref log, event, versions → COMMIT
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from lfs import soundness
from lfs.store import ObjectStore
from registry.access import Actor
from registry.db import Database, lock_repo, now
from registry.errors import NotAllowed, QuotaExceeded, RepoAbsent
from registry.git import refs as ref_rows
from registry.git.snapshot import Snapshot, pack_key, tips_digest
from registry.git.verdict import PackFacts, Update, Verdict
from registry.links import find_in, insert_unless_there
from registry.policy import Refusal, stale
from registry.quota import Quotas
from registry.tables.objects import packs, pointers, repo_packs
from registry.tables.repos import ref_log, repos
from registry.tables.work import events

Reason = Literal["push", "api", "merge", "import"]

# Digesting the tips reads every ref; beyond this many the fast path of full clones is not worth it.
_DIGESTED_REFS = 5_000


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a change comes from; goes into the ref log and the event."""

    actor: Actor
    reason: Reason = "push"
    push_options: tuple[str, ...] = ()
    request_id: str = ""


class Stale(Exception):
    """What was checked no longer holds (objects may have been pruned): check again against a new snapshot."""


class _Lost(Exception):
    """An atomic set of updates met refusals; rolls the transaction back."""

    def __init__(self, refusals: dict[bytes, Refusal]) -> None:
        super().__init__()
        self.refusals = refusals


class Publisher:
    """Makes checked bytes durable and visible. Thread-safe."""

    def __init__(
        self, database: Database, store: ObjectStore, quotas: Quotas, *, clock: Callable[[], datetime] = now
    ) -> None:
        self._db = database
        self._store = store
        self._quotas = quotas
        self._clock = clock

    def keep(self, pack: PackFacts) -> datetime:
        """Put pack, index and sidecar into the store; durable at return, repeatable.

        Of a pack that is known the stored bytes are read first: they may have rotted, and a put leaves them alone.
        Return since when the pack has its row: bytes found in the store are those of this row and of no earlier one.
        Raises: Stale (bytes of these names are being deleted at this moment), Busy, lfs errors (NoSpace, …).
        """
        moment = self._clock()
        since = self._announce(pack, moment)
        for path, sha256, size in (
            (pack.path, pack.id, pack.bytes),
            (pack.idx.path, pack.idx.sha256, pack.idx.bytes),
            (pack.intro.path, pack.intro.sha256, pack.intro.bytes),
        ):
            if since != moment:
                soundness.clear(self._store, pack_key(sha256), sha256)
            self._store.put(pack_key(sha256), Path(path), size, sha256)
        return since

    def _announce(self, pack: PackFacts, moment: datetime) -> datetime:
        """Make the pack's row, then look whether somebody deletes what it names.

        Whoever deletes marks its row first and looks for others then: of the two, one at least sees the other.
        """
        with self._db.write() as connection:
            insert_unless_there(connection, packs, [_pack_row(pack, moment)])
        mine = (pack.id, pack.idx.sha256, pack.intro.sha256)
        going = sa.or_(*(packs.c[name].in_(mine) for name in ("id", "idx_oid", "intro_oid")))
        chosen = sa.select(packs.c.id, packs.c.state, packs.c.created_at)
        chosen = chosen.where(sa.or_(packs.c.id == pack.id, sa.and_(packs.c.state == "deleting", going)))
        with self._db.look() as connection:
            rows = connection.execute(chosen).all()
        since: datetime | None = next((row.created_at for row in rows if row.id == pack.id), None)
        if since is None or any(row.state == "deleting" for row in rows):
            raise Stale
        return since

    def recall(self, pack: PackFacts) -> None:
        """Put the pack's file back where it was checked, from the store if the shelf adopted it."""
        path = Path(pack.path)
        if not path.exists():
            with self._store.open(pack_key(pack.id)) as reader, path.open("wb") as file:
                for piece in reader:
                    file.write(piece)

    def publish(
        self,
        snapshot: Snapshot,
        origin: Origin,
        updates: Sequence[Update],
        verdict: Verdict,
        *,
        atomic: bool,
        all_asked: bool = True,
        kept: datetime | None = None,
    ) -> dict[bytes, Refusal]:
        """Move refs and add the pack in one transaction; return the refs that lost their race.

        `kept` is what `keep` said of the pack.
        With `atomic` one lost race undoes all, and every other ref is refused too. `all_asked` is False if the pack
        also brings objects of refs that were refused before: they must not go out with a whole clone.
        Raises: Stale, RepoAbsent, Busy.
        """
        try:
            with self._db.write() as connection:
                return self._publish(connection, snapshot, origin, updates, verdict, atomic, all_asked, kept)
        except _Lost as lost:
            return lost.refusals

    def _publish(
        self,
        connection: Connection,
        snapshot: Snapshot,
        origin: Origin,
        updates: Sequence[Update],
        verdict: Verdict,
        atomic: bool,
        all_asked: bool,
        kept: datetime | None,
    ) -> dict[bytes, Refusal]:
        lock_repo(connection, snapshot.repo_id)
        row = self._still_valid(connection, snapshot, verdict)
        self._count(connection, row, updates, verdict)
        whole = _whole_before(connection, snapshot.repo_id, row.closure_tips, has_packs=row.manifest_version > 0)
        refusals = self._swap_all(connection, snapshot.repo_id, updates, verdict)
        if refusals and atomic:
            raise _Lost(refusals)
        moved = [update for update in updates if update.name not in refusals]
        if not moved:
            raise _Lost(refusals)
        self._record(connection, snapshot.repo_id, origin, moved, verdict)
        whole = whole and all_asked and not refusals
        self._advance(connection, snapshot.repo_id, moved, verdict, row, kept, whole=whole)
        return refusals

    def _still_valid(self, connection: Connection, snapshot: Snapshot, verdict: Verdict) -> Any:
        columns = (repos.c.gc_epoch, repos.c.manifest_version, repos.c.closure_tips, repos.c.namespace_id)
        chosen = sa.select(*columns).where(repos.c.id == snapshot.repo_id, repos.c.deleted_at.is_(None))
        row = connection.execute(chosen).first()
        if row is None:
            raise RepoAbsent("The repository is gone.")
        if row.gc_epoch != snapshot.gc_epoch:
            raise Stale
        oids = {pointer.oid for pointer in verdict.pointers}
        if oids and len(find_in(connection, snapshot.repo_id, oids)) != len(oids):
            raise Stale
        return row

    def _count(self, connection: Connection, row: Any, updates: Sequence[Update], verdict: Verdict) -> None:
        """Refuse a pack that the namespace has no room for; without a pack nothing grows."""
        usage = None if verdict.pack is None else self._quotas.held(connection, row.namespace_id)
        if usage is None or verdict.pack is None:
            return
        try:
            usage.check(verdict.pack.bytes)
        except QuotaExceeded as error:
            raise _Lost({update.name: Refusal(error.message, error) for update in updates}) from error

    def _swap_all(
        self, connection: Connection, repo_id: int, updates: Sequence[Update], verdict: Verdict
    ) -> dict[bytes, Refusal]:
        moment = self._clock()
        refusals: dict[bytes, Refusal] = {}
        # Deletions first, so that `a` can give way to `a/b` in one request.
        for update in sorted(updates, key=lambda update: not update.deletes):
            if update.creates and (other := ref_rows.clash(connection, repo_id, update.name)) is not None:
                shown = other.decode(errors="replace")
                refusals[update.name] = Refusal(f"{shown!r} exists", NotAllowed(f"The ref {shown} stands in the way."))
                continue
            tip = verdict.tips.get(update.new)
            if not ref_rows.swap(connection, repo_id, update, tip.peeled if tip else None, moment):
                refusals[update.name] = stale(update.name)
        return refusals

    def _record(
        self, connection: Connection, repo_id: int, origin: Origin, moved: Sequence[Update], verdict: Verdict
    ) -> None:
        moment = self._clock()
        actor = origin.actor
        connection.execute(
            sa.insert(ref_log),
            [
                {
                    "repo_id": repo_id,
                    "name": update.name,
                    "old": update.old,
                    "new": update.new,
                    "forced": not (update.creates or update.deletes or verdict.fast_forward.get(update.name, False)),
                    "reason": origin.reason,
                    "actor_id": actor.user_id,
                    "token_id": actor.token_id,
                    "request_id": origin.request_id,
                    "push_options": list(origin.push_options),
                    "at": moment,
                }
                for update in moved
            ],
        )
        names = [[update.name.decode(errors="replace"), update.old, update.new] for update in moved]
        event = {"at": moment, "actor_id": actor.user_id, "act": "refs.update", "repo_id": repo_id}
        connection.execute(sa.insert(events).values(event | {"body": {"refs": names, "via": origin.reason}}))

    def _advance(
        self,
        connection: Connection,
        repo_id: int,
        moved: Sequence[Update],
        verdict: Verdict,
        row: Any,
        kept: datetime | None,
        *,
        whole: bool,
    ) -> None:
        values: dict[str, Any] = {"refs_version": repos.c.refs_version + 1, "updated_at": self._clock()}
        if verdict.pack is not None:
            added = add_pack(connection, repo_id, verdict.pack, kept, row.manifest_version + 1, self._clock())
            values["manifest_version"] = repos.c.manifest_version + 1
            values["git_bytes"] = repos.c.git_bytes + added
            insert_unless_there(connection, pointers, _pointer_rows(repo_id, verdict))
        values["closure_tips"] = _closure(connection, repo_id, moved, verdict) if whole else None
        connection.execute(sa.update(repos).where(repos.c.id == repo_id).values(values))


def add_pack(
    connection: Connection,
    repo_id: int,
    pack: PackFacts,
    kept: datetime | None,
    ordinal: int,
    moment: datetime,
    *,
    why: str = "push",
) -> int:
    """Give a pack that was kept to the repo, also from its grace; return the bytes added.

    Raises: Stale (its row is not the one of then, or its bytes are going: they may have been deleted since).
    """
    # Also a live row is written: the lock makes whoever condemns unused packs wait, and then see this use.
    taken = sa.update(packs).where(packs.c.id == pack.id, packs.c.created_at == kept, packs.c.state != "deleting")
    why_once = sa.case((packs.c.state == "stored", why), else_=packs.c.why)
    if connection.execute(taken.values(state="live", condemned_at=None, why=why_once)).rowcount != 1:
        raise Stale
    here = sa.and_(repo_packs.c.repo_id == repo_id, repo_packs.c.pack_id == pack.id)
    if connection.execute(sa.select(repo_packs.c.ordinal).where(here)).first() is not None:
        return 0
    given = {"repo_id": repo_id, "pack_id": pack.id, "ordinal": ordinal, "added_at": moment}
    connection.execute(sa.insert(repo_packs).values(given))
    return pack.bytes


def _pack_row(pack: PackFacts, moment: datetime) -> dict[str, object]:
    return {
        "id": pack.id,
        "git_sha1": pack.sha1,
        "bytes": pack.bytes,
        "objects": pack.objects,
        "commits": pack.commits,
        "idx_oid": pack.idx.sha256,
        "idx_bytes": pack.idx.bytes,
        "intro_oid": pack.intro.sha256,
        "intro_bytes": pack.intro.bytes,
        "why": "push",
        "state": "stored",
        "created_at": moment,
    }


def _pointer_rows(repo_id: int, verdict: Verdict) -> list[Mapping[str, object]]:
    return [
        {
            "repo_id": repo_id,
            "blob": pointer.blob,
            "oid": pointer.oid,
            "size": pointer.size,
            "path": pointer.path,
            "commit": pointer.commit,
        }
        for pointer in verdict.pointers
    ]


def _whole_before(connection: Connection, repo_id: int, closure_tips: str | None, *, has_packs: bool) -> bool:
    """True if the packs, as they are, hold exactly the closure of the visible refs."""
    if not has_packs:
        return True
    return closure_tips is not None and closure_tips == tips_digest(ref_rows.current(connection, repo_id))


def _closure(connection: Connection, repo_id: int, moved: Sequence[Update], verdict: Verdict) -> str | None:
    """Digest the tips if the packs still hold exactly their closure: nothing was left behind, nothing extra came."""
    left_behind = any(
        update.deletes or not (update.creates or verdict.fast_forward.get(update.name, False)) for update in moved
    )
    extra = verdict.pack is not None and not verdict.brings_exactly
    if left_behind or extra:
        return None
    tips = ref_rows.current(connection, repo_id)
    return tips_digest(tips) if len(tips) <= _DIGESTED_REFS else None
