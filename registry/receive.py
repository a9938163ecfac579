"""The one gate: every ref change of a repo, from a git push, a Hub commit or a branch call, passes here.

    pin a snapshot → judge names → check the pack (heavy) → judge each ref → bytes durable → one transaction → outcome

Bytes become visible only in that transaction. A death before it leaves unreferenced, content-addressed files; after
it everything exists. A refusal is an answer, never an exception, and changes nothing.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from lfs import errors as lfs_errors
from registry.errors import BadBody, Busy, NoSpace, RegistryError, StillChecked
from registry.git.repository import Repositories
from registry.git.snapshot import Snapshot
from registry.git.verdict import Job, Limits, Update, Verdict
from registry.policy import Judged, Policy, Refusal, judge_names
from registry.publish import Origin, Publisher, Stale

__all__ = ["Origin", "Outcome", "Receiver", "Update"]

Progress = Callable[[str], None]
log = logging.getLogger(__name__)

_ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a set of ref updates."""

    updates: tuple[Update, ...]
    unpack: str | None = None
    """Why the pack as a whole was refused; None if it was taken."""
    refusals: Mapping[bytes, Refusal] = field(default_factory=dict)
    """Refused refs; every other ref of the request moved and is durable."""
    unproven: StillChecked | None = None
    """Uploads that alone stand in the way: nothing moved, and the pack lies where it was, to be sent again later."""

    @property
    def results(self) -> dict[bytes, str | None]:
        """Per ref, in the order asked: None if it moved, else git's reason."""
        return {update.name: self._reason(update.name) for update in self.updates}

    @property
    def error(self) -> RegistryError | None:
        """The first refusal as an error of ours, for doors that answer with one."""
        return next((refusal.error for refusal in self.refusals.values()), None)

    def _reason(self, name: bytes) -> str | None:
        refusal = self.refusals.get(name)
        return None if refusal is None else refusal.reason


@dataclass(frozen=True, slots=True)
class _Asked:
    """One call of `accept`."""

    repo_id: int
    origin: Origin
    updates: tuple[Update, ...]
    pack: Path | None
    atomic: bool
    patient: bool
    progress: Progress

    def refused(self, error: RegistryError, reason: str | None = None) -> Outcome:
        """Refuse everything for one reason."""
        refusal = Refusal(reason or error.message, error)
        return Outcome(self.updates, error.message, {update.name: refusal for update in self.updates})

    def waits(self, judged: Judged) -> bool:
        """Tell whether it is worth to wait: some ref could move then, and nothing moves without it."""
        spoilt = self.atomic and judged.refusals.keys() - judged.waiting
        return self.patient and bool(judged.waiting) and not spoilt


class Receiver:
    """Judges and publishes. Thread-safe; one instance serves every door of a process."""

    def __init__(
        self,
        *,
        repositories: Repositories,
        policy: Policy,
        publisher: Publisher,
        check: Callable[[Snapshot, Job], Verdict],
        limits: Limits,
        portable: str = "refuse",
        published: Callable[[int], None] = lambda repo_id: None,
    ) -> None:
        self._repositories = repositories
        self._policy = policy
        self._publisher = publisher
        self._check = check
        self._limits = limits
        self._portable = portable
        self._published = published

    def accept(
        self,
        repo_id: int,
        origin: Origin,
        updates: Sequence[Update],
        pack: Path | None,
        *,
        atomic: bool = True,
        patient: bool = False,
        progress: Progress = lambda line: None,
    ) -> Outcome:
        """Take or refuse ref updates and the pack that brings their objects.

        `pack` is a file in quarantine, maybe thin; it is gone at return, unless the outcome is `unproven`. Every ref
        that is not refused has moved then and is durable. With `atomic` one refusal refuses all. Who is `patient` is
        told of uploads that are still being checked, and asks again with the same pack. Never raises for a refusal.
        """
        asked = _Asked(repo_id, origin, tuple(updates), pack, atomic, patient, progress)
        kept = False
        try:
            outcome = self._persist(asked)
            kept = outcome.unproven is not None
        except RegistryError as error:
            return asked.refused(error)
        except lfs_errors.LfsError as error:
            return asked.refused(_storage(error))
        except OSError as error:
            log.exception("a push to repo %d could not be checked", repo_id)
            return asked.refused(_disk(error))
        finally:
            if not kept:
                _discard(pack)
        if len(outcome.refusals) < len(asked.updates):
            self._tell(repo_id)
        return outcome

    def _persist(self, asked: _Asked) -> Outcome:
        if len({update.name for update in asked.updates}) < len(asked.updates):
            raise BadBody("One ref is named twice; send each ref once.")
        for _ in range(_ATTEMPTS):
            try:
                return self._attempt(asked)
            except Stale:
                # Objects or links may have gone since the snapshot was pinned: look again with a new one.
                continue
        raise Busy("The repository changed while this was checked; try again.")

    def _attempt(self, asked: _Asked) -> Outcome:
        snapshot = self._repositories.snapshot(asked.repo_id)
        refused = judge_names(snapshot, asked.updates, pushed=asked.origin.reason == "push")
        locked = self._policy.locked(asked.repo_id, asked.origin.actor)
        path = None if asked.pack is None else str(asked.pack)
        job = Job(path, (), asked.updates, lock_paths=tuple(locked), limits=self._limits, portable=self._portable)
        verdict = self._check(snapshot, job)
        if verdict.unpack_error is not None:
            for line in verdict.warnings:
                asked.progress(line)
            return asked.refused(BadBody(verdict.unpack_error), "unpacker error")
        judged = self._policy.judge(snapshot, asked.updates, verdict, refused, locked)
        if asked.waits(judged):
            still = judged.refusals[min(judged.waiting)]
            assert isinstance(still.error, StillChecked)
            return Outcome(asked.updates, None, {update.name: still for update in asked.updates}, still.error)
        for line in (*verdict.warnings, *judged.messages):
            asked.progress(line)
        return self._publish(snapshot, asked, verdict, judged.refusals)

    def _publish(self, snapshot: Snapshot, asked: _Asked, verdict: Verdict, judged: Mapping[bytes, Refusal]) -> Outcome:
        refusals = dict(judged)
        moving = [update for update in asked.updates if update.name not in refusals]
        if moving and not (refusals and asked.atomic):
            kept = self._publisher.keep(verdict.pack) if verdict.pack is not None else None
            refusals |= self._move(snapshot, asked, moving, verdict, kept)
        return Outcome(asked.updates, None, _together(asked.updates, refusals) if asked.atomic else refusals)

    def _move(
        self,
        snapshot: Snapshot,
        asked: _Asked,
        moving: Sequence[Update],
        verdict: Verdict,
        kept: datetime | None,
    ) -> dict[bytes, Refusal]:
        all_asked = len(moving) == len(asked.updates)
        try:
            return self._publisher.publish(
                snapshot, asked.origin, moving, verdict, atomic=asked.atomic, all_asked=all_asked, kept=kept
            )
        except Stale:
            if verdict.pack is not None:
                # The shelf may have adopted the file; the next attempt needs it where it was.
                self._publisher.recall(verdict.pack)
            raise

    def _tell(self, repo_id: int) -> None:
        """Let listings follow; the push stands whatever becomes of this."""
        try:
            self._published(repo_id)
        except Exception:
            log.exception("after a push to repo %d: its card could not be read", repo_id)


def _discard(pack: Path | None) -> None:
    """Remove a pack in quarantine, its index and its sidecar; those that the shelf adopted are gone already."""
    if pack is not None:
        for path in (pack, pack.with_suffix(".idx"), pack.with_suffix(".intro")):
            path.unlink(missing_ok=True)


def _together(asked: Sequence[Update], refusals: dict[bytes, Refusal]) -> dict[bytes, Refusal]:
    """Refuse every ref of an atomic request if one is refused; the refs' own reasons come first."""
    if not refusals:
        return {}
    first = next(iter(refusals.values()))
    rest = {update.name: Refusal("atomic push failed", first.error) for update in asked if update.name not in refusals}
    return refusals | rest


def _storage(error: lfs_errors.LfsError) -> RegistryError:
    """Say a store's failure in the registry's words."""
    if isinstance(error, lfs_errors.NoSpace):
        return NoSpace(error.message)
    if isinstance(error, lfs_errors.HeavyError):
        return Busy(f"The check of the pack did not finish; push again. {error.message}")
    return Busy(f"The store does not take the objects now: {error.message}")


def _disk(error: OSError) -> RegistryError:
    """Say in the registry's words that quarantine could not be read or written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpace("The server's disk is full; nothing was changed. Ask its operator for space.")
    return Busy("The server could not check the objects now; try again, and tell its operator if it goes on.")
