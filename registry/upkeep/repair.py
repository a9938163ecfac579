"""Repairs what a check found, one fault at a time; never on the word of the check alone: all is looked at again.

Nothing that is right is touched, and nothing that is wrong is thrown away before it is known to be replaced. What was
changed leaves an event. May run while the server works; a death in the middle leaves less than was found, never more.
"""

from __future__ import annotations

from lfs.errors import LfsError
from registry.errors import RegistryError
from registry.upkeep.faults import (
    BadLink,
    BadObject,
    BadXorb,
    Fault,
    IdlePack,
    LooseFile,
    LostCompanion,
    LostPack,
    Mended,
    Unopened,
    WrongFacts,
    WrongSum,
)
from registry.upkeep.repair_objects import ObjectRepair
from registry.upkeep.repair_packs import PackRepair
from registry.upkeep.repair_xorbs import XorbRepair


class Repair:
    """Mends faults of one house."""

    def __init__(self, *, packs: PackRepair, objects: ObjectRepair, xorbs: XorbRepair) -> None:
        self._packs = packs
        self._objects = objects
        self._xorbs = xorbs

    def mend(self, fault: Fault | None) -> Mended:
        """Do what can be done about a fault, and say what was done or what is left to do."""
        try:
            return self._mend(fault)
        except (RegistryError, LfsError) as error:
            return Mended(False, f"left as it is: {error.message}")
        except OSError as error:
            return Mended(False, f"left as it is: {error}")

    def _mend(self, fault: Fault | None) -> Mended:
        match fault:
            case None:
                return Mended(False, "left as it is")
            case LostPack() | LostCompanion() | WrongFacts() | IdlePack() | Unopened():
                return self._packs.mend(fault)
            case BadObject() | BadLink() | WrongSum():
                return self._objects.mend(fault)
            case BadXorb() | LooseFile():
                return self._xorbs.mend(fault)
