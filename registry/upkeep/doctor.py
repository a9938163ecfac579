"""Is this house fit to open? Looks at schema, store, space, clock, secret and the compiled parts of dulwich."""

from __future__ import annotations

import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

import sqlalchemy as sa

from lfs.errors import LfsError
from lfs.store import ObjectStore
from registry import schema
from registry.db import Database, now
from registry.errors import RegistryError
from registry.upkeep.findings import Finding

MOST_SKEW = 60.0
"""Seconds by which clocks may differ: grants and signed URLs live for minutes."""
# Without these, packs are read and indexed ten to thirty times slower.
_COMPILED = ("dulwich._objects", "dulwich._pack", "dulwich._diff_tree")


class Doctor:
    """Examines a house; sends nothing to anybody but the house's own database and store."""

    def __init__(
        self,
        *,
        database: Database,
        store: ObjectStore,
        data: Path,
        min_free: int,
        fsync: bool,
        clock: Callable[[], datetime] = now,
    ) -> None:
        self._db = database
        self._store = store
        self._data = data
        self._min_free = min_free
        self._fsync = fsync
        self._clock = clock

    def run(self) -> Iterator[Finding]:
        """Yield what is wrong."""
        yield from self._guarded("schema", "database", self._schema)
        yield from self._guarded("store", "store", self._shelf)
        yield from self._guarded("clock", "database", self._clock_of_database)
        yield from self._space()
        yield from self._secret()
        yield from self._compiled()
        if not self._fsync:
            text = "is `never`: a power cut may lose acknowledged writes; unset it on a server"
            yield Finding("settings", "setting", "WEIGHTROOM_FSYNC", text)

    def _guarded(self, check: str, kind: str, look: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
        try:
            yield from look()
        except (RegistryError, LfsError) as error:
            yield Finding(check, kind, "", error.message)
        except sa.exc.SQLAlchemyError as error:
            yield Finding(check, kind, "", f"cannot be asked: {type(error).__name__}")

    def _schema(self) -> Iterator[Finding]:
        at, newest = schema.current(self._db), schema.head()
        if at != newest:
            yield Finding("schema", "database", at, f"is not at {newest}; run `weightroom migrate`")

    def _shelf(self) -> Iterator[Finding]:
        key, body = f"derived/doctor/{secrets.token_hex(8)}", secrets.token_bytes(1024)
        began = self._clock()
        self._store.put(key, body, len(body))
        try:
            with self._store.open(key) as reader:
                if reader.read_all() != body:
                    yield Finding("store", "store", key, "gave back other bytes than were put; do not use this shelf")
            yield from self._skew("store", began, self._store.stat(key).at)
        finally:
            self._store.delete(key)

    def _clock_of_database(self) -> Iterator[Finding]:
        if self._db.sqlite:
            return
        with self._db.read() as connection:
            theirs = connection.execute(sa.text("SELECT clock_timestamp()")).scalar_one()
        yield from self._skew("database", self._clock(), theirs.astimezone(UTC))

    def _skew(self, kind: str, ours: datetime, theirs: datetime) -> Iterator[Finding]:
        skew = (theirs - ours).total_seconds()
        if abs(skew) > MOST_SKEW:
            yield Finding("clock", kind, "", f"is {skew:+.0f} s away from this machine's clock; run a time service")

    def _space(self) -> Iterator[Finding]:
        free = shutil.disk_usage(self._data).free
        if free < self._min_free:
            text = f"has {free} bytes free, under WEIGHTROOM_MIN_FREE ({self._min_free}): writes are refused"
            yield Finding("space", "folder", str(self._data), text)

    def _secret(self) -> Iterator[Finding]:
        for path in (self._data / "secret", self._data / "registry.db"):
            if path.exists() and path.stat().st_mode & (stat.S_IROTH | stat.S_IWOTH) and path.name == "secret":
                yield Finding("settings", "file", str(path), "is readable by everybody; run `chmod 600` on it")
            elif path.exists() and path.stat().st_mode & stat.S_IWOTH:
                yield Finding("settings", "file", str(path), "is writable by everybody; run `chmod 600` on it")

    def _compiled(self) -> Iterator[Finding]:
        for name in _COMPILED:
            found = find_spec(name)
            if found is None or found.origin is None or found.origin.endswith(".py"):
                text = "is not compiled: pushes and fetches are many times slower; install a dulwich wheel"
                yield Finding("dulwich", "module", name, text)
