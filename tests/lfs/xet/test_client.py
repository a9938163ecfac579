"""hf_xet uploads to the door and downloads from it what it sent, and sends no chunk that is there."""

from __future__ import annotations

import hashlib
import random
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from starlette.types import Scope

from lfs.errors import Busy
from lfs.heavy import Heavy
from lfs.local import LocalStore
from lfs.xet import answers
from lfs.xet.checking import Tell
from lfs.xet.filing import Filing
from lfs.xet.index import Leave
from tests.lfs.conftest import serving
from tests.lfs.xet.alone import Alone, Heard
from tests.lfs.xet.client import Client, Sent
from tests.services import s3

MIB = 1 << 20


@dataclass
class Place:
    """A door that is served, and a folder for what clients of it have."""

    alone: Alone
    url: str
    folder: Path

    def client(self, name: str) -> Client:
        """Return a client that remembers under a name."""
        return Client(self.url, self.folder / name)

    def file(self, name: str, content: bytes) -> Path:
        path = self.folder / name
        path.write_bytes(content)
        return path

    def heard(self, verb: str, path: str) -> list[Heard]:
        """Return the requests that began so."""
        return [one for one in self.alone.heard if one.verb == verb and one.path.startswith(path)]

    def came(self) -> int:
        """Return how many bytes of xorbs clients sent so far."""
        return sum(one.size for one in self.heard("POST", "/v1/xorbs/") if one.status == 200)


@pytest.fixture
def alone(heavy: Heavy, tmp_path: Path) -> Alone:
    return Alone(LocalStore(tmp_path / "shelf", min_free=0, fsync=False), heavy, tmp_path / "coming")


@pytest.fixture
def place(alone: Alone, tmp_path: Path) -> Iterator[Place]:
    with serving(alone) as url:
        yield Place(alone, url, tmp_path)


def returns(place: Place, *paths: Path, sent: tuple[Sent, ...] = ()) -> None:
    """Upload files, and insist that another machine gets the same bytes."""
    sent = sent or tuple(place.client("writer").upload(*paths))
    targets = [path.with_name(f"{path.name}.back") for path in paths]
    place.client("reader").download(*zip(sent, targets, strict=True))
    for path, target in zip(paths, targets, strict=True):
        assert hashlib.sha256(target.read_bytes()).digest() == hashlib.sha256(path.read_bytes()).digest()


@pytest.mark.parametrize("size", [0, 10, 5 * MIB, 70 * MIB])
def test_a_file_comes_back_as_it_was(place: Place, size: int) -> None:
    content = random.Random(size).randbytes(size)
    returns(place, place.file("weights", content))
    xorbs = {one.path for one in place.heard("POST", "/v1/xorbs/")}
    assert len(xorbs) == -(-size // (64 * MIB))
    assert {one.status for one in place.alone.heard} <= {200, 206, 404, 416}
    [link] = [sha256 for _, _, sha256 in place.alone.index.links]
    assert link == (hashlib.sha256(content).hexdigest() if size else "")


def test_many_files_of_one_commit_come_back(place: Place) -> None:
    dice = random.Random(6)
    paths = [place.file(f"part-{at}", dice.randbytes(dice.randrange(1, 200_000))) for at in range(50)]
    returns(place, *paths)
    assert len(place.alone.index.files) == 50
    assert len(place.heard("POST", "/v2/shards")) == 1


def test_what_is_there_is_not_sent_again(place: Place) -> None:
    path = place.file("weights", random.Random(1).randbytes(20 * MIB))
    first = place.client("writer").upload(path)
    before = place.came()
    assert before > 20 * MIB
    for name in ("writer", "another machine"):
        assert place.client(name).upload(path) == first
        assert place.came() == before


def test_an_edit_sends_little_from_a_machine_that_knows_nothing(place: Place) -> None:
    dice = random.Random(2)
    content = bytearray(dice.randbytes(60 * MIB))
    place.client("writer").upload(place.file("weights", bytes(content)))
    before = place.came()
    for _ in range(6):
        at = dice.randrange(len(content))
        content[at : at + 100_000] = dice.randbytes(100_000)
    content[MIB:MIB] = b"seven b"
    edited = place.file("edited", bytes(content))
    returns(place, edited)
    share = (place.came() - before) / len(content)
    print(f"{share:.2%} of an edited file were sent")
    assert share < 0.04


@pytest.mark.parametrize(
    ("hidden", "instead"),
    [
        ("v2/", [("POST", "/v1/shards"), ("GET", "/v1/reconstructions/")]),
        ("v1/xorb-grants", [("POST", "/v1/xorbs/"), ("POST", "/v2/shards")]),
        ("v1/chunks", [("POST", "/v1/xorbs/")]),
    ],
)
def test_a_client_finds_its_way_past_what_is_not_there(
    place: Place, hidden: str, instead: list[tuple[str, str]]
) -> None:
    place.alone.hidden = [hidden]
    place.alone.build()
    returns(place, place.file("weights", random.Random(3).randbytes(2 * MIB)))
    assert {one.status for verb in ("GET", "POST") for one in place.heard(verb, f"/{hidden}")} == {404}
    for verb, path in instead:
        assert {one.status for one in place.heard(verb, path)} == {200}


def test_a_client_that_remembers_a_lost_xorb_is_told_and_then_sends_it(place: Place) -> None:
    path = place.file("weights", random.Random(4).randbytes(2 * MIB))
    writer = place.client("writer")
    sent = writer.upload(path)
    before = place.came()
    place.alone.index.xorbs.clear()
    place.alone.index.shown.clear()
    with pytest.raises(RuntimeError, match="1 of 1 xorbs of this upload are not here any more; upload the files again"):
        writer.upload(path)
    assert place.came() == before
    assert writer.upload(path) == sent
    assert place.came() == 2 * before
    returns(place, path, sent=tuple(sent))


class Weary(Filing):
    """Takes longer than a beat, says so once, and has no time at all before that."""

    tries = 0

    def file(self, leave: Leave, data: bytes, tell: Tell) -> bool:
        Weary.tries += 1
        if Weary.tries == 1:
            raise Busy("The database has no time; try again.")
        assert threading.Event().wait(3 * answers.BEAT) is False
        tell(0, 0)
        return super().file(leave, data, tell)


def test_a_client_waits_for_a_door_that_has_no_time_and_follows_one_that_is_slow(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "BEAT", 0.2)
    monkeypatch.setattr(Weary, "tries", 0)
    place.alone.filing_kind = Weary
    place.alone.build()
    returns(place, place.file("weights", b"weights"))
    assert Weary.tries == 2


def test_a_link_that_ended_is_asked_for_again(place: Place) -> None:
    path = place.file("weights", random.Random(5).randbytes(2 * MIB))
    [sent] = place.client("writer").upload(path)
    moved = False

    def moves(scope: Scope) -> None:
        """Give the xorb another key between a reconstruction and the fetch."""
        nonlocal moved
        if not moved and scope["path"].startswith("/xet/blob/"):
            moved = True
            [kept] = place.alone.index.xorbs.values()
            key = f"{kept.xorb.key}0"
            place.alone.store.copy(kept.xorb.key, key)
            place.alone.store.delete(kept.xorb.key)
            kept.xorb = replace(kept.xorb, key=key)

    place.alone.before = moves
    returns(place, path, sent=(sent,))
    assert [one.status for one in place.heard("GET", "/xet/blob/")] == [403, 206]


@pytest.mark.s3
def test_a_bucket_takes_and_gives_the_bytes_itself(heavy: Heavy, tmp_path: Path) -> None:
    with s3.rclone(tmp_path / "bucket") as endpoint:
        s3.make_bucket(endpoint, "weights")
        alone = Alone(s3.open_bucket(endpoint, "weights", "xet"), heavy, tmp_path / "coming")
        with serving(alone) as url:
            place = Place(alone, url, tmp_path)
            path = place.file("weights", random.Random(7).randbytes(70 * MIB))
            returns(place, path)
            assert {one.status for one in place.heard("POST", "/v1/xorb-grants/")} == {201}
            assert {one.status for one in place.heard("POST", "/v1/xorb-commits/")} == {200}
            assert place.heard("POST", "/v1/xorbs/") == place.heard("GET", "/xet/blob/") == []
            before = len(place.heard("POST", "/v1/xorb-commits/"))
            place.client("another machine").upload(path)
            assert len(place.heard("POST", "/v1/xorb-commits/")) == before
