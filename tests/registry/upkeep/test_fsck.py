"""fsck finds what somebody or something broke, says it in a line, and says nothing about a house in order."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from lfs.pointer import Pointer, canonical
from registry.db import Database, now
from registry.git.cache import PackCache
from registry.git.objects import ManifestStore
from registry.git.repository import Repositories
from registry.git.snapshot import ZERO, pack_key
from registry.tables.objects import lfs_links, lfs_objects, packs, repo_packs
from registry.tables.repos import refs, repos
from registry.upkeep.findings import Finding
from registry.upkeep.fsck import Fsck
from tests.registry.gate import MAIN, Gate

LARGE = b"weights" * 1000
OID = hashlib.sha256(LARGE).hexdigest()


@pytest.fixture
def gate(sqlite_database: Database, tmp_path: Path) -> Iterator[Gate]:
    """A repo with two pushes, one of them with an LFS pointer whose bytes are stored and linked."""
    made = Gate(sqlite_database, tmp_path)
    made.store.put(f"lfs/{OID[:2]}/{OID[2:4]}/{OID}", LARGE, len(LARGE), OID)
    made.link(OID, len(LARGE))
    first = made.commit({"README.md": b"one\n"})
    assert made.push((MAIN, ZERO, first)).error is None
    second = made.commit({"README.md": b"two\n", "w.bin": canonical(Pointer(OID, len(LARGE)))}, on=first)
    assert made.push((MAIN, first, second)).error is None
    yield made
    made.heavy.close()


def found(gate: Gate, *, read_data: bool = False) -> list[Finding]:
    """Check with fresh caches, as the command does."""
    cache = PackCache(gate.store, gate.folder / "cache2", 1 << 30)
    checked = Fsck(
        database=gate.database,
        store=gate.store,
        packs=cache,
        manifests=ManifestStore(cache),
        repositories=Repositories(gate.database),
    )
    return list(checked.run(read_data=read_data))


def rows(gate: Gate) -> list[sa.Row[tuple[object, ...]]]:
    with gate.database.read() as connection:
        return list(connection.execute(sa.select(packs).order_by(packs.c.created_at)))


def path_of(gate: Gate, oid: str) -> Path:
    path = gate.store.stat(pack_key(oid)).path
    assert path is not None
    return path


def rot(path: Path, at: int = -30) -> None:
    """Flip a byte, as a bad disk does."""
    data = bytearray(path.read_bytes())
    data[at] ^= 0xFF
    path.chmod(0o644)
    path.write_bytes(data)


def change(gate: Gate, statement: sa.Update | sa.Delete) -> None:
    with gate.database.write() as connection:
        connection.exec_driver_sql("PRAGMA defer_foreign_keys=ON")
        connection.execute(statement)


def test_a_house_in_order_has_no_findings(gate: Gate) -> None:
    assert found(gate, read_data=True) == []


@pytest.mark.parametrize("column", ["id", "idx_oid", "intro_oid"])
def test_a_lost_file_of_a_pack_is_found(gate: Gate, column: str) -> None:
    oid = getattr(rows(gate)[0], column)
    gate.store.delete(pack_key(oid))
    findings = found(gate)
    assert (findings[0].check, findings[0].subject) == ("packs", oid)
    assert "missing" in findings[0].text
    assert any(finding.check == "refs" for finding in findings)


@pytest.mark.parametrize("column", ["id", "idx_oid", "intro_oid"])
def test_rot_is_found_by_reading_every_byte(gate: Gate, column: str) -> None:
    oid = getattr(rows(gate)[0], column)
    rot(path_of(gate, oid))
    assert any(finding.subject == oid and "other bytes" in finding.text for finding in found(gate, read_data=True))


def test_a_cut_file_is_found_without_reading_it(gate: Gate) -> None:
    path = path_of(gate, rows(gate)[0].id)
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1])
    assert "its row says" in found(gate)[0].text


def test_an_index_of_another_pack_is_found(gate: Gate) -> None:
    first, second = rows(gate)
    size = second.idx_bytes
    change(gate, sa.update(packs).where(packs.c.id == first.id).values(idx_oid=second.idx_oid, idx_bytes=size))
    assert any(finding.check == "packs" and finding.kind in ("index", "pack") for finding in found(gate))


def test_a_sidecar_of_another_pack_is_found(gate: Gate) -> None:
    first, second = rows(gate)
    values = {"intro_oid": second.intro_oid, "intro_bytes": second.intro_bytes}
    change(gate, sa.update(packs).where(packs.c.id == first.id).values(values))
    assert any(finding.kind == "sidecar" and "lacks" in finding.text for finding in found(gate))


def test_a_ref_without_its_object_is_found(gate: Gate) -> None:
    change(gate, sa.update(refs).values(target="a" * 40))
    assert any(finding.kind == "ref" and "a" * 40 in finding.text for finding in found(gate))


def test_history_that_a_pack_took_with_it_is_found(gate: Gate) -> None:
    first = rows(gate)[0]
    change(gate, sa.delete(repo_packs).where(repo_packs.c.pack_id == first.id))
    with gate.database.write() as connection:
        connection.exec_driver_sql("UPDATE repos SET manifest_version = manifest_version + 1")
    finding, total = found(gate)
    assert finding.kind == "object"
    assert "named by" in finding.text
    assert (total.check, total.kind) == ("sums", "repo")


def test_a_pack_on_its_way_out_that_is_still_used_is_found(gate: Gate) -> None:
    change(gate, sa.update(packs).values(state="condemned"))
    assert {finding.check for finding in found(gate)} == {"packs"}


def test_lost_and_rotten_objects_are_found(gate: Gate) -> None:
    key = f"lfs/{OID[:2]}/{OID[2:4]}/{OID}"
    path = gate.store.stat(key).path
    assert path is not None
    rot(path)
    assert found(gate) == []
    (finding,) = found(gate, read_data=True)
    assert (finding.check, finding.subject) == ("objects", OID)
    gate.store.delete(key)
    (finding,) = found(gate)
    assert "missing" in finding.text


def test_a_pointer_without_its_link_is_found(gate: Gate) -> None:
    change(gate, sa.delete(lfs_links))
    finding, total = found(gate)
    assert (finding.check, finding.kind) == ("links", "pointer")
    assert OID in finding.text
    assert total.check == "sums"


def test_a_link_of_another_size_is_found(gate: Gate) -> None:
    change(gate, sa.update(lfs_links).values(size=7))
    assert {finding.kind for finding in found(gate)} == {"pointer", "LFS object", "repo"}


def test_a_damaged_object_is_found_while_a_repo_links_it(gate: Gate) -> None:
    change(gate, sa.update(lfs_objects).values(state="damaged"))
    assert {finding.check for finding in found(gate)} == {"objects"}
    change(gate, sa.delete(lfs_links))
    assert {finding.check for finding in found(gate)} == {"links", "sums"}


def test_an_object_that_waits_for_deletion_and_is_linked_is_found(gate: Gate) -> None:
    change(gate, sa.update(lfs_objects).values(state="condemned"))
    (finding,) = found(gate, read_data=True)
    assert (finding.check, finding.subject) == ("links", OID)


def test_a_pack_whose_bytes_are_on_their_way_is_no_finding(gate: Gate) -> None:
    row = dict.fromkeys(("id", "idx_oid", "intro_oid"), "f" * 64) | {"git_sha1": "f" * 40, "why": "push"}
    sizes = dict.fromkeys(("bytes", "objects", "commits", "idx_bytes", "intro_bytes"), 7)
    with gate.database.write() as connection:
        connection.execute(sa.insert(packs).values(row | sizes | {"state": "stored", "created_at": now()}))
    assert found(gate, read_data=True) == []


def test_wrong_sums_are_found(gate: Gate) -> None:
    change(gate, sa.update(repos).values(git_bytes=1, lfs_bytes=2))
    assert [finding.text.split(",")[0] for finding in found(gate)] == ["counts 2 bytes of LFS", "counts 1 bytes of git"]


def test_findings_are_one_line_and_json(gate: Gate) -> None:
    change(gate, sa.delete(lfs_links))
    finding, _ = found(gate)
    assert "\n" not in finding.line()
    assert set(finding.fields()) == {"check", "kind", "subject", "text"}
