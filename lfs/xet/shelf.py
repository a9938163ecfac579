"""A shelf on which Xet files lie like objects: put together when they are read, never stored.

    xet/files/<hash>    stat, open      of what the index knows
                        url, delete     nothing to sign, nothing to remove: the bytes are those of xorbs
                        put, copy       refused; so are parts
    any other key       the shelf below

Who reads by key, to send, prove, check or unpack, needs to know no more. `walk` yields what is stored: no files.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Literal

from lfs.errors import BadKey, BadXet, Missing
from lfs.store import FILES, ObjectStore, Parts, Probe, Reader, Signed, Source, Span, Stat, Verified, check_key
from lfs.xet import hashes
from lfs.xet.index import File, XetIndex
from lfs.xet.rebuild import FileReader
from lfs.xet.tables import Tables

# Readers that fetch ahead at one moment; whoever finds no thread fetches by itself.
_AHEAD = 32

# What never changes has no time of its own; this one is as good as any, and the same for all.
_EPOCH = datetime.fromtimestamp(0, UTC)


class WithFiles:
    """An `ObjectStore` over one that holds xorbs, with the files that are made of them."""

    def __init__(self, store: ObjectStore, index: XetIndex, tables: Tables) -> None:
        self._store, self._index, self._tables = store, index, tables
        self._ahead = ThreadPoolExecutor(_AHEAD, thread_name_prefix="xet-ahead")

    @property
    def waits(self) -> bool:
        """Say whether puts wait, below."""
        return self._store.waits

    def stat(self, key: str) -> Stat:
        """Say what lies under `key`; the tag of a file is its hash."""
        if not _is_file(key):
            return self._store.stat(key)
        return Stat(self._file(key).size, key.removeprefix(FILES), _EPOCH)

    def open(self, key: str, span: Span | None = None) -> Reader:
        """Open what lies under `key`; a file may also raise Damaged, and Busy (the index does not answer)."""
        if not _is_file(key):
            return self._store.open(key, span)
        return FileReader(
            self._file(key), span, store=self._store, index=self._index, tables=self._tables, ahead=self._ahead
        )

    def put(self, key: str, source: Source, size: int, sha256: str | None = None) -> Verified:
        """Keep bytes below."""
        return self._store.put(_stored(key), source, size, sha256)

    def copy(self, source: str, key: str) -> Stat:
        """Give bytes a second name, below."""
        return self._store.copy(_stored(source), _stored(key))

    def parts(self, key: str, part_size: int, session: str = "") -> Parts:
        """Return an upload in parts, below."""
        return self._store.parts(_stored(key), part_size, session)

    def url(
        self,
        key: str,
        method: Literal["GET", "PUT"],
        seconds: int,
        *,
        size: int | None = None,
        sha256: str | None = None,
        span: Span | None = None,
    ) -> Signed | None:
        """Sign leave to go to the shelf below; a file is streamed."""
        if _is_file(key):
            return None
        return self._store.url(key, method, seconds, size=size, sha256=sha256, span=span)

    def delete(self, key: str) -> None:
        """Remove the bytes; a file has none, and goes with its links."""
        if not _is_file(key):
            self._store.delete(key)

    def walk(self, prefix: str = "", after: str = "") -> Iterator[str]:
        """Yield the keys below."""
        return self._store.walk(prefix, after)

    def sweep(self, seconds: float) -> int:
        """Drop what was left unfinished below."""
        return self._store.sweep(seconds)

    def probe(self) -> Probe:
        """Find out what the shelf below enforces."""
        return self._store.probe()

    def believe(self, probe: Probe) -> None:
        """Sign uploads as this finding allows."""
        self._store.believe(probe)

    def _file(self, key: str) -> File:
        try:
            hash = hashes.parse(key.removeprefix(FILES))
        except BadXet as error:
            raise BadKey(f"{key[:80]!r} names no file; its key ends in 64 lower-case hex digits.") from error
        file = self._index.whole(hash)
        if file is None:
            raise Missing(f"Nothing is filed as {key}.")
        return file


def _is_file(key: str) -> bool:
    return check_key(key).startswith(FILES)


def _stored(key: str) -> str:
    """Return a key that may hold bytes of its own. Raises: BadKey."""
    if _is_file(key):
        raise BadKey(f"{key[:80]!r} is put together from xorbs; nothing is stored under it.")
    return key
