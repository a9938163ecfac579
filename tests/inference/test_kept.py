"""Checkouts on disk: damaged ones are built again, old ones go, and none that anybody uses."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from inference.checkout import Checkouts
from inference.kept import MANIFEST, STALE_SECONDS, Kept
from tests.inference.hub import FILES, REPO, WEIGHTS, Hub, serving


@pytest.fixture
def hub() -> Hub:
    return Hub()


@pytest.fixture
def url(hub: Hub) -> Iterator[str]:
    with serving(hub) as url:
        yield url


def _commits(hub: Hub, count: int) -> list[str]:
    return [hub.push(REPO, {**FILES, "config.json": b"{}" + b" " * number}) for number in range(count)]


def _there(folder: Path, shas: list[str]) -> list[bool]:
    return [(folder / sha).is_dir() for sha in shas]


def _used(folder: Path, sha: str, at: int) -> None:
    os.utime(folder / sha / MANIFEST, (at, at))


Damage = Callable[[Path], object]


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "model.safetensors").unlink(),
        lambda folder: (folder / MANIFEST).unlink(),
        lambda folder: shutil.rmtree(folder / "1_Pooling"),
        lambda folder: (os.chmod(folder / "model.safetensors", 0o600), os.truncate(folder / "model.safetensors", 9)),
        lambda folder: (os.chmod(folder / MANIFEST, 0o600), (folder / MANIFEST).write_text("[]")),
        lambda folder: ((folder / "tokenizer.json").unlink(), (folder / "tokenizer.json").symlink_to("/etc/passwd")),
    ],
)
def test_a_damaged_checkout_is_built_again(hub: Hub, url: str, tmp_path: Path, damage: Damage) -> None:
    sha = hub.push(REPO, FILES)
    checkouts = Checkouts(tmp_path / "checkouts", url)
    folder = checkouts.pin(REPO, sha)
    damage(folder)
    assert checkouts.pin(REPO, sha) == folder
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert not list((tmp_path / "checkouts" / "building").glob("trash-*"))
    checkouts.close()


def test_a_folder_that_was_emptied_under_us_is_made_again(hub: Hub, url: str, tmp_path: Path) -> None:
    sha = hub.push(REPO, FILES)
    checkouts = Checkouts(tmp_path / "checkouts", url)
    checkouts.pin(REPO, sha)
    shutil.rmtree(tmp_path / "checkouts")
    assert (checkouts.pin(REPO, sha) / "model.safetensors").is_file()
    checkouts.close()


def test_above_the_limit_the_least_recently_used_goes_and_what_is_in_use_stays(
    hub: Hub, url: str, tmp_path: Path
) -> None:
    shas, folder = _commits(hub, 4), tmp_path / "checkouts"
    checkouts, beside = Checkouts(folder, url, limit=2 * len(WEIGHTS) + 9000), Checkouts(folder, url)
    for at, sha in enumerate(shas[:3]):
        checkouts.pin(REPO, sha)
        _used(folder, sha, at)
    assert _there(folder, shas) == [True, True, True, False], "all three are in use"
    beside.pin(REPO, shas[0])
    _used(folder, shas[0], 0)
    for sha in shas[:3]:
        checkouts.release(sha)
    assert _there(folder, shas) == [True, False, True, False], "another process uses the oldest"
    beside.release(shas[0])
    checkouts.pin(REPO, shas[3])
    assert _there(folder, shas) == [False, False, True, True]
    checkouts.close()
    beside.close()


def test_a_disk_without_room_gives_what_nobody_uses(hub: Hub, url: str, tmp_path: Path) -> None:
    first, second = _commits(hub, 2)
    folder = tmp_path / "checkouts"
    checkouts = Checkouts(folder, url)
    for sha in (first, second):
        checkouts.pin(REPO, sha)
    checkouts.release(first)
    Kept(folder, folder / "building", 10**12).trim(needed=1 << 50)
    assert _there(folder, [first, second]) == [False, True]
    checkouts.close()


def test_what_is_linked_from_a_shelf_takes_no_room(tmp_path: Path) -> None:
    folder, sha = tmp_path / "checkouts", "a" * 40
    (folder / "building").mkdir(parents=True)
    (folder / sha).mkdir()
    (tmp_path / "object").write_bytes(WEIGHTS)
    (folder / sha / "m.safetensors").hardlink_to(tmp_path / "object")
    (folder / sha / MANIFEST).write_text('{"files": []}')
    Kept(folder, folder / "building", 1000).trim()
    assert (folder / sha).is_dir()


def test_builds_given_up_long_ago_and_half_removals_are_cleared_at_start(tmp_path: Path) -> None:
    building = tmp_path / "building"
    old, fresh, trash = building / ("a" * 40), building / ("b" * 40), building / "trash-1"
    for path in (old, fresh, trash):
        (path / "parts").mkdir(parents=True)
    long_ago = time.time() - STALE_SECONDS - 60
    for path in (old / "parts", old):
        os.utime(path, (long_ago, long_ago))
    Kept(tmp_path, building, 1)
    assert [path.is_dir() for path in (old, fresh, trash)] == [False, True, False]
