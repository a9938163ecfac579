"""Two processes never share a slot, and what a crash left in one is swept."""

from __future__ import annotations

from pathlib import Path

from registry.slots import Slot


def test_each_holder_has_a_slot_of_its_own(tmp_path: Path) -> None:
    first, second = Slot(tmp_path), Slot(tmp_path)
    assert first.folder != second.folder
    first.close()
    third = Slot(tmp_path)
    assert third.folder == first.folder
    second.close()
    third.close()
    third.close()


def test_quarantine_is_swept_and_copies_are_kept(tmp_path: Path) -> None:
    slot = Slot(tmp_path)
    (slot.quarantine / "half.pack").write_bytes(b"half")
    (slot.packs / "copy").write_bytes(b"whole")
    slot.close()
    again = Slot(tmp_path)
    assert list(again.quarantine.iterdir()) == []
    assert (again.packs / "copy").read_bytes() == b"whole"
    again.close()


def test_copies_made_before_a_power_cut_are_not_believed(tmp_path: Path) -> None:
    slot = Slot(tmp_path, boot="one")
    (slot.packs / "copy").write_bytes(b"torn")
    (slot.answers / "answer").write_bytes(b"torn")
    slot.close()
    again = Slot(tmp_path, boot="two")
    assert [*again.packs.iterdir(), *again.answers.iterdir()] == []
    (again.packs / "copy").write_bytes(b"whole")
    again.close()
    third = Slot(tmp_path, boot="two")
    assert (third.packs / "copy").read_bytes() == b"whole"
    third.close()
