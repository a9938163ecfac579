"""Commands that look whether the house is in order."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping

from registry.commands.opening import FINDINGS, OK, opened, report, standing
from registry.config import Config, ConfigError
from registry.desk import Shelves
from registry.upkeep.doctor import Doctor
from registry.upkeep.findings import Finding
from registry.upkeep.fsck import Fsck
from registry.upkeep.repair import Repair
from registry.upkeep.repair_objects import ObjectRepair
from registry.upkeep.repair_packs import PackRepair
from registry.upkeep.repair_xorbs import XorbRepair


def doctor(asked: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Say whether this house is fit to open."""
    try:
        config = Config.from_environ(environ)
        config.secrets()
    except ConfigError as error:
        findings = [Finding("settings", "setting", problem.partition(":")[0], problem) for problem in error.problems]
        return report(findings, as_json=asked.json)
    opened(config).dispose()
    shelves = Shelves(config)
    try:
        examined = Doctor(
            database=shelves.database,
            store=shelves.store,
            data=config.data,
            min_free=config.min_free,
            fsync=config.durable,
        )
        return report(examined.run(), as_json=asked.json)
    finally:
        shelves.close()


def fsck(asked: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Check rows against bytes, and repair what can be repaired if that is asked for."""
    config = Config.from_environ(environ)
    with standing(config) as shelves:
        checked = Fsck(
            database=shelves.database,
            store=shelves.store,
            packs=shelves.packs,
            manifests=shelves.manifests,
            repositories=shelves.repositories,
        )
        if asked.repair:
            return _mend(checked, _repair(config, shelves), read_data=asked.read_data, as_json=asked.json)
        return report(checked.run(read_data=asked.read_data), as_json=asked.json)


def _repair(config: Config, shelves: Shelves) -> Repair:
    # Every server process of this machine keeps its own copies of packs.
    copies = sorted((config.data / "slots").glob("*/packs"))
    packs = PackRepair(shelves.database, shelves.store, folder=shelves.slot.quarantine, copies=copies)
    objects, xorbs = ObjectRepair(shelves.database, shelves.store), XorbRepair(shelves.database, shelves.store)
    return Repair(packs=packs, objects=objects, xorbs=xorbs)


def _mend(checked: Fsck, repair: Repair, *, read_data: bool, as_json: bool) -> int:
    """Print each finding with what was done about it; status 0 if nothing of them is left."""
    count = left = 0
    for look in checked.looks(read_data=read_data):
        # Each look comes to its end first: one repair may mend several of its findings, and all are to be told.
        for found in list(look):
            mended = repair.mend(found.fault)
            count, left = count + 1, left + (not mended.whole)
            if as_json:
                told = found.finding.fields() | {"repaired": mended.whole, "done": mended.text}
                print(json.dumps(told), flush=True)
            else:
                done = "repaired" if mended.whole else "NOT REPAIRED"
                print(f"{found.finding.line()}\n  {done}: {mended.text}", flush=True)
    if not as_json:
        print(f"{count} found, {count - left} repaired" if count else "nothing found", file=sys.stderr)
    return FINDINGS if left else OK
