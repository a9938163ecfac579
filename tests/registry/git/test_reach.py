"""A walk from tips visits everything once, follows tags, passes submodules by and finds pointers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lfs.pointer import Pointer, canonical
from registry.db import Database
from registry.git.objects import Manifest
from registry.git.reach import Flaw, Pointing, walk
from registry.git.snapshot import ZERO
from tests.registry.gate import MAIN, Gate

OID = "ab" * 32


@pytest.fixture
def gate(sqlite_database: Database, tmp_path: Path) -> Iterator[Gate]:
    """A gate with one commit of a plain file and a linked pointer."""
    made = Gate(sqlite_database, tmp_path)
    made.link(OID, 7)
    first = made.commit({"README.md": b"one\n", "deep/w.bin": canonical(Pointer(OID, 7))})
    assert made.push((MAIN, ZERO, first)).error is None
    yield made
    made.heavy.close()


def tip(gate: Gate) -> str:
    return gate.targets()[MAIN]


def manifest(gate: Gate) -> Manifest:
    return gate.manifests.manifest(gate.repositories.snapshot(1).packs)


def test_a_whole_history_has_no_flaw_and_shows_its_pointers(gate: Gate) -> None:
    (found,) = walk(manifest(gate), [tip(gate), tip(gate)])
    assert isinstance(found, Pointing)
    assert found.pointer == Pointer(OID, 7)


def test_a_tag_is_followed_to_what_it_names(gate: Gate) -> None:
    gate.git("tag", "-a", "v1", "-m", "first", tip(gate))
    tag = gate.git("rev-parse", "v1")
    assert gate.push((b"refs/tags/v1", ZERO, tag)).error is None
    assert [type(found) for found in walk(manifest(gate), [tag])] == [Pointing]


def test_a_submodule_is_no_part_of_the_repo(gate: Gate) -> None:
    tree = gate.git("mktree", "--missing", data=f"160000 commit {'c' * 40}\tsub\n".encode())
    sha = gate.git("commit-tree", tree, "-p", tip(gate), "-m", "with a submodule")
    assert gate.push((MAIN, tip(gate), sha)).error is None
    assert not [found for found in walk(manifest(gate), [sha]) if isinstance(found, Flaw)]


def test_what_is_absent_is_named_with_who_names_it(gate: Gate) -> None:
    first = tip(gate)
    second = gate.commit({"README.md": b"two\n"}, on=first)
    assert gate.push((MAIN, first, second)).error is None
    newest = gate.repositories.snapshot(1).packs[:1]
    flaws = [found for found in walk(gate.manifests.manifest(newest), [second]) if isinstance(found, Flaw)]
    assert [(flaw.sha, flaw.named_by) for flaw in flaws] == [(first, second)]
    (flaw,) = walk(manifest(gate), ["d" * 40])
    assert isinstance(flaw, Flaw)
    assert flaw.named_by == ""
