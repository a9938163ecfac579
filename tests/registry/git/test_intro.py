"""The introduced sidecar: what is written is read, what is damaged is refused."""

import hashlib
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.git import intro
from registry.git.intro import Intro, IntroError, NewRow, PointerRow, TreeStats

SHA = st.binary(min_size=20, max_size=20)
U64 = st.integers(0, 2**64 - 1)
ROW = st.builds(
    NewRow,
    sha=SHA,
    tree=SHA,
    time=U64,
    generation=st.integers(0, 2**32 - 1),
    parents=st.lists(SHA, max_size=3).map(tuple),
    entries=st.lists(SHA, max_size=5).map(b"".join),
    flags=st.sampled_from([0, intro.TAG]),
)
TREE = st.tuples(SHA, st.builds(TreeStats, U64, st.integers(0, 65535)))
POINTER = st.builds(PointerRow, SHA, st.binary(min_size=32, max_size=32), U64)


@given(
    st.lists(ROW, unique_by=lambda row: row.sha),
    st.lists(TREE, unique_by=lambda tree: tree[0]),
    st.lists(POINTER, unique_by=lambda pointer: pointer.blob),
)
def test_what_is_written_is_read(rows, trees, pointers):
    read = Intro(intro.encode(rows, trees, pointers))
    assert len(read) == len(rows)
    assert [row.sha for row in read] == sorted(row.sha for row in rows)
    for row in rows:
        found = read.commit(row.sha)
        assert found is not None
        assert (found.tree, found.time, found.generation, found.flags) == (
            row.tree,
            row.time,
            row.generation,
            row.flags,
        )
        assert found.is_tag == bool(row.flags)
        assert read.row(found.ordinal) == found
        assert read.parents(found) == row.parents
        assert read.entries(found) == row.entries
        for one in intro.ids(row.entries):
            assert found.ordinal in list(read.introducers(one))
            assert read.introducer(one) is not None
    assert all(read.tree_stats(sha) == stats for sha, stats in trees)
    assert list(read.trees()) == sorted(trees)
    assert list(read.pointers()) == sorted(pointers)
    assert all(read.pointer(pointer.blob) == pointer for pointer in pointers)


def test_what_was_not_written_is_absent():
    read = Intro(intro.encode([NewRow(b"c" * 20, b"t" * 20, 1, 1, (), b"c" * 20)], [], []))
    for other in (b"a" * 20, b"d" * 20):
        assert read.commit(other) is None
        assert read.introducer(other) is None
        assert read.tree_stats(other) is None
        assert read.pointer(other) is None
    with pytest.raises(IntroError):
        read.row(1)


def test_an_object_brought_twice_names_both_commits():
    shared = b"s" * 20
    rows = [NewRow(bytes([n]) * 20, b"t" * 20, n, n, (), bytes([n]) * 20 + shared) for n in (1, 2)]
    read = Intro(intro.encode(rows, [], []))
    assert {read.row(place).sha for place in read.introducers(shared)} == {row.sha for row in rows}


def test_the_order_of_arguments_does_not_matter():
    rows = [NewRow(bytes([n]) * 20, b"t" * 20, n, n, (), bytes([n]) * 20) for n in range(9)]
    trees = [(bytes([n]) * 20, TreeStats(n, 1)) for n in range(9)]
    assert intro.encode(rows, trees, []) == intro.encode(rows[::-1], trees[::-1], [])


@given(st.binary(max_size=200))
def test_garbage_raises_only_our_error(data):
    with pytest.raises(IntroError):
        Intro(data)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "intro")
        path.write_bytes(data)
        with pytest.raises(IntroError):
            Intro.open(path)


@given(st.data())
def test_garbage_behind_a_true_checksum_raises_only_our_error(data):
    good = intro.encode(
        [NewRow(b"c" * 20, b"t" * 20, 1, 1, (b"p" * 20,), b"c" * 20 + b"t" * 20)],
        [(b"t" * 20, TreeStats(0, 1))],
        [PointerRow(b"b" * 20, b"o" * 32, 3)],
    )
    body = bytearray(good[:-32])
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    try:
        read = Intro(bytes(body) + hashlib.sha256(body).digest())
        for row in read:
            read.parents(row)
            read.entries(row)
        for place in read.introducers(b"t" * 20):
            read.row(place)
        list(read.trees())
        list(read.pointers())
        read.commit(b"c" * 20)
    except IntroError:
        pass


@pytest.mark.parametrize("place", [0, 9, 13, 45, 60, -33, -1])
def test_a_changed_byte_is_noticed(place):
    data = bytearray(intro.encode([NewRow(b"c" * 20, b"t" * 20, 1, 1, (), b"c" * 20)], [], []))
    data[place] ^= 1
    with pytest.raises(IntroError):
        Intro(bytes(data))


def test_a_file_is_mapped_and_given_back(tmp_path):
    path = tmp_path / "x.intro"
    path.write_bytes(intro.encode([NewRow(b"c" * 20, b"t" * 20, 7, 1, (), b"c" * 20)], [], []))
    with Intro.open(path) as read:
        assert read.commit(b"c" * 20).time == 7
    assert Intro.open(path, verify=False).entry_count == 1
