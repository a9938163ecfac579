"""A storage URL opens the shelf that it names, or says what is wrong with it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lfs.errors import BadStorage
from lfs.local import LocalStore
from lfs.s3.shelf import S3Store
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


def test_clients_are_sent_to_the_public_address() -> None:
    store = open_store(
        "s3://weights?endpoint=http://127.0.0.1:9&public=https://s3.example", access_key="A", secret_key="S"
    )
    signed = store.url("lfs/x", "GET", 60)
    assert signed is not None
    assert signed.href.startswith("https://s3.example/weights/lfs/x?")


def test_a_bucket_may_be_a_label_of_its_host() -> None:
    url = "s3://weights?endpoint=https://inside.example:8443&public=https://s3.example&style=virtual"
    signed = open_store(url, access_key="A", secret_key="S").url("lfs/x", "GET", 60)
    assert signed is not None
    assert signed.href.startswith("https://weights.s3.example/lfs/x?")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "data",
        "file:",
        "s3:",
        "s3://",
        "ftp://x/y",
        "s3://b?style=odd",
        "s3://b?endpont=http://x",
        "s3://b?endpoint=x:9000",
        "s3://b?public=ftp://x",
        "s3://b?public=https://x/%3Fy=z?y=z",
        "s3://b?public=https://us:er@x",
        "s3://b?endpoint=http://127.0.0.1:9&style=virtual",
        "s3://b?public=http://[::1]:9&style=virtual",
        "s3://b?endpoint=http://[:9",
        "s3://b?endpoint=http://x:99999",
    ],
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
