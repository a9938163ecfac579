"""A name from the Hub means one ref, or nothing."""

import pytest

from registry.errors import BadBody, BadName, RevisionAbsent
from registry.git.snapshot import Ref, Snapshot
from registry.git.targets import branch_ref, tag_ref, writable_ref

SHA = "1" * 40


def snapshot(*names, head=b"refs/heads/main"):
    refs = {name: Ref(name, SHA) for name in sorted(names)}
    return Snapshot(1, head, refs, 1, 1, 0, None, ())


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        ("main", b"refs/heads/main"),
        ("HEAD", b"refs/heads/main"),
        ("refs/heads/main", b"refs/heads/main"),
        ("a/b", b"refs/heads/a/b"),
        ("refs/pr/1", b"refs/pr/1"),
        ("v1", b"refs/heads/v1"),
        ("refs/odd", b"refs/heads/refs/odd"),
    ],
)
def test_branches_and_pull_requests_can_be_written_to(asked, meant):
    names = (b"main", b"a/b", b"v1", b"refs/odd")
    here = snapshot(*(b"refs/heads/" + name for name in names), b"refs/pr/1", b"refs/tags/v1")
    assert writable_ref(here, asked) == meant


@pytest.mark.parametrize("asked", ["v1", "refs/tags/v1", SHA])
def test_tags_and_commits_cannot(asked):
    with pytest.raises(BadBody):
        writable_ref(snapshot(b"refs/heads/main", b"refs/tags/v1"), asked)


@pytest.mark.parametrize("asked", ["none", "refs/pr/2", "refs/internal/x", "", "\ud800"])
def test_what_is_not_there_cannot_either(asked):
    with pytest.raises(RevisionAbsent):
        writable_ref(snapshot(b"refs/heads/main", b"refs/internal/y"), asked)


def test_a_repo_without_branches_may_begin_with_the_default_one_only():
    assert writable_ref(snapshot(), "main") == writable_ref(snapshot(), "HEAD") == b"refs/heads/main"
    assert writable_ref(snapshot(b"refs/tags/v1"), "refs/heads/main") == b"refs/heads/main"
    with pytest.raises(RevisionAbsent):
        writable_ref(snapshot(), "dev")
    with pytest.raises(RevisionAbsent):
        writable_ref(snapshot(b"refs/heads/dev"), "main")


def test_names_of_refs_to_be_made_are_checked():
    assert (branch_ref("a/b"), tag_ref("v1.0")) == (b"refs/heads/a/b", b"refs/tags/v1.0")
    for name in ("refs/heads/x", SHA, "HEAD", "a b", "x" * 300):
        with pytest.raises(BadName):
            branch_ref(name)
