"""A spool keeps blobs until the pack that carries them is known."""

import hashlib
import random
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.errors import NoSpace, SizeMismatch
from registry.git.spool import Spool


def git(folder, *args, data=b""):
    done = subprocess.run(["git", *args], cwd=folder, input=data, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode().strip()


@given(st.lists(st.binary(max_size=40), max_size=6), st.lists(st.binary(max_size=3), max_size=2))
def test_a_pack_holds_each_wanted_blob_once_and_is_the_same_every_time(contents, unwanted):
    with tempfile.TemporaryDirectory() as name:
        made = []
        for attempt in range(2):
            with Spool(Path(name), f"x{attempt}") as spool:
                ids = [spool.add(len(content), [content[:3], content[3:]]) for content in contents]
                for content in unwanted:
                    spool.add(len(content), [content])
                spool.pack(ids[:1], [])
                made.append(spool.pack([*ids, *ids, "f" * 40], [(1, b"x")]).read_bytes())
        assert made[0] == made[1]
        assert int.from_bytes(made[0][8:12], "big") == len(set(contents)) + 1
        assert made[0][-20:] == hashlib.sha1(made[0][:-20]).digest()
        assert list(Path(name).iterdir()) == []


def test_a_blob_of_the_wrong_size_leaves_no_trace(tmp_path):
    with Spool(tmp_path, "x") as spool:
        first = spool.add(3, [b"abc"])
        with pytest.raises(SizeMismatch):
            spool.add(9, [b"short"])
        second = spool.add(3, [b"def"])
        pack = spool.pack([first, second], []).read_bytes()
    folder = tmp_path / "repo"
    git(tmp_path, "init", "-q", str(folder))
    git(folder, "index-pack", "--strict", "--stdin", data=pack)
    assert git(folder, "cat-file", "blob", second) == "def"


@pytest.mark.parametrize("name", ["x.blobs", "x.pack"])
def test_a_full_disk_is_told_and_leaves_nothing(tmp_path, name):
    (tmp_path / name).symlink_to("/dev/full")
    content = random.Random(1).randbytes(1 << 20)

    def work():
        with Spool(tmp_path, "x") as spool:
            spool.pack([spool.add(len(content), [content])], [])

    with pytest.raises(NoSpace):
        work()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size", [(256 << 10) - 1, 256 << 10, 3 << 20])
def test_large_blobs_of_any_kind_are_what_git_reads(tmp_path, size):
    text = (b"the same words again and again\n" * (size // 31 + 1))[:size]
    noise = random.Random(size).randbytes(size)
    contents = [text, noise, text[: size // 2] + noise[size // 2 :]]
    folder = tmp_path / "repo"
    git(tmp_path, "init", "-q", str(folder))
    with Spool(tmp_path, "x") as spool:
        ids = [spool.add(size, (content[at : at + 70_000] for at in range(0, size, 70_000))) for content in contents]
        pack = spool.pack(ids, []).read_bytes()
    git(folder, "index-pack", "--strict", "--stdin", data=pack)
    assert len(pack) < 2 * size + (size >> 3)
    for id, content in zip(ids, contents, strict=True):
        assert git(folder, "hash-object", "--stdin", data=content) == id
        assert git(folder, "cat-file", "-t", id) == "blob"
