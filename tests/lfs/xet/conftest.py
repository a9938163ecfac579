"""What the real client sends for files of many kinds, once for all tests of a worker; and a door of our own."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from lfs.heavy import Heavy
from lfs.local import LocalStore
from tests.lfs.conftest import serving
from tests.lfs.xet.alone import Alone
from tests.lfs.xet.recorder import Recorder, Sent, upload
from tests.lfs.xet.sending import Clock

_DICE = random.Random(5)
CONTENT: Mapping[str, bytes] = {
    "empty": b"",
    "ten": b"0123456789",
    "zeros": bytes(300_000),
    "random": _DICE.randbytes(5 << 20),
    "floats": struct.pack("<100000f", *(_DICE.gauss(0, 0.02) for _ in range(100_000))),
    "text": b"".join(b"line %d of many, and not unlike the others\n" % at for at in range(20_000)),
}
TOGETHER = (*CONTENT, "ten")
"""All in one commit, one of them twice."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """One commit: the names of its files, what the client says of them, and what it sent."""

    names: tuple[str, ...]
    sent: tuple[Sent, ...]
    cas: Recorder


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Recorded]:
    """A commit of each file of `CONTENT` by itself, under its name, and one of all, "together"."""
    folder = tmp_path_factory.mktemp("xet")
    commits = {name: (name,) for name in CONTENT} | {"together": TOGETHER}
    return {title: record(folder / title, *names) for title, names in commits.items()}


def record(folder: Path, *names: str, cas: Recorder | None = None) -> Recorded:
    """Upload some of `CONTENT` in one commit, from a client that remembers nothing."""
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{at}-{name}" for at, name in enumerate(names)]
    for path, name in zip(paths, names, strict=True):
        path.write_bytes(CONTENT[name])
    cas = cas or Recorder()
    with serving(cas.app(), http="auto") as url:
        sent = upload(url, *paths, home=folder / "home")
    return Recorded(names, tuple(sent), cas)


@pytest.fixture(scope="session")
def heavy() -> Iterator[Heavy]:
    pool = Heavy(workers=2, memory_bytes=512 << 20, deadline=60)
    yield pool
    pool.close()


@pytest.fixture
def alone(heavy: Heavy, tmp_path: Path) -> Alone:
    """A door with a shelf on a disk, and a clock that stands."""
    return Alone(LocalStore(tmp_path / "shelf", min_free=0, fsync=False), heavy, tmp_path / "coming", clock=Clock())


@pytest.fixture
def http(alone: Alone) -> Iterator[httpx.Client]:
    """A client of it that may write in repo 1."""
    with alone.speaking() as client:
        yield client
