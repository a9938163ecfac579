"""Commands about quotas: what namespaces hold, and what they may."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping

from registry.commands.opening import OK, opened, settle
from registry.config import Config
from registry.errors import BadBody
from registry.quota import Quotas, Usage, shown
from registry.settings import size
from registry.usage import Usages


def quota(asked: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Show what namespaces hold and may hold, or set what one may."""
    config = Config.from_environ(environ)
    wanted = _wanted(asked.size) if asked.act == "set" else None
    database = opened(config)
    try:
        settle(config, database)
        usages = Usages(database, Quotas(database, default=config.quota))
        if asked.act == "set":
            found = [usages.allow(asked.name, wanted)]
        else:
            found = usages.all() if asked.name is None else [usages.one(asked.name)]
    finally:
        database.dispose()
    _show(found)
    return OK


def _wanted(text: str) -> int | None:
    if text.lower() == "none":
        return None
    try:
        return size(text)
    except ValueError as error:
        raise BadBody(f"{text!r} {error}, nor `none`") from error


def _show(found: list[Usage]) -> None:
    print("namespace\tused\treserved\tquota", file=sys.stderr)
    for usage in found:
        may = "none" if usage.quota is None else shown(usage.quota)
        print(f"{usage.namespace}\t{shown(usage.used)}\t{shown(usage.reserved)}\t{may}")
