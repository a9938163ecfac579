"""A disk loses a byte of a xorb: no reader is given it, and any client that has the file brings it back."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import random
import sqlite3
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.clients.test_damage import rot
from tests.clients.uploading import until
from tests.clients.visitor import visit
from tests.conftest import QUIET
from tests.services.house import House, open_house
from tests.services.programs import Git, need

pytestmark = [pytest.mark.clients, pytest.mark.timeout(300)]

SIZE = 5_000_000
MAKE = "import hashlib, random\nlarge = random.Random({seed}).randbytes({size})\n"
UPLOAD = """
api.create_repo("{repo}", exist_ok=True)
try:
    api.upload_file(repo_id="ann/{repo}", path_in_repo="w.bin", path_or_fileobj=large)
    out["refused"] = ""
except Exception as error:
    out["refused"] = str(error)
"""
READ = """
out["sum"] = hashlib.sha256(content("w.bin", "ann/{repo}")).hexdigest()
out["hash"] = api.get_paths_info("ann/{repo}", "w.bin")[0].xet_hash
"""


@pytest.fixture(scope="module")
def broken_house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A house of these tests' own: they break it."""
    with open_house(tmp_path_factory.mktemp("broken"), **QUIET) as house:
        yield house


@dataclass(frozen=True)
class Place:
    """A repo with one file that came by Xet, of which a byte is lost since."""

    house: House
    folder: Path
    repo: str
    seed: int

    @property
    def data(self) -> bytes:
        return random.Random(self.seed).randbytes(SIZE)

    @property
    def oid(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    def visit(self, code: str, home: str, *, xet: bool = True) -> dict[str, object]:
        """Run lines of Python on some machine."""
        lines = MAKE.format(seed=self.seed, size=SIZE) + code.format(repo=self.repo)
        where = {"endpoint": self.house.url, "token": self.house.token, "home": self.folder / home}
        return visit(lines, xet=xet, **where)  # type: ignore[arg-type]

    def get(self) -> tuple[int, bytes]:
        """GET the file as curl does; return the status and what came of it."""
        try:
            with urllib.request.urlopen(f"{self.house.url}/ann/{self.repo}/resolve/main/w.bin") as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as refusal:
            with refusal:
                return refusal.code, b""
        except http.client.IncompleteRead as short:
            return 200, short.partial

    def events(self) -> list[str]:
        """What was told of xorbs and files, for this repo's xorb."""
        database = f"file:{self.house.folder}/data/registry.db?mode=ro"
        with contextlib.closing(sqlite3.connect(database, uri=True)) as connection:
            rows = connection.execute(
                "SELECT act FROM events WHERE subject IN (SELECT subject FROM events JOIN repos ON repos.id = repo_id"
                " WHERE repos.name = ? AND act = 'file.damaged') ORDER BY events.id",
                [self.repo],
            )
            return [act for (act,) in rows]

    def heal(self, home: str, *, xet: bool) -> None:
        """Upload the file again, bytes and all."""
        since = self.house.log.stat().st_size
        out = self.visit(UPLOAD, home, xet=xet)
        if xet and out["refused"]:
            # A machine that sent the xorb itself believes that it is here, and is told to begin afresh.
            assert "upload the files again" in str(out["refused"])
            out = self.visit(UPLOAD, home, xet=xet)
        assert out["refused"] == ""
        bringing = ("POST", "/xet/") if xet else ("PUT", "/lfs/")
        until(lambda: self.house.asked(*bringing, since) > 0)


def xorbs(house: House) -> set[Path]:
    return {path for path in (house.folder / "data/objects/xet/xorbs").rglob("*") if path.is_file()}


@pytest.fixture
def place(broken_house: House, tmp_path: Path, request: pytest.FixtureRequest) -> Place:
    """A file whose loss a reader has met."""
    made = Place(broken_house, tmp_path, request.param, sum(request.param.encode()))
    before = xorbs(broken_house)
    assert made.visit(UPLOAD, "writer")["refused"] == ""
    assert made.get() == (200, made.data)
    (xorb,) = xorbs(broken_house) - before
    rot(xorb)
    status, got = made.get()
    assert status == 200
    assert len(got) < SIZE
    assert made.data.startswith(got), "no wrong byte leaves"
    assert made.events() == ["xorb.damaged", "file.damaged"]
    status, _ = made.get()
    assert status == 404, "and nobody begins what cannot be ended"
    return made


def whole(place: Place, git: Git, *, chunked: bool) -> None:
    """The file is there by every way, with a hash to Xet clients only where they can have it by chunks."""
    assert place.get() == (200, place.data)
    by_xet, plain = place.visit(READ, "reader"), place.visit(READ, "plain", xet=False)
    assert (by_xet["sum"], plain["sum"]) == (place.oid, place.oid)
    assert (by_xet["hash"] is not None) == chunked
    clone = place.folder / "clone-after"
    git("clone", "-q", place.house.remote(f"ann/{place.repo}"), str(clone))
    assert (clone / "w.bin").read_bytes() == place.data
    git("lfs", "fsck", at=clone)


@pytest.fixture
def lfs(git: Git) -> Git:
    need("git-lfs")
    git("lfs", "install", "--skip-repo")
    return git


@pytest.mark.parametrize("place", ["pushed"], indirect=True)
def test_a_push_from_a_clone_brings_it_back_whole(place: Place, lfs: Git) -> None:
    refused = lfs.attempt("clone", "-q", place.house.remote("ann/pushed"), str(place.folder / "early"))
    assert refused.returncode != 0
    assert "damaged" in refused.stderr
    work = place.folder / "work"
    Git(place.folder / "skipping", GIT_LFS_SKIP_SMUDGE="1")("clone", "-q", place.house.remote("ann/pushed"), str(work))
    kept = work / ".git/lfs/objects" / place.oid[:2] / place.oid[2:4]
    kept.mkdir(parents=True)
    (kept / place.oid).write_bytes(place.data)
    since = place.house.log.stat().st_size
    lfs("lfs", "push", "--all", "origin", at=work)
    # The line of a request may come after its answer.
    until(lambda: place.house.asked("PUT", "/lfs/", since) == 1)
    whole(place, lfs, chunked=False)
    # The xorb is as bad as it was; whoever brings it lets Xet clients read by chunks again.
    assert place.events() == ["xorb.damaged", "file.damaged"]
    place.heal("another", xet=True)
    out = place.visit(READ, "last")
    assert out["sum"] == place.oid
    assert out["hash"] is not None


@pytest.mark.parametrize("place", ["uploaded"], indirect=True)
def test_an_upload_without_xet_brings_it_back_whole(place: Place, lfs: Git) -> None:
    place.heal("another", xet=False)
    whole(place, lfs, chunked=False)


@pytest.mark.parametrize(("place", "home"), [("known", "writer"), ("new", "another")], indirect=["place"])
def test_an_upload_by_xet_brings_the_chunks_back(place: Place, lfs: Git, home: str) -> None:
    """Also from the machine that sent the xorb, and remembers that."""
    place.heal(home, xet=True)
    assert place.events() == ["xorb.damaged", "file.damaged", "xorb.healed"]
    whole(place, lfs, chunked=True)
    assert [line for line in place.house.findings() if place.oid in line] == []
