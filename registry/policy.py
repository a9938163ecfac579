"""What the gate refuses of a checked push, ref by ref, and in which words.

Order: the ref's name and what it may do → objects behind the new value → LFS pointers uploaded → locks of others →
quota → LFS pointers linked. The first refusal of a ref counts; the last one passes, and a door may wait for that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from registry.access import Actor
from registry.errors import (
    BadBody,
    BadName,
    NotAllowed,
    ObjectAbsent,
    QuotaExceeded,
    RefMoved,
    RegistryError,
    StillChecked,
)
from registry.git import fsck
from registry.git.snapshot import Snapshot, visible
from registry.git.verdict import PackFacts, PointerFound, Update, Verdict
from registry.links import Links
from registry.locks import LockRows
from registry.quota import Quotas, shown
from registry.uploads import Standing, Uploads

_LISTED = 5
_PUSHABLE = (b"refs/heads/", b"refs/tags/", b"refs/notes/")
_API_ONLY = (b"refs/pr/", b"refs/convert/")


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why one ref did not move: git's short reason, and the same as an error of ours for other doors."""

    reason: str
    error: RegistryError


@dataclass(frozen=True, slots=True)
class Judged:
    """Refusals by ref, and lines that tell the pusher more."""

    refusals: dict[bytes, Refusal]
    messages: tuple[str, ...] = ()
    waiting: frozenset[bytes] = frozenset()
    """Refs that are refused for nothing but uploads that are still being checked."""


def stale(name: bytes) -> Refusal:
    """The refusal of a lost compare-and-swap."""
    shown = name.decode(errors="replace")
    return Refusal("stale (the ref moved meanwhile; fetch first)", RefMoved(f"{shown} moved meanwhile; fetch first."))


def judge_names(snapshot: Snapshot, updates: Sequence[Update], *, pushed: bool) -> dict[bytes, Refusal]:
    """Refuse what a ref's name, or its old value, already forbids; reads no object."""
    refusals: dict[bytes, Refusal] = {}
    for update in updates:
        refusal = _judge_name(snapshot, update, pushed=pushed)
        if refusal is not None:
            refusals[update.name] = refusal
    return refusals


def _judge_name(snapshot: Snapshot, update: Update, *, pushed: bool) -> Refusal | None:
    name, shown = update.name, update.name.decode(errors="replace")
    if not visible(name):
        return Refusal("deny updating a hidden ref", BadName(f"{shown} is reserved."))
    wrong = fsck.check_ref_name(name)
    if wrong is not None and not update.deletes:
        return Refusal(f"funny refname: {wrong}", BadName(f"{shown} is not a valid ref name: {wrong}."))
    writable = _PUSHABLE if pushed else _PUSHABLE + _API_ONLY
    if not name.startswith(writable):
        allowed = ", ".join(prefix.decode() + "*" for prefix in _PUSHABLE)
        return Refusal(f"only {allowed} may be pushed", NotAllowed(f"{shown} cannot be written: only {allowed} can."))
    if update.deletes and name == snapshot.head:
        return Refusal(
            "deletion of the current branch prohibited", NotAllowed(f"Cannot delete {shown}: it is the default branch.")
        )
    found = snapshot.refs.get(name)
    here = found.target if found else None
    if here != (None if update.creates else update.old) and not (update.deletes and here is None):
        return stale(name)
    return None


class Policy:
    """Judges what a push brings, by the rows of its repo."""

    def __init__(self, *, links: Links, locks: LockRows, uploads: Uploads, quotas: Quotas) -> None:
        self._links = links
        self._locks = locks
        self._uploads = uploads
        self._quotas = quotas

    def locked(self, repo_id: int, actor: Actor) -> dict[str, str]:
        """Map each path locked by somebody else to its holder."""
        return self._locks.of_others(repo_id, actor.user_id)

    def judge(
        self,
        snapshot: Snapshot,
        updates: Sequence[Update],
        verdict: Verdict,
        refused: dict[bytes, Refusal],
        locked: dict[str, str],
    ) -> Judged:
        """Refuse refs by what stands behind their new values; `refused` has those that are out already."""
        refusals = dict(refused)
        moving = [update for update in updates if not update.deletes]
        pointers = _Pointers([], [], {})
        if moving and verdict.pointers:
            pointers = self._sort(snapshot.repo_id, verdict.pointers)
        touched = {path: locked[path] for path in verdict.touched if path in locked}
        everywhere = pointers.refusal() or _locked(touched) or self._over(snapshot.repo_id, verdict.pack)
        still = pointers.still(snapshot.repo_id)
        waiting = set()
        for update in moving:
            refusal = _judge_tip(update, verdict) or everywhere
            if refusal is None and still is not None and update.name not in refusals:
                waiting.add(update.name)
            refusal = refusal or still
            if refusal is not None:
                refusals.setdefault(update.name, refusal)
        return Judged(refusals, pointers.messages(), frozenset(waiting))

    def _sort(self, repo_id: int, pointers: Sequence[PointerFound]) -> _Pointers:
        held = self._links.held(repo_id, {pointer.oid for pointer in pointers})
        missing = [pointer for pointer in pointers if held.get(pointer.oid) != pointer.size]
        told = self._uploads.standing(repo_id, {pointer.oid for pointer in missing}) if missing else {}
        coming = [pointer for pointer in missing if pointer.size in told.get(pointer.oid, Standing()).arrived]
        lost = [pointer for pointer in missing if pointer not in coming]
        if lost:
            # A proof that ended between the two questions is seen by neither: what it linked is asked for again.
            held = self._links.held(repo_id, {pointer.oid for pointer in lost})
            lost = [pointer for pointer in lost if held.get(pointer.oid) != pointer.size]
        return _Pointers(lost, coming, told)

    def _over(self, repo_id: int, pack: PackFacts | None) -> Refusal | None:
        """Look whether the pack fits into the quota; the transaction that adds it decides."""
        try:
            self._quotas.check(repo_id, 0 if pack is None else pack.bytes)
        except QuotaExceeded as error:
            return Refusal(error.message, error)
        return None


@dataclass(frozen=True, slots=True)
class _Pointers:
    """Pointers without a link: those that nothing came for, and those whose bytes came and are being checked."""

    lost: Sequence[PointerFound]
    coming: Sequence[PointerFound]
    told: Mapping[str, Standing]

    def refusal(self) -> Refusal | None:
        if not self.lost:
            return None
        first = self.lost[0]
        reason = self._reason(first)
        text = f"LFS object {first.oid} ({first.path}) "
        text += f"failed its check: {reason}" if reason else 'was not uploaded; run "git lfs push --all"'
        if len(self.lost) > 1:
            text += f" ({len(self.lost)} objects are missing)"
        error = BadBody(text) if reason else ObjectAbsent(text, oids=[pointer.oid for pointer in self.lost])
        return Refusal(text, error)

    def still(self, repo_id: int) -> Refusal | None:
        if not self.coming:
            return None
        objects = {pointer.oid: pointer.size for pointer in self.coming}
        text = f"{counted(objects)} still being checked"
        error = StillChecked(f"{text}; try again in a minute.", repo_id=repo_id, objects=objects)
        return Refusal(f"{text}; push again in a minute", error)

    def messages(self) -> tuple[str, ...]:
        """Name the first of what is missing."""
        lines = []
        for pointer in self.lost[:_LISTED]:
            reason = self._reason(pointer)
            why = f"failed its check: {reason}" if reason else "not uploaded"
            lines.append(f"{why}: {pointer.oid} {pointer.path}")
        if len(self.lost) > _LISTED:
            lines.append(f"and {len(self.lost) - _LISTED} more")
        return tuple(lines)

    def _reason(self, pointer: PointerFound) -> str:
        return self.told.get(pointer.oid, Standing()).reason


def counted(objects: Mapping[str, int]) -> str:
    """Say how many objects there are and how large they are together, as the beginning of a sentence."""
    size = shown(sum(objects.values()))
    return f"1 uploaded object ({size}) is" if len(objects) == 1 else f"{len(objects)} uploaded objects ({size}) are"


def _judge_tip(update: Update, verdict: Verdict) -> Refusal | None:
    reason = verdict.refusals.get(update.name, verdict.refusals.get(None))
    if reason is not None:
        return Refusal(reason, BadBody(reason))
    tip = verdict.tips.get(update.new)
    if tip is None:
        return Refusal("missing necessary objects", ObjectAbsent(f"{update.new} is not in this repository."))
    if update.name.startswith(b"refs/heads/") and tip.type != "commit":
        return Refusal(
            f"a branch must point to a commit, not a {tip.type}", BadBody("A branch must point to a commit.")
        )
    return None


def _locked(touched: dict[str, str]) -> Refusal | None:
    if not touched:
        return None
    path, owner = next(iter(sorted(touched.items())))
    text = f"{path} is locked by {owner}"
    return Refusal(text, NotAllowed(f"{text}; ask them to unlock it, or leave the file as it is."))
