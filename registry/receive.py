"""The one gate: every ref change of a repo, from a git push, a Hub commit or a branch call, passes here.

    pin a snapshot → judge names → check the pack (heavy) → judge each ref → bytes durable → one transaction → outcome

Bytes become visible only in that transaction. A death before it leaves unreferenced, content-addressed files; after
it everything exists. A refusal is an answer, never an exception, and changes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lfs import errors as lfs_errors
from registry.errors import BadBody, Busy, NoSpace, RegistryError
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
        progress: Progress = lambda line: None,
    ) -> Outcome:
        """Take or refuse ref updates and the pack that brings their objects.

        `pack` is a file in quarantine, maybe thin; it is gone at return, whatever the outcome. Every ref that is not
        refused has moved then and is durable. With `atomic` one refusal refuses all. Never raises for a refusal.
        """
        asked = tuple(updates)
        try:
            return self._accept(repo_id, origin, asked, pack, atomic, progress)
        finally:
            _discard(pack)

    def _accept(
        self,
        repo_id: int,
        origin: Origin,
        asked: tuple[Update, ...],
        pack: Path | None,
        atomic: bool,
        progress: Progress,
    ) -> Outcome:
        try:
            outcome = self._persist(repo_id, origin, asked, pack, atomic, progress)
        except RegistryError as error:
            return Outcome(asked, error.message, _all(asked, error.message, error))
        except lfs_errors.LfsError as error:
            ours = _storage(error)
            return Outcome(asked, ours.message, _all(asked, ours.message, ours))
        if len(outcome.refusals) < len(asked):
            self._tell(repo_id)
        return outcome

    def _persist(
        self,
        repo_id: int,
        origin: Origin,
        asked: tuple[Update, ...],
        pack: Path | None,
        atomic: bool,
        progress: Progress,
    ) -> Outcome:
        for _ in range(_ATTEMPTS):
            try:
                return self._attempt(repo_id, origin, asked, pack, atomic, progress)
            except Stale:
                # Objects or links may have gone since the snapshot was pinned: look again with a new one.
                continue
        raise Busy("The repository changed while this was checked; try again.")

    def _attempt(
        self,
        repo_id: int,
        origin: Origin,
        asked: tuple[Update, ...],
        pack: Path | None,
        atomic: bool,
        progress: Progress,
    ) -> Outcome:
        snapshot = self._repositories.snapshot(repo_id)
        refused = judge_names(snapshot, asked, pushed=origin.reason == "push")
        locked = self._policy.locked(repo_id, origin.actor)
        path = None if pack is None else str(pack)
        job = Job(path, (), asked, lock_paths=tuple(locked), limits=self._limits, portable=self._portable)
        verdict = self._check(snapshot, job)
        for line in verdict.warnings:
            progress(line)
        if verdict.unpack_error is not None:
            return Outcome(asked, verdict.unpack_error, _all(asked, "unpacker error", _unpack_error(verdict)))
        judged = self._policy.judge(snapshot, asked, verdict, refused, locked)
        for line in judged.messages:
            progress(line)
        return self._publish(snapshot, origin, asked, verdict, judged, atomic)

    def _publish(
        self,
        snapshot: Snapshot,
        origin: Origin,
        asked: tuple[Update, ...],
        verdict: Verdict,
        judged: Judged,
        atomic: bool,
    ) -> Outcome:
        refusals = dict(judged.refusals)
        if not (refusals and atomic):
            moving = [update for update in asked if update.name not in refusals]
            if moving:
                if verdict.pack is not None:
                    self._publisher.keep(verdict.pack)
                refusals |= self._moved(snapshot, origin, moving, verdict, atomic=atomic, all_asked=not refusals)
        return Outcome(asked, None, _together(asked, refusals) if atomic else refusals)

    def _moved(
        self,
        snapshot: Snapshot,
        origin: Origin,
        moving: Sequence[Update],
        verdict: Verdict,
        *,
        atomic: bool,
        all_asked: bool,
    ) -> dict[bytes, Refusal]:
        try:
            return self._publisher.publish(snapshot, origin, moving, verdict, atomic=atomic, all_asked=all_asked)
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


def _all(asked: Sequence[Update], reason: str, error: RegistryError) -> dict[bytes, Refusal]:
    return {update.name: Refusal(reason, error) for update in asked}


def _together(asked: Sequence[Update], refusals: dict[bytes, Refusal]) -> dict[bytes, Refusal]:
    """Refuse every ref of an atomic request if one is refused; the refs' own reasons come first."""
    if not refusals:
        return {}
    first = next(iter(refusals.values()))
    rest = {update.name: Refusal("atomic push failed", first.error) for update in asked if update.name not in refusals}
    return refusals | rest


def _unpack_error(verdict: Verdict) -> RegistryError:
    text = verdict.unpack_error or ""
    return BadBody(text)


def _storage(error: lfs_errors.LfsError) -> RegistryError:
    """Say a store's failure in the registry's words."""
    if isinstance(error, lfs_errors.NoSpace):
        return NoSpace(error.message)
    if isinstance(error, lfs_errors.HeavyError):
        return Busy(f"The check of the pack did not finish; push again. {error.message}")
    return Busy(f"The store does not take the objects now: {error.message}")
