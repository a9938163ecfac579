"""Trees beyond the memory budget are read again, and nothing that is written depends on the budget."""

import pytest

from registry.errors import Damaged
from registry.git import forest, ingest
from registry.git.forest import Forest
from registry.git.intro import MOST_FILES, TreeStats
from registry.git.snapshot import ZERO
from registry.git.verdict import Job, Update
from tests.registry.git.packed import grow, new_repo
from tests.registry.git.pushed import MAIN, Bench, pack_of, rev, tree


def absent(sha):
    raise Damaged("absent")


def test_a_small_budget_changes_nothing_but_time(tmp_path, monkeypatch):
    source = new_repo(tmp_path / "source")
    commits = grow(source, 30)
    data = [pack_of(source, (rev(source, "main"), rev(source, "side"))), pack_of(source, (commits[20],))]
    seen = []
    for name, budget in (("wide", None), ("narrow", 20)):
        (tmp_path / name).mkdir()
        if budget is not None:
            for constant in ("_PARSED_ENTRIES", "_SHARED_ENTRIES", "_RAW_BYTES"):
                monkeypatch.setattr(forest, constant, budget)
        bench = Bench(tmp_path / name)
        verdicts = [bench.push(data[1], (MAIN, ZERO, commits[20])), bench.push(data[0], (MAIN, ZERO, commits[-1]))]
        seen.append([(one.pack.intro.sha256, one.tips, one.fast_forward) for one in verdicts])
    assert seen[0] == seen[1]


def test_equal_entries_are_kept_once_and_only_new_ones_are_told():
    woods = Forest(lambda sha: None, absent)
    one = [(b"100644", b"a", b"1" * 20), (b"100644", b"b", b"2" * 20)]
    two = [(b"100644", b"a", b"1" * 20), (b"100644", b"b", b"3" * 20)]
    assert woods.add(b"x" * 20, tree(*one), one) == one
    assert woods.add(b"y" * 20, tree(*two), two) == two[1:]
    assert woods.entries(b"y" * 20) == frozenset(two)
    assert b"x" * 20 in woods
    assert b"z" * 20 not in woods


def test_shapes_of_bombs_stop_at_the_largest_number():
    woods = Forest(lambda sha: None, lambda sha: TreeStats(MOST_FILES, 65_535))
    entries = [(b"40000", b"a", b"1" * 20), (b"40000", b"b", b"1" * 20)]
    woods.add(b"x" * 20, tree(*entries), entries)
    assert woods.stats(b"x" * 20) == TreeStats(MOST_FILES, 65_535)
    assert woods.all_stats() == [(b"x" * 20, TreeStats(MOST_FILES, 65_535))]


@pytest.mark.parametrize("content", [None, b"junk"])
def test_a_tree_that_cannot_be_read_is_damage(content):
    with pytest.raises(Damaged):
        Forest(lambda sha: content, absent).entries(b"x" * 20)


def test_an_empty_tree_has_no_files(tmp_path):
    woods = Forest(lambda sha: b"", absent)
    woods.add(b"x" * 20, b"", [])
    assert woods.stats(b"x" * 20) == TreeStats(0, 1)
    assert woods.entries(b"x" * 20) == frozenset()
    assert ingest.check(Job(None, (), (Update(MAIN, ZERO, ZERO),))).tips == {}
