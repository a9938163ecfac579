"""Stored objects go by their chunks: the real hf_xet in a child, which leaves nothing behind, however it ends."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import anyio
import pytest
from starlette.types import Receive, Scope, Send

from lfs.errors import Missing, Unavailable
from lfs.heavy import Heavy
from lfs.local import LocalStore
from lfs.store import Reader, Span, Stat, file_key, lfs_key
from lfs.xet import hashes
from lfs.xet.ingest import Destination, NotSent, Sender, longest
from lfs.xet.shelf import WithFiles
from tests.lfs.conftest import serving
from tests.lfs.xet.alone import Alone
from tests.lfs.xet.memory_index import DOMAIN

BODY = random.Random(7).randbytes(3 << 20)
OID = hashlib.sha256(BODY).hexdigest()


class Afar(LocalStore):
    """A shelf of which only bytes can be had, like a bucket; it may break in the middle."""

    broken = False

    def stat(self, key: str) -> Stat:
        return replace(super().stat(key), path=None)

    def open(self, key: str, span: Span | None = None) -> Reader:
        reader = super().open(key, span)
        if self.broken:
            reader.close()
            raise Unavailable("The bucket does not answer.")
        return reader


@pytest.fixture(params=[LocalStore, Afar])
def alone(request: pytest.FixtureRequest, heavy: Heavy, tmp_path: Path) -> Alone:
    store = request.param(tmp_path / "shelf", min_free=0, fsync=False)
    store.put(lfs_key(OID), BODY, len(BODY), OID)
    return Alone(store, heavy, tmp_path / "coming")


@pytest.fixture
def work(tmp_path: Path) -> Path:
    made = tmp_path / "work"
    made.mkdir()
    return made


@pytest.fixture
def hanging() -> Iterator[str]:
    """A CAS that hears requests and answers none."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while scope["type"] == "http" and (await receive())["type"] != "http.disconnect":
            await anyio.lowlevel.checkpoint()

    with serving(app) as url:
        yield url


def to(url: str, token: str = "xet_t") -> Destination:
    return Destination(f"{url}/xet/{DOMAIN}/g0", token, int(time.time()) + 900)


def children(parent: int = 0) -> list[int]:
    """The processes that send for a process, for this one unless another is named."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state = (folder / "stat").read_text().rpartition(")")[2].split()
            sends = b"ingest.serve()" in (folder / "cmdline").read_bytes()
        except OSError:  # It ended while we looked.
            continue
        if sends and state[0] != "Z" and int(state[1]) == (parent or os.getpid()):
            found.append(int(folder.name))
    return found


def until(true: Callable[[], object]) -> None:
    late = time.monotonic() + 20
    while not true():
        assert time.monotonic() < late
        time.sleep(0.01)


def test_an_object_is_sent_and_put_together_again(alone: Alone, work: Path) -> None:
    with serving(alone) as url:
        assert Sender(store=alone.store, folder=work).send(lfs_key(OID), OID, to(url, alone.token()), lambda: True)
    ((repo, hash, sha256),) = alone.index.links
    assert (repo, sha256) == (1, OID)
    with WithFiles(alone.store, alone.index, alone.tables).open(file_key(hashes.text(hash))) as reader:
        assert reader.read_all() == BODY
    assert list(work.iterdir()) == []
    assert children() == []


def test_the_child_knows_nothing_of_ours(
    alone: Alone, work: Path, hanging: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("WEIGHTROOM_SECRET", "hush")
    seen: dict[str, str] = {}

    def going_on() -> bool:
        for child in children():
            pairs = Path(f"/proc/{child}/environ").read_text().split("\0")
            seen.update(pair.split("=", 1) for pair in pairs if pair)
            seen["command"] = Path(f"/proc/{child}/cmdline").read_text()
        return not seen

    assert not Sender(store=alone.store, folder=work).send(lfs_key(OID), OID, to(hanging, "xet_hush"), going_on)
    assert "xet_hush" not in seen.pop("command")
    assert set(seen) - {"LC_CTYPE"} == {"HF_HOME", "HF_XET_CACHE", "HOME", "TMPDIR"}
    assert all(value.startswith(str(work)) for name, value in seen.items() if name != "LC_CTYPE")


def test_one_that_is_stopped_leaves_nothing(alone: Alone, work: Path, hanging: str) -> None:
    assert not Sender(store=alone.store, folder=work).send(lfs_key(OID), OID, to(hanging), lambda: not children())
    assert children() == []
    assert list(work.iterdir()) == []
    assert alone.index.links == {}


def test_one_that_is_killed_is_heard_of(alone: Alone, work: Path, hanging: str) -> None:
    def going_on() -> bool:
        for child in children():
            os.kill(child, signal.SIGKILL)
        return True

    with pytest.raises(NotSent, match="ended with -9"):
        Sender(store=alone.store, folder=work).send(lfs_key(OID), OID, to(hanging), going_on)
    assert list(work.iterdir()) == []


def test_it_dies_with_its_parent(alone: Alone, work: Path, hanging: str) -> None:
    lines = (
        "import json, sys",
        "sys.path[:] = json.loads(sys.argv[1])",
        "from pathlib import Path",
        "from tests.lfs.xet.test_ingest import LocalStore, Sender, Afar, OID, lfs_key, to",
        "shelf = {'LocalStore': LocalStore, 'Afar': Afar}[sys.argv[2]](Path(sys.argv[3]), min_free=0)",
        "Sender(store=shelf, folder=Path(sys.argv[4])).send(lfs_key(OID), OID, to(sys.argv[5]), lambda: True)",
    )
    kind, shelf = type(alone.store).__name__, str(work.parent / "shelf")
    words = [json.dumps([entry or os.getcwd() for entry in sys.path]), kind, shelf, str(work), hanging]
    parent = subprocess.Popen([sys.executable, "-c", "\n".join(lines), *words])
    until(lambda: any((home / "xet").exists() for home in work.iterdir()))
    (child,) = children(parent.pid)
    parent.kill()
    parent.wait()
    until(lambda: not Path(f"/proc/{child}").exists())
    until(lambda: not list(work.iterdir()))


def test_a_refusal_is_told_in_its_words(alone: Alone, work: Path) -> None:
    with serving(alone) as url, pytest.raises(NotSent, match="401"):
        Sender(store=alone.store, folder=work).send(lfs_key(OID), OID, to(url, "xet_wrong"), lambda: True)
    assert list(work.iterdir()) == []


def test_other_bytes_are_not_taken_for_the_object(alone: Alone, work: Path) -> None:
    other = hashlib.sha256(b"other").hexdigest()
    alone.store.put(lfs_key(other), BODY, len(BODY))
    with serving(alone) as url, pytest.raises(NotSent, match=r"fsck --read-data"):
        Sender(store=alone.store, folder=work).send(lfs_key(other), other, to(url, alone.token()), lambda: True)


def test_a_store_that_fails_is_heard_of(alone: Alone, work: Path, hanging: str) -> None:
    sender = Sender(store=alone.store, folder=work)
    with pytest.raises(Missing):
        sender.send(lfs_key("ab" * 32), "ab" * 32, to(hanging), lambda: True)
    if isinstance(alone.store, Afar):
        alone.store.broken = True
        with pytest.raises(Unavailable):
            sender.send(lfs_key(OID), OID, to(hanging), lambda: True)
    assert children() == []
    assert list(work.iterdir()) == []


def test_a_child_that_hangs_is_stopped(alone: Alone, work: Path, hanging: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lfs.xet.ingest.LEAST", -3.0)
    with pytest.raises(NotSent, match="longer than"):
        Sender(store=alone.store, folder=work).send(lfs_key(OID), OID, to(hanging), lambda: True)
    assert children() == []


def test_what_is_large_may_take_longer() -> None:
    assert longest(0) == 600
    assert longest(100 << 30) == 600 + 100 * 1024
