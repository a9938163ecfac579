"""What a check found, with what a repair needs to know of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lfs.host import ObjectState
from lfs.xet.index import Xorb
from registry.git.snapshot import PackRow
from registry.upkeep.findings import Finding


@dataclass(frozen=True, slots=True)
class LostPack:
    """The bytes of a pack are absent or other ones."""

    row: PackRow


@dataclass(frozen=True, slots=True)
class LostCompanion:
    """The index or the sidecar of a pack is absent, damaged or that of another pack."""

    row: PackRow
    noun: Literal["index", "sidecar"]


@dataclass(frozen=True, slots=True)
class WrongFacts:
    """The row of a pack says other things than the pack."""

    row: PackRow


@dataclass(frozen=True, slots=True)
class IdlePack:
    """A repo uses a pack that is on its way out."""

    pack: str


@dataclass(frozen=True, slots=True)
class Unopened:
    """The packs of a repo cannot be opened, for a reason that no row and no size shows."""

    packs: tuple[PackRow, ...]


@dataclass(frozen=True, slots=True)
class BadObject:
    """An LFS object whose bytes are absent or other ones, or were so once; as its row was when it was checked."""

    oid: str
    size: int
    key: str
    state: ObjectState


@dataclass(frozen=True, slots=True)
class BadLink:
    """A link of another size than its object, to an object on its way out, or to none."""

    repo_id: int
    oid: str


@dataclass(frozen=True, slots=True)
class WrongSum:
    """A repo's row has other sums than its links or packs."""

    repo_id: int


@dataclass(frozen=True, slots=True)
class BadXorb:
    """A xorb whose body, table or row is wrong, or was so once; as its row was when it was checked."""

    xorb: Xorb
    state: str


@dataclass(frozen=True, slots=True)
class LooseFile:
    """A Xet file whose needs do not all have a row, so that a collection would not see them."""

    hash: bytes


Fault = (
    LostPack | LostCompanion | WrongFacts | IdlePack | Unopened | BadObject | BadLink | WrongSum | BadXorb | LooseFile
)


@dataclass(frozen=True, slots=True)
class Found:
    """A finding, and its fault if a repair may know what to do."""

    finding: Finding
    fault: Fault | None = None


@dataclass(frozen=True, slots=True)
class Mended:
    """What a repair did: `whole` if nothing of the finding is left, `text` for people."""

    whole: bool
    text: str
