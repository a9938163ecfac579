"""Pointer text is what git-lfs writes, and nothing else is taken for it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lfs.pointer import MAX_SIZE, VERSION, Pointer, canonical, parse

oids = st.text("0123456789abcdef", min_size=64, max_size=64)
names = st.text("abcdefghijklmnopqrstuvwxyz_-0123456789", min_size=1, max_size=12)
extensions = st.lists(st.tuples(names, oids), max_size=5).map(
    lambda each: tuple((f"ext-{at}-{name}", oid) for at, (name, oid) in enumerate(each))
)
pointers = st.builds(Pointer, oids, st.integers(0, MAX_SIZE), extensions)
OID = "4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393"
TEXT = VERSION + f"oid sha256:{OID}\nsize 12345\n".encode()


@given(pointers)
def test_a_pointer_survives_its_text(pointer: Pointer) -> None:
    assert parse(canonical(pointer)) == pointer


@given(st.binary(max_size=2000))
def test_garbage_is_a_file_like_any_other(blob: bytes) -> None:
    assert parse(blob) is None
    assert parse(VERSION + blob) is None or canonical(parse(VERSION + blob) or Pointer("", 0)) == VERSION + blob


@given(st.integers(0, len(TEXT) - 1), st.integers(0, 255))
def test_whatever_parses_is_canonical(at: int, value: int) -> None:
    changed = TEXT[:at] + bytes([value]) + TEXT[at + 1 :]
    pointer = parse(changed)
    assert pointer is None or canonical(pointer) == changed


@pytest.mark.parametrize(
    "blob",
    [
        b"",
        TEXT[:-1],
        TEXT + b"\n",
        TEXT.replace(b"\n", b"\r\n"),
        TEXT.replace(b"12345", b"012345"),
        TEXT.replace(b"12345", b"-1"),
        TEXT.replace(b"12345", b"9999999999999999999"),
        TEXT.replace(OID.encode(), OID.upper().encode()),
        TEXT.replace(b"spec/v1", b"spec/v2"),
        TEXT + b"zzz more\n",
        TEXT.replace(b"oid", b"ext-1-b sha256:" + b"0" * 64 + b"\next-0-a sha256:" + b"0" * 64 + b"\noid", 1),
    ],
)
def test_near_misses_are_files(blob: bytes) -> None:
    assert parse(blob) is None


def test_git_lfs_writes_the_same_text(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(b"x" * 1000)
    told = subprocess.run(["git", "lfs", "pointer", "--file=weights"], cwd=tmp_path, capture_output=True, check=True)
    pointer = parse(told.stdout)
    assert pointer is not None
    assert pointer.size == 1000
    assert canonical(pointer) == told.stdout
