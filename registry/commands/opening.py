"""What every command begins and ends with: the database opened and of this schema, findings printed, a status."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager

from registry import schema
from registry.config import PREFIX, Config, ConfigError
from registry.db import Database
from registry.desk import Shelves
from registry.upkeep.findings import Finding

OK, FINDINGS, USAGE, REFUSED, AGAIN = 0, 1, 2, 3, 75


class NotMigrated(Exception):
    """The database has another schema than this program reads."""


def opened(config: Config) -> Database:
    """Open the database, making the data folder if it is absent. Raises: ConfigError."""
    try:
        # Hashes of tokens and passwords lie in it.
        config.data.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError([f"{PREFIX}DATA: {config.data} cannot be made: {error.strerror}"]) from error
    return Database(config.database_url)


def settle(config: Config, database: Database) -> None:
    """Migrate an embedded database; look whether a shared one is migrated. Raises: NotMigrated."""
    if config.embedded:
        schema.migrate(database)
    elif (at := schema.current(database)) != schema.head():
        raise NotMigrated(f"the database is at revision {at}, not {schema.head()}; run `weightroom migrate`")


@contextmanager
def standing(config: Config) -> Iterator[Shelves]:
    """Open rows and bytes of a house for one command, its database made and of this schema.

    Raises: ConfigError, NotMigrated, and what the store raises.
    """
    opened(config).dispose()
    with closing(Shelves(config)) as shelves:
        settle(config, shelves.database)
        yield shelves


def report(findings: Iterable[Finding], *, as_json: bool) -> int:
    """Print findings as they come; return the status."""
    count = 0
    for finding in findings:
        count += 1
        print(json.dumps(finding.fields()) if as_json else finding.line(), flush=True)
    if not count and not as_json:
        print("nothing found", file=sys.stderr)
    return FINDINGS if count else OK
