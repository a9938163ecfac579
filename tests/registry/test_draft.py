"""A draft holds checked operations in the order they came."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.draft import Delete, Draft, DraftLimits, PutFile, PutLarge
from registry.errors import BadBody, BadPath, RegistryError, SizeMismatch, TooLarge

OID = "0f" * 32


def draft(folder, *, portable="refuse", **limits):
    return Draft(folder, "x", limits=DraftLimits(**limits), portable=portable)


def test_operations_stay_in_order_and_files_go_to_disk(tmp_path):
    with draft(tmp_path) as made:
        made.head("Title", "Words", "abcdef0")
        made.file("a", 3, [b"a", b"bc"])
        made.large_file("w.bin", OID, None)
        made.delete("/old/")
        kept = made.operations
        assert (made.message, made.parent) == ("Title\n\nWords", "abcdef0")
        assert made.spool.inflated == 3
        assert len(list(tmp_path.iterdir())) == 1
    assert [type(one) for one in kept] == [PutFile, PutLarge, Delete]
    assert kept[1:] == [PutLarge(b"w.bin", OID, None), Delete(b"old")]
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_another_size_than_announced_is_refused(tmp_path):
    with draft(tmp_path) as made, pytest.raises(SizeMismatch):
        made.file("a", 5, [b"four"])


@pytest.mark.parametrize("oid", ["", OID.upper(), OID[:-1], "sha256:" + OID, OID + "\n"])
def test_an_lfs_file_has_a_sha256(tmp_path, oid):
    with draft(tmp_path) as made, pytest.raises(BadBody):
        made.large_file("a", oid, 1)


def test_names_that_other_systems_cannot_hold_follow_the_policy(tmp_path):
    with draft(tmp_path) as made, pytest.raises(BadPath):
        made.file("con.txt", 0, [])
    with draft(tmp_path, portable="off") as made:
        made.file("con.txt", 0, [])
        with pytest.raises(BadPath):
            made.file(".git/x", 0, [])
        made.delete("any\\name")


def test_limits_are_named(tmp_path):
    with draft(tmp_path, operations=2, file=4, inline=6) as made:
        with pytest.raises(TooLarge, match="WEIGHTROOM_MAX_BLOB"):
            made.file("a", 5, [b"12345"])
        made.file("a", 4, [b"1234"])
        with pytest.raises(TooLarge, match="6 bytes"):
            made.file("b", 4, [b"1234"])
        made.delete("c")
        with pytest.raises(TooLarge, match="2 operations"):
            made.delete("d")


@given(st.text(), st.text(max_size=70), st.one_of(st.none(), st.integers()))
def test_garbage_is_refused_in_our_words(tmp_path_factory, path, oid, size):
    with draft(tmp_path_factory.mktemp("d")) as made:
        for act in (lambda: made.file(path, 0, []), lambda: made.large_file(path, oid, size)):
            try:
                act()
            except RegistryError:
                pass
        try:
            made.delete(path)
        except BadPath:
            pass


@pytest.mark.timeout(20)
def test_a_path_of_millions_of_parts_costs_nothing(tmp_path):
    path = "a/" * 20_000_000
    with draft(tmp_path) as made:
        for act in (lambda: made.file(path, 0, []), lambda: made.large_file(path, OID, 1), lambda: made.delete(path)):
            with pytest.raises(BadPath):
                act()
