"""What a check of a pushed pack takes and finds: plain values that travel between processes.

Ids of git objects are 40 lower-case hex `str`, digests of files 64; ref names are bytes; paths and messages are `str`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from registry.errors import BadBody
from registry.git.snapshot import ZERO

MIB = 1 << 20


class PackRefused(BadBody):
    """A pack cannot be taken apart; the message follows `unpack ` in the report."""

    code = "pack_refused"


class PackTooLarge(PackRefused):
    """A pack passes a limit; the message names it."""

    code = "pack_too_large"


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a push may ask for. Sizes in bytes; the settings `WEIGHTROOM_MAX_…` that change them are named."""

    pack: int = 2 << 30
    """The pack file (`MAX_PACK`)."""
    inflated: int = 8 << 30
    """All of its streams, inflated (`MAX_INFLATED`)."""
    objects: int = 1_000_000
    """Objects of a pack (`MAX_OBJECTS`)."""
    ratio: int = 200
    """Inflated bytes per byte of pack, above `ratio_floor`."""
    ratio_floor: int = 64 * MIB
    expanded: int = 256 << 30
    """All objects in full, deltas applied: bounds the time that crafted deltas may take."""
    chain: int = 4095
    """Deltas upon deltas."""
    delta_target: int = 128 * MIB
    """One object that is stored as a delta, or the delta itself."""
    delta_memory: int = 512 * MIB
    """Objects held at once while deltas are applied."""
    blob: int = 100 * MIB
    """A file that is not in LFS (`MAX_BLOB`)."""
    blob_hard: int = 2 << 30
    """The same, whatever the setting says."""
    header: int = MIB
    """A commit or an annotated tag."""
    tree: int = 64 * MIB
    levels: int = 128
    """Folders within folders."""
    files: int = 1_000_000
    """Files of one commit."""
    introduced: int = 5_000_000
    """Entries of the introduced sidecar, beyond 8 per object of the pack."""


@dataclass(frozen=True, slots=True)
class PackPaths:
    """Local files of one pack of the manifest."""

    pack: str
    idx: str
    intro: str


@dataclass(frozen=True, slots=True)
class Update:
    """What a push wants of one ref; `ZERO` means absent."""

    name: bytes
    old: str
    new: str

    @property
    def creates(self) -> bool:
        """True if the ref must not exist yet."""
        return self.old == ZERO

    @property
    def deletes(self) -> bool:
        """True if the ref shall be gone."""
        return self.new == ZERO


@dataclass(frozen=True, slots=True)
class Job:
    """One push to check: a pack in quarantine, or None, upon the packs of a pinned manifest.

    A thin pack is completed in place; index and sidecar are written beside it. `portable` is what happens to names
    that other systems cannot hold: "refuse", "warn" or "off". `allow` are ids of rules that this repo forgives;
    those that protect readers' machines cannot be forgiven.
    """

    pack: str | None
    bases: tuple[PackPaths, ...]
    updates: tuple[Update, ...]
    lock_paths: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)
    portable: str = "refuse"
    allow: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Tip:
    """A new value of a ref. For a commit, or a tag of one, `files` and `depth` are those of its tree."""

    type: str
    peeled: str | None
    """The object that an annotated tag finally names; None for other objects."""
    files: int = 0
    depth: int = 0


@dataclass(frozen=True, slots=True)
class Written:
    """A file that belongs to the pack, written beside it."""

    path: str
    sha256: str
    bytes: int


@dataclass(frozen=True, slots=True)
class PackFacts:
    """A pack that was taken apart whole, after completion; `id` is its SHA-256, `commits` counts commits alone."""

    path: str
    id: str
    sha1: str
    bytes: int
    objects: int
    commits: int
    idx: Written
    intro: Written


@dataclass(frozen=True, slots=True)
class PointerFound:
    """A blob that is an LFS pointer; path and commit are where it appears first, empty if no new commit has it."""

    blob: str
    oid: str
    size: int
    path: str = ""
    commit: str = ""


@dataclass(frozen=True, slots=True)
class BigBlob:
    """A file in git itself that is large enough to tell its pusher about LFS."""

    blob: str
    size: int
    path: str = ""
    commit: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a check found.

    `unpack_error` set: the pack is unusable and nothing else holds. `refusals` under None concern the whole pack and
    so every ref. `pack` is None if there was none, if it was empty or if it was refused.
    """

    unpack_error: str | None = None
    pack: PackFacts | None = None
    tips: Mapping[str, Tip] = field(default_factory=dict)
    """By new value, also for objects that the repo already had."""
    refusals: Mapping[bytes | None, str] = field(default_factory=dict)
    pointers: tuple[PointerFound, ...] = ()
    """All that the gate must find linked."""
    big_blobs: tuple[BigBlob, ...] = ()
    warnings: tuple[str, ...] = ()
    """Lines for people, for side-band channel 2."""
    fast_forward: Mapping[bytes, bool] = field(default_factory=dict)
    """True if the old value is an ancestor of the new one, or the ref is new."""
    touched: Mapping[str, str] = field(default_factory=dict)
    """Locked path to the first new commit whose entry there differs from that in every parent."""
    brings_exactly: bool = False
    """The manifest gains nothing but what the new values of visible refs reach that are not refused here. With a
    manifest that was exact before, every such ref moved, and none deleted or rewound, it is exact afterwards."""
