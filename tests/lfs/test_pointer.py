"""Pointer text is written in one form, and read in every form that git-lfs takes."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lfs.pointer import MAX_SIZE, VERSION, Pointer, canonical, parse
from tests.services.programs import need

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
    pointer = parse(VERSION + blob)
    assert pointer is None or parse(canonical(pointer)) == pointer


def test_an_empty_file_is_a_file() -> None:
    assert parse(b"") is None


@given(st.integers(0, len(TEXT) - 1), st.integers(0, 255))
def test_a_changed_byte_never_raises(at: int, value: int) -> None:
    pointer = parse(TEXT[:at] + bytes([value]) + TEXT[at + 1 :])
    assert pointer is None or parse(canonical(pointer)) == pointer


EXTENSION = b"ext-0-a sha256:" + b"0" * 64 + b"\n"


@pytest.mark.parametrize(
    "blob",
    [
        TEXT,
        TEXT[:-1],
        TEXT + b"\n",
        b"\n\n" + TEXT,
        TEXT.replace(b"\n", b"\r\n"),
        TEXT.replace(b"\n", b"\n\n"),
        TEXT.replace(b"12345", b"012345"),
        TEXT.replace(b"12345", b"+12345"),
        TEXT.replace(b"https://git-lfs.github.com/spec/v1", b"http://git-media.io/v/2"),
        TEXT.replace(b"https://git-lfs.github.com/spec/v1", b"https://hawser.github.com/spec/v1"),
        EXTENSION + TEXT,
        TEXT.replace(b"12345", b"-1"),
        TEXT.replace(b"12345", b"9999999999999999999"),
        TEXT.replace(OID.encode(), OID.upper().encode()),
        TEXT.replace(OID.encode(), OID.encode() + b" "),
        TEXT.replace(b"spec/v1", b"spec/v2"),
        TEXT.replace(b"spec/v1", b"spec/v1 "),
        TEXT.replace(b"version ", b"version  "),
        TEXT + b"zzz more\n",
        TEXT + EXTENSION,
        EXTENSION + EXTENSION.replace(b"-a", b"-b") + TEXT,
        EXTENSION.replace(b"-0-", b"-10-") + TEXT,
        VERSION + f"size 12345\noid sha256:{OID}\n".encode(),
        b"# git-media\n" + OID.encode() + b"\n",
    ],
)
def test_a_blob_is_a_pointer_if_git_lfs_says_so(blob: bytes) -> None:
    need("git-lfs")
    said = subprocess.run(["git", "lfs", "pointer", "--check", "--stdin"], input=blob, capture_output=True, check=False)
    assert (parse(blob) is not None) == (said.returncode == 0)


def test_git_lfs_writes_the_same_text(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(b"x" * 1000)
    told = subprocess.run(["git", "lfs", "pointer", "--file=weights"], cwd=tmp_path, capture_output=True, check=True)
    pointer = parse(told.stdout)
    assert pointer is not None
    assert pointer.size == 1000
    assert canonical(pointer) == told.stdout
