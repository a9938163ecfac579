"""Branches and tags come, go and are squashed through the same gate as a push."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from registry.errors import BadBody, BadName, Exists, NotAllowed, RevisionAbsent
from registry.git.snapshot import ZERO
from registry.receive import Update
from tests.registry.gate import MAIN
from tests.registry.writing import BY_ANN, Writing


@pytest.fixture
def desk(database, tmp_path):
    made = Writing(database, tmp_path)
    made.commit(("put", "README.md", b"# One\n"), message="First")
    made.commit(("put", "a.txt", b"a"), message="Second")
    yield made
    made.gate.heavy.close()


def heads(name):
    return b"refs/heads/" + name.encode()


def test_a_branch_starts_at_the_default_branch_or_where_it_is_told(desk):
    first = desk.parents(desk.tip())[0]
    desk.branches.create(1, BY_ANN, "dev")
    desk.branches.create(1, BY_ANN, "feature/x", start=first[:10])
    desk.branches.create(1, BY_ANN, "same", start="dev")
    assert desk.tip(heads("dev")) == desk.tip(heads("same")) == desk.tip()
    assert desk.tip(heads("feature/x")) == first


def test_a_branch_that_exists_is_told_and_may_be_overwritten(desk):
    first = desk.parents(desk.tip())[0]
    desk.branches.create(1, BY_ANN, "dev", start=first)
    with pytest.raises(Exists, match=r"^Reference refs/heads/dev already exists$"):
        desk.branches.create(1, BY_ANN, "dev")
    assert desk.tip(heads("dev")) == first
    desk.branches.create(1, BY_ANN, "dev", overwrite=True)
    assert desk.tip(heads("dev")) == desk.tip()
    desk.branches.create(1, BY_ANN, "dev", overwrite=True)


def test_an_empty_branch_has_a_commit_without_files(desk):
    desk.branches.create(1, BY_ANN, "blank", empty=True)
    sha = desk.tip(heads("blank"))
    assert desk.parents(sha) == []
    assert desk.files("blank") == {}
    desk.commit(("put", "x", b"1"), on="blank")
    assert desk.files("blank") == {"x": b"1"}


@pytest.mark.parametrize(
    "name", ["refs/pr/5", "a b", "a..b", "", "-x", "HEAD", "a.lock", "x/", "f" * 40, "a\ud800", "é\x7f"]
)
def test_bad_branch_and_tag_names_are_refused(desk, name):
    with pytest.raises(BadName, match="Invalid reference for a branch"):
        desk.branches.create(1, BY_ANN, name)
    with pytest.raises(BadName, match="Invalid reference for a tag"):
        desk.branches.create_tag(1, BY_ANN, name, "main")


def test_a_branch_may_have_the_name_of_a_tag(desk):
    desk.branches.create_tag(1, BY_ANN, "v1", "main")
    desk.branches.create(1, BY_ANN, "v1")
    assert desk.tip(heads("v1")) == desk.tip(b"refs/tags/v1")


def test_a_branch_cannot_stand_where_another_has_its_folder(desk):
    desk.branches.create(1, BY_ANN, "a/b")
    with pytest.raises(NotAllowed, match="stands in the way"):
        desk.branches.create(1, BY_ANN, "a")


def test_an_unknown_start_makes_nothing(desk):
    before = desk.gate.targets()
    with pytest.raises(RevisionAbsent):
        desk.branches.create(1, BY_ANN, "dev", start="nowhere")
    with pytest.raises(RevisionAbsent):
        desk.branches.create_tag(1, BY_ANN, "v1", "nowhere")
    assert desk.gate.targets() == before


def test_a_branch_is_deleted_unless_it_is_the_default_one(desk):
    desk.branches.create(1, BY_ANN, "feature/x")
    desk.branches.delete(1, BY_ANN, "feature/x")
    assert heads("feature/x") not in desk.gate.targets()
    with pytest.raises(NotAllowed, match=r"^Cannot delete refs/heads/main$"):
        desk.branches.delete(1, BY_ANN, "main")
    assert desk.tip() is not None


def test_what_is_no_branch_cannot_be_deleted_as_one(desk):
    desk.branches.create_tag(1, BY_ANN, "v1", "main")
    for name in ("v1", "nothing", "refs/tags/v1", desk.tip()):
        with pytest.raises(RevisionAbsent, match=f"^Invalid rev id: {name}$"):
            desk.branches.delete(1, BY_ANN, name)
    with pytest.raises(RevisionAbsent, match=r"^Invalid rev id: main$"):
        desk.branches.delete_tag(1, BY_ANN, "main")


def test_a_tag_is_light_or_says_something(desk):
    tip = desk.tip()
    desk.branches.create_tag(1, BY_ANN, "v1", "main")
    desk.branches.create_tag(1, BY_ANN, "v2", tip[:8], "Two\n\nis better")
    refs = desk.gate.refs()
    assert (refs[b"refs/tags/v1"].target, refs[b"refs/tags/v1"].peeled) == (tip, None)
    assert refs[b"refs/tags/v2"].peeled == tip
    text = desk.text(refs[b"refs/tags/v2"].target)
    assert text.startswith(f"object {tip}\ntype commit\ntag v2\ntagger ann <ann@users.noreply.weightroom> ")
    assert text.endswith("\n\nTwo\n\nis better\n")
    assert desk.resolved("v2").commit == tip


def test_a_tag_that_exists_stays_where_it_is(desk):
    desk.branches.create_tag(1, BY_ANN, "v1", "main")
    with pytest.raises(Exists, match=r"^Reference refs/tags/v1 already exists$"):
        desk.branches.create_tag(1, BY_ANN, "v1", "main")
    desk.branches.delete_tag(1, BY_ANN, "v1")
    with pytest.raises(RevisionAbsent):
        desk.branches.delete_tag(1, BY_ANN, "v1")


def test_squashing_keeps_the_files_and_drops_the_history(desk):
    before, files = desk.tip(), desk.files()
    made = desk.branches.squash(1, BY_ANN, "main", "All in one")
    assert desk.tip() == made != before
    assert desk.files() == files
    assert desk.parents(made) == []
    assert desk.text(made).endswith("\n\nAll in one\n")
    assert desk.branches.squash(1, BY_ANN, "main", "All in one") == made


def test_only_a_branch_can_be_squashed(desk):
    desk.branches.create_tag(1, BY_ANN, "v1", "main")
    for revision in ("v1", desk.tip()):
        with pytest.raises(BadBody):
            desk.branches.squash(1, BY_ANN, revision)
    with pytest.raises(RevisionAbsent):
        desk.branches.squash(1, BY_ANN, "nothing")
    pull = b"refs/pr/1"
    assert desk.gate.receiver.accept(1, BY_ANN, [Update(pull, ZERO, desk.tip())], None).error is None
    assert desk.branches.squash(1, BY_ANN, "refs/pr/1") == desk.tip(pull)


def test_of_two_that_make_one_branch_one_is_told_that_it_exists(desk):
    start = threading.Barrier(2)

    def work(number):
        start.wait(timeout=30)
        try:
            desk.branches.create(1, BY_ANN, "dev", empty=bool(number))
        except Exists:
            return 1
        return 0

    with ThreadPoolExecutor(2) as pool:
        assert sum(pool.map(work, range(2))) == 1


def test_an_empty_repo_has_nothing_to_branch_from(database, tmp_path):
    desk = Writing(database, tmp_path)
    with pytest.raises(RevisionAbsent):
        desk.branches.create(1, BY_ANN, "dev")
    with pytest.raises(RevisionAbsent):
        desk.branches.squash(1, BY_ANN, "main")
    assert MAIN not in desk.gate.targets()
    assert desk.leftovers() == []
