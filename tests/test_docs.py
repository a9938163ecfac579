"""The reference pages say what the code says, and links between pages lead somewhere."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])


def test_the_reference_is_in_step_with_the_code() -> None:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    behind = [name for name, text in generate.pages().items() if (generate.PAGES / name).read_text() != text]
    assert not behind, "run docs/generate.py"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text())
    assert not [target for target in targets if not (page.parent / target).exists()]


def test_a_change_note_has_a_kind() -> None:
    for note in (ROOT / "docs" / "changes" / "unreleased").glob("*.md"):
        assert re.match(r"kind: (added|changed|fixed|security)\n\n\S", note.read_text()), note.name
