"""An index and a sidecar can be made again from packs alone, byte for byte."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from registry.db import Database
from registry.errors import Damaged
from registry.git import rebuild
from registry.git.bases import BasePack, Bases
from registry.git.cache import Lease
from registry.git.intro import Intro
from registry.git.packfile import PackFile
from registry.git.snapshot import ZERO, PackRow
from tests.registry.gate import MAIN, Gate


@pytest.fixture
def gate(sqlite_database: Database, tmp_path: Path) -> Iterator[Gate]:
    """A repo of four pushes: folders, a tag, a pointer, content that comes back, deltas upon older packs."""
    made = Gate(sqlite_database, tmp_path)
    long = b"".join(b"line %d of many\n" % number for number in range(3000))
    files: dict[str, bytes] = {"README.md": b"one\n", "a/b/long.txt": long}
    tip = ""
    for number in range(4):
        files = files | {"a/b/long.txt": long + b"%d\n" % number, f"a/{number % 2}.txt": b"%d" % (number % 2)}
        new = made.commit(files, on=tip or None, message=f"push {number}")
        assert made.push((MAIN, tip or ZERO, new)).error is None
        tip = new
    made.git("tag", "-a", "v1", "-m", "one", tip)
    assert made.push((b"refs/tags/v1", ZERO, made.git("rev-parse", "refs/tags/v1"))).error is None
    yield made
    made.heavy.close()


def opened(gate: Gate) -> list[tuple[PackRow, Lease]]:
    return [(row, gate.packs.lease(row)) for row in gate.repositories.snapshot(1).packs]


def based(packs: list[tuple[PackRow, Lease]]) -> Bases:
    return Bases([BasePack(PackFile(row.id, lease.pack, lease.idx), Intro.open(lease.intro)) for row, lease in packs])


def test_an_index_is_made_again(gate: Gate) -> None:
    for row, lease in opened(gate):
        found = rebuild.facts(lease.pack)
        assert found.index == lease.idx.read_bytes()
        assert found.objects == row.objects


def test_each_sidecar_is_made_again_upon_the_others(gate: Gate) -> None:
    packs = opened(gate)
    assert len(packs) == 5
    for at, (row, lease) in enumerate(packs):
        others = packs[:at] + packs[at + 1 :]
        (made,) = rebuild.sidecars([PackFile(row.id, lease.pack, lease.idx)], based(others))
        assert made == lease.intro.read_bytes()


def test_sidecars_that_are_lost_together_are_made_together(gate: Gate) -> None:
    packs = opened(gate)
    for lost in (packs, packs[::2]):
        kept = [pack for pack in packs if pack not in lost]
        made = rebuild.sidecars([PackFile(row.id, lease.pack, lease.idx) for row, lease in lost], based(kept))
        assert made == [lease.intro.read_bytes() for _, lease in lost]


def test_a_pack_whose_history_is_nowhere_has_no_sidecar(gate: Gate) -> None:
    row, lease = opened(gate)[1]
    with pytest.raises(Damaged, match="missing"):
        rebuild.sidecars([PackFile(row.id, lease.pack, lease.idx)], Bases([]))


@pytest.mark.parametrize("content", [b"", b"PACK", b"PACK\0\0\0\2\0\0\0\1" + b"x" * 40])
def test_what_is_no_pack_is_damage(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.pack").write_bytes(content)
    with pytest.raises(Damaged):
        rebuild.facts(tmp_path / "x.pack")
