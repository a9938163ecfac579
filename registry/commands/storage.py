"""Commands that move the bytes of a house from one storage to another while it is in use."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict

from registry.commands.opening import FINDINGS, OK, standing
from registry.config import PREFIX, Config, ConfigError
from registry.desk import Shelves
from registry.upkeep.moving import Copying, Totals
from registry.upkeep.survey import Share, Survey, survey

_EVERY = 2.0
"""Seconds between two lines of progress."""


def storage(asked: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Copy from `STORAGE_FROM` to `STORAGE`, or say how far that is."""
    config = Config.from_environ(environ)
    if asked.act == "copy" and config.storage_from is None:
        raise ConfigError(
            [f"{PREFIX}STORAGE_FROM: name the storage that is being left, as the servers' own setting does"]
        )
    with standing(config) as shelves:
        return _copy(asked, shelves) if asked.act == "copy" else _status(asked, config, shelves)


def _copy(asked: argparse.Namespace, shelves: Shelves) -> int:
    assert shelves.source is not None
    copying = Copying(
        to=shelves.to,
        source=shelves.source,
        jobs=asked.jobs,
        verify=asked.verify,
        tell=_paced(lambda totals: _say(_progress(totals))),
    )
    try:
        for finding in copying.run():
            print(json.dumps(finding.fields()) if asked.json else finding.line(), flush=True)
    finally:
        # Also after a failure: what was copied stays copied.
        _say(_progress(copying.totals))
    if asked.json:
        print(json.dumps(asdict(copying.totals)), flush=True)
    return FINDINGS if copying.totals.bad else OK


def _status(asked: argparse.Namespace, config: Config, shelves: Shelves) -> int:
    found = survey(shelves.database, to=shelves.to, source=shelves.source)
    if asked.json:
        print(json.dumps(found.fields()), flush=True)
    else:
        print("\n".join(_lines(found, moving=config.storage_from is not None)), flush=True)
    return OK if found.done else FINDINGS


def _lines(found: Survey, *, moving: bool) -> Iterator[str]:
    yield f"STORAGE        {_shares(found.to)}"
    if not moving:
        yield "No bytes move: STORAGE_FROM is not set."
        return
    yield f"STORAGE_FROM   {_shares(found.source)}"
    yield f"only there     {_share(found.needed)} needed, {_share(found.spare)} that no row names"
    if not found.done:
        yield "STORAGE_FROM is still needed: run `weightroom storage copy`; for keys that it refuses, see what it says."
        return
    if found.uploads:
        yield f"{found.uploads} uploads are on their way; those that began on STORAGE_FROM would have to begin again."
    yield "STORAGE_FROM can be unset."


def _shares(shares: Mapping[str, Share]) -> str:
    return ", ".join(f"{name}: {_share(share)}" for name, share in sorted(shares.items())) or "empty"


def _share(share: Share) -> str:
    return f"{share.keys} keys with {_size(share.bytes)}"


def _progress(totals: Totals) -> str:
    return f"{totals.copied} keys with {_size(totals.bytes)} copied, {totals.there} were there, {totals.bad} bad"


def _size(count: int) -> str:
    if count < 1024:
        return f"{count} B"
    value = float(count)
    for unit in ("KiB", "MiB", "GiB"):
        value /= 1024
        if value < 1024:
            return f"{value:.1f} {unit}"
    return f"{value / 1024:.1f} TiB"


def _paced(say: Callable[[Totals], None]) -> Callable[[Totals], None]:
    """Say it at most every two seconds."""
    last = time.monotonic()

    def tell(totals: Totals) -> None:
        nonlocal last
        if time.monotonic() - last >= _EVERY:
            last = time.monotonic()
            say(totals)

    return tell


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
