"""What the gate refuses of a checked push, ref by ref, and in which words.

Order: the ref's name and what it may do → objects behind the new value → LFS pointers linked → locks of others. The
first refusal of a ref counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from registry.access import Actor
from registry.errors import BadBody, BadName, NotAllowed, ObjectAbsent, RefMoved, RegistryError
from registry.git import fsck
from registry.git.snapshot import Snapshot, visible
from registry.git.verdict import PointerFound, Update, Verdict
from registry.links import Links
from registry.locks import LockRows

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

    def __init__(self, links: Links, locks: LockRows) -> None:
        self._links = links
        self._locks = locks

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
        missing = self._missing(snapshot.repo_id, verdict.pointers) if moving else []
        touched = {path: locked[path] for path in verdict.touched if path in locked}
        for update in moving:
            refusal = _judge_tip(update, verdict) or _not_uploaded(missing) or _locked(touched)
            if refusal is not None:
                refusals.setdefault(update.name, refusal)
        return Judged(refusals, _more(missing))

    def _missing(self, repo_id: int, pointers: Sequence[PointerFound]) -> list[PointerFound]:
        if not pointers:
            return []
        held = self._links.held(repo_id, {pointer.oid for pointer in pointers})
        return [pointer for pointer in pointers if held.get(pointer.oid) != pointer.size]


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


def _not_uploaded(missing: Sequence[PointerFound]) -> Refusal | None:
    if not missing:
        return None
    first = missing[0]
    text = f'LFS object {first.oid} ({first.path}) was not uploaded; run "git lfs push --all"'
    if len(missing) > 1:
        text += f" ({len(missing)} objects are missing)"
    return Refusal(text, ObjectAbsent(text, oids=[pointer.oid for pointer in missing]))


def _locked(touched: dict[str, str]) -> Refusal | None:
    if not touched:
        return None
    path, owner = next(iter(sorted(touched.items())))
    text = f"{path} is locked by {owner}"
    return Refusal(text, NotAllowed(f"{text}; ask them to unlock it, or leave the file as it is."))


def _more(missing: Sequence[PointerFound]) -> tuple[str, ...]:
    lines = [f"not uploaded: {pointer.oid} {pointer.path}" for pointer in missing[:_LISTED]]
    if len(missing) > _LISTED:
        lines.append(f"and {len(missing) - _LISTED} more")
    return tuple(lines)
