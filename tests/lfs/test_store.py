"""Keys are ours, and a judge keeps count."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lfs.errors import BadKey, DigestMismatch, RangeUnsatisfiable, SizeMismatch
from lfs.store import PIECE, Judge, Span, check_key, check_span, lfs_key, pieces


@given(st.text(max_size=60))
def test_a_key_never_leaves_the_shelf(text: str) -> None:
    for key in (text, f"lfs/{text}", f"{text}/x"):
        try:
            check_key(key)
        except BadKey:
            continue
        path = Path("/shelf") / key
        assert path.is_relative_to("/shelf")
        assert ".." not in path.parts
        assert str(path) == f"/shelf/{key}"


def test_an_object_has_a_shared_key_and_one_per_upload() -> None:
    oid = "ab" * 32
    assert lfs_key(oid) == f"lfs/ab/ab/{oid}"
    assert lfs_key(oid, "0f" * 16) == f"lfs/ab/ab/{oid}.{'0f' * 16}"
    for bad in (oid.upper(), oid[:-1], "../" + oid, ""):
        with pytest.raises(BadKey):
            lfs_key(bad)


@given(st.lists(st.binary(max_size=50), max_size=10), st.integers(0, 200))
def test_a_judge_passes_exactly_the_announced_bytes(body: list[bytes], size: int) -> None:
    whole = b"".join(body)
    for sha256 in (None, hashlib.sha256(whole).hexdigest(), "0" * 64):
        judge = Judge(size, sha256)
        try:
            for piece in body:
                judge.feed(piece)
            verified = judge.verdict("key")
        except SizeMismatch:
            assert len(whole) != size
        except DigestMismatch:
            assert sha256 == "0" * 64
        else:
            assert (len(whole), verified.sha256) == (size, hashlib.sha256(whole).hexdigest())


@pytest.mark.parametrize("size", [0, 1, PIECE, 2 * PIECE + 1])
def test_every_kind_of_source_gives_its_bytes(tmp_path: Path, size: int) -> None:
    body = bytes(range(256)) * (size // 256 + 1)
    body = body[:size]
    path = tmp_path / "file"
    path.write_bytes(body)
    for source in (body, path, io.BytesIO(body), iter([body]) if body else []):
        assert b"".join(pieces(source)) == body
    assert all(len(piece) <= PIECE for piece in pieces(body))


@given(st.integers(-5, 20), st.integers(-5, 20), st.integers(0, 10))
def test_a_span_is_within_or_refused(start: int, end: int, size: int) -> None:
    try:
        span = check_span(Span(start, end), size)
    except RangeUnsatisfiable:
        assert not 0 <= start <= end <= size
    else:
        assert 0 <= span.size <= size
