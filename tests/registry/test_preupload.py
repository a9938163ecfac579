"""Files are sorted by the first rule that fits."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.attributes import Attributes
from registry.errors import BadPath, RevisionAbsent, TooLarge
from registry.preupload import LARGE, LARGE_BINARY, Announced, goes_to_lfs, is_binary
from tests.registry.writing import BY_ANN, Writing


@given(st.text(), st.integers(0, 3))
def test_text_is_text_also_when_its_last_character_is_cut(text, cut):
    whole = (text.replace("\0", "") + "€").encode()
    assert not is_binary(whole[: len(whole) - min(cut, 2)])


@pytest.mark.parametrize("sample", [b"\0", b"text\0text", b"\xff", b"\xc3(", b"\xed\xa0\x80"])
def test_what_is_no_text_is_binary(sample):
    assert is_binary(sample)


@pytest.mark.parametrize(
    ("path", "size", "sample", "lfs"),
    [
        ("a.bin", 0, b"", False),
        ("a.bin", 1, b"x", True),
        ("keep.bin", LARGE + 1, b"\0", False),
        ("a.txt", LARGE, b"x", False),
        ("a.txt", LARGE + 1, b"x", True),
        ("a.dat", LARGE_BINARY - 1, b"\0", False),
        ("a.dat", LARGE_BINARY, b"\0", True),
    ],
)
def test_the_first_rule_that_fits_decides(path, size, sample, lfs):
    attributes = Attributes({"": b"*.bin filter=lfs\nkeep.bin !filter\n"})
    assert goes_to_lfs(Announced(path, size, sample), attributes) is lfs


def test_rules_of_the_revision_count(database, tmp_path):
    desk = Writing(database, tmp_path)
    desk.commit(("put", ".gitattributes", b"*.a filter=lfs\n"), ("put", "é/.gitattributes", b"*.a -filter\n"))
    desk.branches.create(1, BY_ANN, "other", empty=True)
    files = [Announced(path, 5, b"text") for path in ("x.a", "é/x.a")]
    tip, found = desk.preupload.sort(desk.visit(), "main", files)
    assert tip == desk.tip()
    assert [one.lfs for one in found] == [True, False]
    _, found = desk.preupload.sort(desk.visit(), "other", files)
    assert [one.lfs for one in found] == [False, False]
    with pytest.raises(RevisionAbsent):
        desk.preupload.sort(desk.visit(), "nothing", files)


def test_rules_and_paths_beyond_reason_are_refused(database, tmp_path):
    desk = Writing(database, tmp_path)
    line = b"*a" * 100 + b"*b filter=lfs\n"
    desk.commit(("put", "slow/.gitattributes", line * 1000), ("put", "big/.gitignore", b"x\n" * (1 << 20)))
    desk.commit(("put", "big/sub/.gitignore", b"y\n"))
    with pytest.raises(TooLarge, match="complicated patterns"):
        desk.preupload.sort(desk.visit(), "main", [Announced("slow/" + "a" * 250, 5, b"text")] * 50)
    with pytest.raises(TooLarge, match="shorten them"):
        desk.preupload.sort(desk.visit(), "main", [Announced("big/sub/x", 5, b"text")])
    for path in ("a" * 4097, "a/" * 200 + "x"):
        with pytest.raises(BadPath):
            desk.preupload.sort(desk.visit(), "main", [Announced(path, 5, b"text")])
