"""The stored files of packs as a repair needs them: on this disk, proven, or made again from the pack.

Files of a bucket are copied into a folder for as long as they are used.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from lfs import soundness
from lfs.store import ObjectStore, Source
from registry.errors import Damaged
from registry.git import rebuild
from registry.git.bases import BasePack, Bases
from registry.git.intro import Intro
from registry.git.packfile import PackFile
from registry.git.snapshot import PackRow, pack_key


class PackFiles:
    """Reads and replaces files of packs; `folder` takes the copies."""

    def __init__(self, store: ObjectStore, folder: Path) -> None:
        self._store = store
        self._folder = folder

    def flaw(self, oid: str) -> str:
        """Say what is wrong with a file; empty if nothing is. Raises: Denied, Unavailable."""
        return soundness.flaw(self._store, pack_key(oid), oid)

    def put_back(self, oid: str, source: Source, size: int) -> None:
        """Put bytes whose hash is `oid` under their key, whatever lay there."""
        soundness.clear(self._store, pack_key(oid), oid)
        self._store.put(pack_key(oid), source, size, oid)

    @contextmanager
    def local(self, oid: str) -> Iterator[Path | None]:
        """Give the path of a stored file whose bytes are sound, None for another."""
        if self.flaw(oid):
            yield None
            return
        path = self._store.stat(pack_key(oid)).path
        if path is not None:
            yield path
            return
        with tempfile.NamedTemporaryFile(dir=self._folder) as file:
            with self._store.open(pack_key(oid)) as reader:
                for piece in reader:
                    file.write(piece)
            file.flush()
            yield Path(file.name)

    def sidecar(self, row: PackRow, listed: Sequence[PackRow]) -> bytes:
        """Make a sidecar upon the other packs of a list; those whose sidecars are lost too are read with it.

        Raises: Damaged (a pack that is needed is damaged itself), OSError, lfs errors of the store.
        """
        lost, bases = [row], []
        for one in listed:
            if one.id == row.id:
                continue
            if self.flaw(one.intro_oid):
                lost.append(one)
            else:
                bases.append(one)
        with tempfile.TemporaryDirectory(dir=self._folder) as folder:
            based = [BasePack(self._opened(one, Path(folder)), self._intro(one)) for one in bases]
            files = [self._opened(one, Path(folder)) for one in lost]
            return rebuild.sidecars(files, Bases(based))[0]

    def _opened(self, row: PackRow, folder: Path) -> PackFile:
        """Open a pack with its index, made again beside it if the stored one is damaged. Raises: Damaged."""
        with self.local(row.id) as pack:
            if pack is None:
                raise Damaged(f"pack {row.id} has to be mended first")
            with self.local(row.idx_oid) as idx:
                if idx is not None:
                    return PackFile(row.id, pack, idx)
            made = folder / row.idx_oid
            made.write_bytes(rebuild.facts(pack).index)
            return PackFile(row.id, pack, made)

    def _intro(self, row: PackRow) -> Intro:
        with self._store.open(pack_key(row.intro_oid)) as reader:
            return Intro(reader.read_all(), verify=False)
