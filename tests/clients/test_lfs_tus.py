"""Stock git-lfs over a line that breaks: a push goes on by tus, a pull by Range, and what arrived is not sent again."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.clients.test_git import create
from tests.faults.proxy import Fault, Proxy, calm, on
from tests.services import s3
from tests.services.house import House, open_house
from tests.services.programs import Git, need, newest_git_lfs

pytestmark = [pytest.mark.clients, pytest.mark.faults]

MIB = 1 << 20
# In what pieces a resumable upload is kept.
PART = 8 * MIB
SIZE = 3 * PART + 4321
# What a reset takes with it: bytes that the proxy passed and the other side did not read yet.
LOST = 12 * MIB


@dataclass(frozen=True)
class Line:
    """A registry behind a proxy, and what its bucket is behind."""

    house: House
    proxy: Proxy
    bucket: Proxy | None = None


@pytest.fixture(scope="module")
def disk(small_house: House) -> Iterator[Line]:
    with Proxy(small_house.port) as proxy:
        yield Line(small_house, proxy)


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Line]:
    with s3.moto() as endpoint, Proxy(urlsplit(endpoint.url).port or 0) as proxy:
        s3.make_bucket(endpoint, "weights")
        storage = f"s3://weights/prod?endpoint={proxy.url}&region={endpoint.region}&style=path"
        keys = {"S3_ACCESS_KEY": endpoint.access_key, "S3_SECRET_KEY": endpoint.secret_key}
        with (
            open_house(tmp_path_factory.mktemp("bucket"), STORAGE=storage, **keys) as house,
            Proxy(house.port) as front,
        ):
            yield Line(house, front, proxy)


# Every kind of shelf and every git-lfs once.
IN_A_BUCKET = [pytest.mark.s3, pytest.mark.xdist_group("s3")]


@pytest.fixture(params=["disk, oldest git-lfs", pytest.param("bucket, newest git-lfs", marks=IN_A_BUCKET)])
def line(request: pytest.FixtureRequest) -> Line:
    found: Line = request.getfixturevalue(request.param.partition(",")[0])
    found.proxy.plan, found.proxy.seen = calm, []
    return found


@pytest.fixture
def git(line: Line, tmp_path: Path) -> Git:
    """git with a git-lfs that may go on with uploads."""
    need("git", "git-lfs")
    made = Git(tmp_path / "home", programs=newest_git_lfs().parent if line.bucket else None, GIT_LFS_SKIP_SMUDGE="1")
    made("lfs", "install", "--skip-repo")
    made("config", "--global", "lfs.tustransfers", "true")
    return made


@pytest.fixture
def body(tmp_path: Path) -> bytes:
    return random.Random(str(tmp_path)).randbytes(SIZE)


@pytest.fixture
def work(line: Line, git: Git, body: bytes, tmp_path: Path) -> Path:
    """A clone of a new repo, by way of the proxy, with a commit that is not pushed."""
    name = create(line.house, f"tus-{random.SystemRandom().getrandbits(40):x}")
    remote = line.house.remote(name).replace(str(line.house.port), str(line.proxy.port))
    git("clone", "-q", remote, str(tmp_path / "work"))
    git.commit(tmp_path / "work", {"model.safetensors": body})
    return tmp_path / "work"


def test_a_push_that_breaks_goes_on_where_it_was(line: Line, git: Git, work: Path, body: bytes) -> None:
    chance = random.SystemRandom()
    cuts = [chance.randrange(1, PART), PART + chance.randrange(1, MIB), chance.randrange(1, PART)]
    print("cut after", cuts)
    line.proxy.plan = on(
        "PATCH", "/lfs/tus/", *[Fault(up=cut, end="close") for cut in cuts], Fault(up=PART, end="reset")
    )
    git("push", "-q", "origin", "HEAD", at=work)
    sent = uploads(line)
    for (before, passed), (offset, _) in pairwise(sent):
        assert offset % PART == 0
        assert before <= offset <= before + passed
    # A clean end loses nothing of what came: only the last part, if it was not whole.
    for (before, passed), (offset, _) in pairwise(sent[:4]):
        assert offset == (before + passed) // PART * PART
    assert sum(passed for _, passed in sent) < SIZE + sum(cuts) + PART
    assert fresh(line, git, work) == body


def test_a_push_that_was_given_up_goes_on_the_next_time(line: Line, git: Git, work: Path, body: bytes) -> None:
    git("config", "lfs.transfer.maxretries", "1", at=work)
    line.proxy.plan = on("PATCH", "/lfs/tus/", *[Fault(up=PART + 5, end="close")] * 2)
    assert git.attempt("push", "-q", "origin", "HEAD", at=work).returncode != 0
    assert [offset for offset, _ in uploads(line)] == [0, PART]
    git("push", "-q", "origin", "HEAD", at=work)
    assert uploads(line)[2:] == [(2 * PART, SIZE - 2 * PART)]
    assert fresh(line, git, work) == body


def test_a_pull_that_breaks_goes_on_where_it_was(line: Line, git: Git, work: Path, body: bytes) -> None:
    git("push", "-q", "origin", "HEAD", at=work)
    # Through the server from a disk; from the bucket itself, where there is one.
    reading, cut = line.bucket or line.proxy, random.SystemRandom().randrange(LOST, SIZE)
    print("cut after", cut)
    reading.plan = on("GET", "lfs/", Fault(down=cut, end="reset" if line.bucket else "close"))
    reading.seen.clear()
    assert fresh(line, git, work) == body
    first, second = (each for each in reading.asked("GET", "lfs/") if "/info/lfs" not in each.target)
    assert ("range" in first.headers, first.down) == (False, cut)
    start = int(second.headers["range"].removeprefix("bytes=").partition("-")[0])
    assert cut - LOST < start <= cut
    assert (second.status, second.down) == (206, SIZE - start)


def uploads(line: Line) -> list[tuple[int, int]]:
    """Where each PATCH began and how many bytes of it passed; refused ones count for nothing."""
    asked = line.proxy.asked("PATCH", "/lfs/tus/")
    return [(int(each.headers["upload-offset"]), each.up) for each in asked if each.status in (0, 204)]


def fresh(line: Line, git: Git, work: Path) -> bytes:
    """Clone anew, pull, and return what came."""
    at = work.with_name("fresh")
    git("clone", "-q", git("remote", "get-url", "origin", at=work), str(at))
    git("lfs", "pull", at=at)
    git("lfs", "fsck", at=at)
    return (at / "model.safetensors").read_bytes()
