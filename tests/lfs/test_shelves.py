"""A storage URL opens the shelf that it names, or says what is wrong with it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lfs.errors import BadStorage
from lfs.local import LocalStore
from lfs.s3 import S3Store
from lfs.shelves import open_store


@pytest.mark.parametrize("form", ["file:{}", "file://{}"])
def test_a_file_url_is_a_folder(tmp_path: Path, form: str) -> None:
    store = open_store(form.format(tmp_path / "made here"), min_free=0)
    assert isinstance(store, LocalStore)
    store.put("lfs/x", b"bytes", 5)
    assert (tmp_path / "made here/lfs/x").read_bytes() == b"bytes"


def test_an_s3_url_is_a_bucket() -> None:
    url = "s3://weights/some/prefix?endpoint=http://127.0.0.1:9&region=eu-1&style=path"
    store = open_store(url, access_key="A", secret_key="S")
    assert isinstance(store, S3Store)
    signed = store.url("lfs/x", "GET", 60)
    assert signed is not None
    assert signed.href.startswith("http://127.0.0.1:9/weights/some/prefix/lfs/x?")
    assert "eu-1" in signed.href


@pytest.mark.parametrize(
    "url", ["", "data", "file:", "s3:", "s3://", "ftp://x/y", "s3://b?style=odd", "s3://b?endpont=http://x"]
)
def test_what_names_no_shelf_is_refused(url: str) -> None:
    with pytest.raises(BadStorage):
        open_store(url)


def test_what_a_crash_left_is_swept_when_it_is_old(tmp_path: Path) -> None:
    open_store(f"file:{tmp_path}", min_free=0)
    old, new = tmp_path / "tmp" / "old", tmp_path / "tmp" / "new"
    for path in (old, new):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    open_store(f"file:{tmp_path}", min_free=0)
    assert (old.exists(), new.exists()) == (False, True)
