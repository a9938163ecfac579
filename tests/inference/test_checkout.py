"""Checkouts against a registry on a socket: proven bytes, links from the shelf, and crashes that leave nothing half."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from inference import checkout as room
from inference.checkout import Checkouts
from inference.errors import ModelAbsent, ModelRefused, Overloaded, Unavailable
from inference.kept import MANIFEST
from tests.inference.hub import FILES, REPO, WEIGHTS, Hub, git_id, serving

WANTED = {
    "config.json", "tokenizer.json", "chat_template.jinja", "model.safetensors", "1_Pooling/config.json", "empty.txt",
}  # fmt: skip


EMPTY = 1
"""Files of no bytes are not asked for."""


@pytest.fixture
def hub() -> Hub:
    return Hub()


@pytest.fixture
def url(hub: Hub) -> Iterator[str]:
    with serving(hub) as url:
        yield url


@pytest.fixture
def checkouts(url: str, tmp_path: Path) -> Iterator[Checkouts]:
    checkouts = Checkouts(tmp_path / "checkouts", url)
    yield checkouts
    checkouts.close()


def _files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def _assert_nothing_under(folder: Path, sha: str) -> None:
    assert not (folder / sha).exists()


def test_a_checkout_holds_the_wanted_files_and_only_those(hub: Hub, checkouts: Checkouts) -> None:
    sha = hub.push(REPO, FILES)
    folder = checkouts.pin(REPO, sha)
    assert folder.name == sha
    found = _files(folder)
    manifest = json.loads(found.pop(MANIFEST))
    assert found == {path: FILES[path] for path in WANTED}
    assert {entry["path"]: entry["size"] for entry in manifest["files"]} == {p: len(FILES[p]) for p in WANTED}
    assert (manifest["repo"], manifest["sha"]) == (REPO, sha)
    assert all(stat.S_IMODE((folder / path).stat().st_mode) == 0o444 for path in WANTED)
    assert not (folder.parent / "building" / sha).exists()


def test_a_second_pin_asks_nothing(hub: Hub, checkouts: Checkouts) -> None:
    sha = hub.push(REPO, FILES)
    folder = checkouts.pin(REPO, sha)
    hub.asked.clear()
    assert checkouts.pin(REPO, sha) == folder
    assert hub.asked == []


def test_many_threads_build_once(hub: Hub, checkouts: Checkouts) -> None:
    sha = hub.push(REPO, FILES)
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(checkouts.pin(REPO, sha))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
    assert len(found) == 8
    assert len([path for path in hub.asked if "/resolve/" in path]) == len(WANTED) - EMPTY


def test_pickled_weights_come_only_for_the_allowed_commit(hub: Hub, url: str, tmp_path: Path) -> None:
    sha = hub.push(REPO, FILES)
    allowing = Checkouts(tmp_path / "allowing", url, allow_pickle=frozenset({f"{REPO}@{sha}"}))
    assert (allowing.pin(REPO, sha) / "pytorch_model.bin").is_file()
    allowing.close()


def _shelf(folder: Path, data: bytes) -> Path:
    oid = hashlib.sha256(data).hexdigest()
    path = folder / "lfs" / oid[:2] / oid[2:4] / oid
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    path.chmod(0o444)
    return path


def test_files_on_the_shared_shelf_are_linked_and_not_asked_for(hub: Hub, url: str, tmp_path: Path) -> None:
    sha = hub.push(REPO, FILES)
    lying = _shelf(tmp_path / "objects", WEIGHTS)
    checkouts = Checkouts(tmp_path / "checkouts", url, shared_store=tmp_path / "objects")
    folder = checkouts.pin(REPO, sha)
    assert os.path.samefile(folder / "model.safetensors", lying)
    assert not any(path.endswith("model.safetensors") for path in hub.asked)
    checkouts.close()


def test_a_shelf_file_of_another_size_is_not_believed(hub: Hub, url: str, tmp_path: Path) -> None:
    sha = hub.push(REPO, FILES)
    lying = _shelf(tmp_path / "objects", WEIGHTS)
    lying.chmod(0o644)
    lying.write_bytes(WEIGHTS[:-1])
    checkouts = Checkouts(tmp_path / "checkouts", url, shared_store=tmp_path / "objects")
    assert (checkouts.pin(REPO, sha) / "model.safetensors").read_bytes() == WEIGHTS
    checkouts.close()


@pytest.mark.parametrize("path", ["model.safetensors", "config.json"])
def test_bytes_that_are_not_the_commits_are_never_kept(
    hub: Hub, checkouts: Checkouts, path: str, tmp_path: Path
) -> None:
    sha = hub.push(REPO, FILES)
    changed = bytearray(FILES[path])
    changed[-1] ^= 1
    hub.replaced[path] = bytes(changed)
    with pytest.raises(Unavailable):
        checkouts.pin(REPO, sha)
    _assert_nothing_under(tmp_path / "checkouts", sha)
    hub.replaced.clear()
    assert (checkouts.pin(REPO, sha) / path).read_bytes() == FILES[path]


@pytest.mark.parametrize("data", [WEIGHTS[:-5], WEIGHTS + b"more", b""])
def test_bodies_of_another_length_are_never_kept(hub: Hub, checkouts: Checkouts, data: bytes, tmp_path: Path) -> None:
    sha = hub.push(REPO, FILES)
    hub.replaced["model.safetensors"] = data
    with pytest.raises(Unavailable):
        checkouts.pin(REPO, sha)
    _assert_nothing_under(tmp_path / "checkouts", sha)


@pytest.mark.parametrize("ranges", [True, False])
def test_a_broken_download_goes_on_where_it_stopped(hub: Hub, checkouts: Checkouts, ranges: bool) -> None:
    sha = hub.push(REPO, FILES)
    hub.break_after, hub.ranges = 60_000, ranges
    if ranges:
        assert (checkouts.pin(REPO, sha) / "model.safetensors").read_bytes() == WEIGHTS
        return
    # A server without ranges breaks at the same byte each time; the next visit passes over what is here already.
    with pytest.raises(Unavailable):
        checkouts.pin(REPO, sha)
    hub.break_after = None
    assert (checkouts.pin(REPO, sha) / "model.safetensors").read_bytes() == WEIGHTS


def test_a_part_left_by_a_crash_is_used_and_a_spoilt_one_is_found_out(
    hub: Hub, checkouts: Checkouts, tmp_path: Path
) -> None:
    sha = hub.push(REPO, FILES)
    oid = hashlib.sha256(WEIGHTS).hexdigest()
    part = tmp_path / "checkouts" / "building" / sha / "parts" / _part(oid)
    for left in (WEIGHTS[:70_000], b"x" * 70_000, WEIGHTS + b"longer"):
        part.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(left)
        try:
            folder = checkouts.pin(REPO, sha)
        except Unavailable:
            assert left.startswith(b"x")
            assert not part.exists()
            folder = checkouts.pin(REPO, sha)
        assert (folder / "model.safetensors").read_bytes() == WEIGHTS
        subprocess.run(["rm", "-rf", str(folder)], check=True)


def _part(oid: str) -> str:
    return hashlib.sha256(f"{oid} model.safetensors".encode()).hexdigest()


def test_the_sidecars_own_token_serves_where_no_caller_asks(hub: Hub, url: str, tmp_path: Path) -> None:
    sha = hub.push(REPO, FILES)
    hub.readers[REPO] = {"own"}
    checkouts = Checkouts(tmp_path / "checkouts", url, token="own")
    with pytest.raises(ModelAbsent):
        checkouts.resolve(REPO)
    assert checkouts.resolve(REPO, checkouts.own_token()).sha == sha
    assert checkouts.pin(REPO, sha).is_dir()
    checkouts.close()


HOSTILE_LISTS = {
    "out of the folder": ["../evil.json"],
    "an absolute path": ["/tmp/evil.json"],
    "a backslash": ["a\\evil.json"],
    "a Windows device": ["nul.json"],
    "equal after folding": ["Config.json", "config.json"],
    "a file that is a folder too": ["a.json", "a.json/b.json"],
    "a line break": ["a\n.json"],
}


@pytest.mark.parametrize("paths", HOSTILE_LISTS.values(), ids=HOSTILE_LISTS)
def test_hostile_paths_are_refused_and_leave_nothing(
    hub: Hub, checkouts: Checkouts, tmp_path: Path, paths: list[str]
) -> None:
    sha = hub.push(REPO, dict.fromkeys(paths, b"{}"))
    with pytest.raises(ModelRefused):
        checkouts.pin(REPO, sha)
    _assert_nothing_under(tmp_path / "checkouts", sha)
    assert not (tmp_path / "evil.json").exists()
    assert not (tmp_path / "checkouts" / "evil.json").exists()


def test_a_checkout_that_the_disk_cannot_hold_is_refused_before_it_starts(hub: Hub, checkouts: Checkouts) -> None:
    sha = hub.push(REPO, {"a.json": b"{}"})
    oid = "ab" * 32
    hub.listed[sha] = [
        {"type": "file", "path": "m.safetensors", "size": 1 << 60, "oid": git_id(b"{}"), "lfs": {"oid": oid}}
    ]
    with pytest.raises(Overloaded) as refused:
        checkouts.pin(REPO, sha)
    assert refused.value.code == "model_capacity"
    assert not any("/resolve/" in path for path in hub.asked)


CRASH = """
import os, sys
from pathlib import Path
from inference import checkout
calls, last = 0, int(sys.argv[4])
def dying(call):
    def run(*arguments, **named):
        global calls
        calls += 1
        if calls > last:
            os._exit(9)
        return call(*arguments, **named)
    return run
for name in ("open", "link", "rename", "fsync", "chmod"):
    setattr(os, name, dying(getattr(os, name)))
checkout.Checkouts(Path(sys.argv[1]), sys.argv[2], shared_store=Path(sys.argv[5])).pin("acme/tiny", sys.argv[3])
"""


def test_a_crash_at_any_step_leaves_no_half_folder_and_the_next_attempt_succeeds(
    hub: Hub, url: str, tmp_path: Path
) -> None:
    files = {"config.json": b"{}", "a/b.json": b"[]", "m.safetensors": WEIGHTS, "n.safetensors": WEIGHTS[:2000]}
    sha = hub.push(REPO, files)
    _shelf(tmp_path / "objects", WEIGHTS)
    folder = tmp_path / "checkouts"
    root = Path(room.__file__).parents[1]
    crashes, steps, status = 0, 0, 9
    while status == 9:
        arguments = [str(folder), url, sha, str(steps), str(tmp_path / "objects")]
        status = subprocess.run([sys.executable, "-c", CRASH, *arguments], cwd=root, timeout=60, check=False).returncode
        crashes += status == 9
        steps += 2
        if (folder / sha).exists():
            found = _files(folder / sha)
            assert found.pop(MANIFEST)
            assert found == files
            if status == 9:
                # Renamed, then killed: whole, and found whole by the next process.
                status = 0
    assert status == 0
    assert crashes > 5
    after = Checkouts(folder, url)
    assert after.pin(REPO, sha) == folder / sha
    after.close()


def test_two_processes_on_one_folder_build_once(hub: Hub, url: str, tmp_path: Path) -> None:
    sha = hub.push(REPO, FILES)
    root = Path(room.__file__).parents[1]
    code = (
        "import sys; from pathlib import Path; from inference.checkout import Checkouts; "
        "print(Checkouts(Path(sys.argv[1]), sys.argv[2]).pin('acme/tiny', sys.argv[3]))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "checkouts"), url, sha]
    running = [subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE) for _ in range(2)]
    told = [process.communicate(timeout=60)[0] for process in running]
    assert told[0] == told[1]
    assert [process.returncode for process in running] == [0, 0]
    assert len([path for path in hub.asked if "/resolve/" in path]) == len(WANTED) - EMPTY
