"""Emission follows no circle between packs, splits and moves entries, and streams what is large."""

from __future__ import annotations

import hashlib
import subprocess
import zlib
from array import array
from binascii import a2b_hex
from pathlib import Path

from dulwich.objects import Blob
from dulwich.pack import create_delta
from hypothesis import given
from hypothesis import strategies as st

from registry.git import pkt
from registry.git.emit import Share, _blocks, _distance, _varied, as_stored, emit, shares
from registry.git.packfile import BLOB, PackFile
from registry.git.plan import Plan, nothing_had
from tests.registry.git.packed import ENVIRONMENT, Depot, git, grow, new_repo


def entry(kind: int, content: bytes, base: bytes = b"") -> bytes:
    return _varied(kind, len(content)) + base + zlib.compress(content)


def pack_of(*entries: bytes) -> bytes:
    made = b"PACK" + (2).to_bytes(4, "big") + len(entries).to_bytes(4, "big") + b"".join(entries)
    return made + hashlib.sha1(made).digest()


def index(folder: Path, pack: bytes) -> set[str]:
    """Let git judge a pack, and list what it holds."""
    client = new_repo(folder)
    subprocess.run(
        ["git", "index-pack", "--strict", "--stdin"],
        cwd=client,
        input=pack,
        check=True,
        capture_output=True,
        env=ENVIRONMENT,
    )
    return set(git(client, "cat-file", "--batch-all-objects", "--batch-check=%(objectname)").decode().split())


def test_two_packs_that_delta_each_others_object_do_not_send_a_circle(tmp_path: Path) -> None:
    one, two = Blob.from_string(b"a" * 5000 + b"one"), Blob.from_string(b"a" * 5000 + b"two")
    texts = {blob.id: blob.data for blob in (one, two)}

    def delta(target: Blob, base: Blob) -> bytes:
        return entry(7, b"".join(create_delta(texts[base.id], texts[target.id])), a2b_hex(base.id))

    source = new_repo(tmp_path / "source")
    for blob in (one, two):
        git(source, "hash-object", "-w", "--stdin", input=blob.data)
    depot = Depot(tmp_path)
    depot.store_pack(source, pack_of(entry(BLOB, one.data), delta(two, one)))
    depot.store_pack(source, pack_of(entry(BLOB, two.data), delta(one, two)))
    manifest = depot.manifests.manifest(depot.rows)
    # Each object is taken from the pack that holds it as a delta upon the other.
    made = []
    for pack in manifest.packs:
        file = pack.file
        offsets = [offset for offset in file.offsets() if file.header(offset).base is not None]
        made.append(Share(file, array("Q", offsets)))
    for order in (made, made[::-1]):
        sent = b"".join(emit(manifest, order, ofs=True, had=nothing_had))
        assert index(tmp_path / f"client{order is made}", sent) == {one.id.decode(), two.id.decode()}


def test_a_pack_that_gives_all_is_sent_as_it_is(tmp_path: Path) -> None:
    source = new_repo(tmp_path / "source")
    grow(source, 20, seed=2)
    depot = Depot(tmp_path)
    row = depot.add(source)
    manifest = depot.manifests.manifest(depot.rows)
    stored = depot.cache.lease(row).pack.read_bytes()
    assert b"".join(as_stored(manifest.packs[0].file)) == stored
    made = shares(manifest, Plan(None, nothing_had))
    assert b"".join(emit(manifest, made, ofs=True, had=nothing_had)) == stored


def test_any_part_of_a_pack_stands_alone(tmp_path: Path) -> None:
    source = new_repo(tmp_path / "source")
    grow(source, 30, seed=4)
    depot = Depot(tmp_path)
    depot.add(source)
    manifest = depot.manifests.manifest(depot.rows)
    file: PackFile = manifest.packs[0].file
    ids = [id for id, offset in file.objects() if file.kind_at(offset) == BLOB]
    for number, part in enumerate((ids[::2], ids[::3], ids[5:9], ids)):
        for ofs in (True, False):
            sent = b"".join(emit(manifest, shares(manifest, Plan(part, nothing_had)), ofs=ofs, had=nothing_had))
            assert index(tmp_path / f"client{number}{ofs}", sent) == {id.hex() for id in part}


@given(kind=st.integers(1, 7), size=st.integers(0, 1 << 40), back=st.integers(1, 1 << 40))
def test_headers_read_back_as_they_were_written(kind: int, size: int, back: int) -> None:
    file = object.__new__(PackFile)
    head = _varied(kind, size)
    file.map = head + (_distance(back) if kind == 6 else bytes(40 if kind == 7 else 1))
    found = file.header(0)
    assert (found.kind, found.size) == (kind, size)
    if kind == 6:
        assert found.base == -back


@given(pieces=st.lists(st.binary(max_size=3000), max_size=20))
def test_regrouping_loses_nothing(pieces: list[bytes]) -> None:
    assert b"".join(_blocks(pieces)) == b"".join(pieces)


def test_large_pieces_leave_in_blocks_that_fill_frames() -> None:
    sizes = [len(block) for block in _blocks([b"x" * 100, b"y" * (3 * pkt.BLOCK), b"z"])]
    assert sizes == [pkt.BLOCK, pkt.BLOCK, pkt.BLOCK, 101]
