"""Repos are made with a first commit, removed without losing bytes, and moved without losing their old name."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from registry.access import ANONYMOUS
from registry.errors import (
    BadBody,
    BadName,
    Exists,
    NeedsLogin,
    NotAllowed,
    ObjectAbsent,
    QuotaExceeded,
    RepoAbsent,
    TooLarge,
)
from registry.names import RepoId
from registry.repos import Changes, NewRepo, Repos
from registry.starting import first_files
from registry.tables.identity import namespaces
from registry.tables.objects import lfs_uploads
from registry.tables.repos import repos as rows
from registry.tables.work import events
from registry.xet_following import Following
from tests.registry import people
from tests.registry.writing import ANN, Writing


@pytest.fixture
def desk(database, tmp_path):
    made = Writing(database, tmp_path)
    yield made
    made.gate.heavy.close()


def acts(desk):
    with desk.database.read() as connection:
        chosen = sa.select(events.c.act, events.c.subject, events.c.body).order_by(events.c.id)
        return [tuple(row) for row in connection.execute(chosen) if row.act.startswith("repo.")]


def make(desk, name="new", **more):
    return desk.repos.create(ANN, NewRepo(more.pop("type", "model"), name, **more))


@pytest.mark.parametrize("kind", ["model", "dataset", "space"])
def test_a_new_repo_has_its_first_commit(desk, kind):
    row_id, name = make(desk, type=kind, sdk="gradio" if kind == "space" else "")
    assert name == RepoId(kind, "ann", "new")
    snapshot = desk.gate.repositories.snapshot(row_id)
    at = desk.revisions.resolve_in(snapshot, "main")
    [entry] = desk.revisions.tree(at, "", recursive=True, limit=10).entries
    assert (entry.path, desk.revisions.blob(at, entry, 1 << 20)) == (
        b".gitattributes",
        first_files(kind)[".gitattributes"],
    )
    commit = desk.gate.manifests.manifest(snapshot.packs).read(at.commit)[1].decode()
    assert commit.endswith("\n\ninitial commit\n")
    assert "parent" not in commit
    assert acts(desk) == [("repo.create", name.web, {"private": False})]


def test_a_taken_name_is_told_with_the_place_of_the_repo(desk):
    with pytest.raises(Exists, match=r"^You already created this model repo: ann/one$") as caught:
        make(desk, "ONE")
    assert caught.value.path == "ann/one"
    make(desk, "one", type="dataset")
    with pytest.raises(Exists) as caught:
        make(desk, "one", type="dataset")
    assert caught.value.path == "datasets/ann/one"


def test_who_may_create_and_where(desk):
    org = people.add_namespace(desk.database, "Lab", "org")
    with pytest.raises(NotAllowed):
        make(desk, namespace="bob")
    with pytest.raises(NotAllowed):
        make(desk, namespace="lab")
    with pytest.raises(NotAllowed):
        make(desk, namespace="nobody")
    with pytest.raises(NeedsLogin):
        desk.repos.create(ANONYMOUS, NewRepo("model", "new", "ann"))
    people.add_member(desk.database, org, 1, "write")
    assert make(desk, namespace="lab")[1] == RepoId("model", "Lab", "new")


@pytest.mark.parametrize("name", ["", "a/b", ".x", "x.git", "a--b", "x" * 97])
def test_bad_names_make_nothing(desk, name):
    with pytest.raises(BadName):
        make(desk, name)
    assert acts(desk) == []


def test_a_space_says_how_it_runs(desk):
    with pytest.raises(BadBody, match="sdk"):
        make(desk, type="space")


def test_of_many_that_create_one_repo_one_wins(desk):
    def work(_):
        try:
            return make(desk)[0]
        except Exists:
            return None

    with ThreadPoolExecutor(4) as pool:
        assert len([one for one in pool.map(work, range(4)) if one is not None]) == 1


def test_a_repo_whose_first_commit_is_refused_was_never_made(desk):
    def refuse(*_):
        raise TooLarge("no room")

    quotas, following = desk.gate.linked.quotas, Following(desk.database, "namespace")
    broken = Repos(desk.database, desk.access, quotas, start=refuse, following=following)
    with pytest.raises(TooLarge):
        broken.create(ANN, NewRepo("model", "new"))
    with pytest.raises(RepoAbsent):
        desk.visit("new")
    make(desk)


def test_a_deleted_repo_is_gone_at_once_and_its_name_is_free(desk):
    row_id, _ = make(desk, "old")
    visit = desk.visit("old")
    desk.repos.delete(visit.actor, visit.repo)
    with pytest.raises(RepoAbsent):
        desk.visit("old")
    with pytest.raises(RepoAbsent):
        desk.repos.delete(visit.actor, visit.repo)
    again, _ = make(desk, "old")
    assert again != row_id
    with desk.database.read() as connection:
        kept = connection.execute(sa.select(rows.c.deleted_at).where(rows.c.id == row_id)).scalar()
    assert kept is not None, "its bytes wait for collection"
    assert [act for act, _, _ in acts(desk)] == ["repo.create", "repo.delete", "repo.create"]


def test_a_moved_repo_answers_to_both_names(desk):
    make(desk, "old")
    visit = desk.visit("old")
    made = desk.repos.move(visit.actor, visit.repo, RepoId("model", "ann", "New"))
    assert made == RepoId("model", "ann", "New")
    assert desk.visit("old").repo.repo_id == made == desk.visit("new").repo.repo_id
    assert acts(desk)[-1] == ("repo.move", "ann/old", {"to": "ann/New"})


def test_a_new_repo_takes_an_old_name_over(desk):
    first, _ = make(desk, "old")
    visit = desk.visit("old")
    desk.repos.move(visit.actor, visit.repo, RepoId("model", "ann", "new"))
    second, _ = make(desk, "old")
    assert (desk.visit("old").repo.id, desk.visit("new").repo.id) == (second, first)


def test_a_repo_moves_there_and_back_and_may_change_its_case(desk):
    row_id, _ = make(desk, "old")
    for name in ("new", "old", "OLD"):
        visit = desk.visit("old")
        desk.repos.move(visit.actor, visit.repo, RepoId("model", "ann", name))
    assert desk.visit("old").repo.repo_id.name == "OLD"
    assert desk.visit("new").repo.id == row_id


def test_a_move_to_a_taken_name_or_a_foreign_namespace_is_refused(desk):
    make(desk, "old")
    org = people.add_namespace(desk.database, "Lab", "org")
    visit = desk.visit("old")
    with pytest.raises(Exists, match=r"^A model repository called ann/one already exists$"):
        desk.repos.move(visit.actor, visit.repo, RepoId("model", "ann", "one"))
    with pytest.raises(NotAllowed):
        desk.repos.move(visit.actor, visit.repo, RepoId("model", "lab", "old"))
    with pytest.raises(BadBody):
        desk.repos.move(visit.actor, visit.repo, RepoId("dataset", "ann", "old"))
    people.add_member(desk.database, org, 1, "write")
    assert desk.repos.move(visit.actor, visit.repo, RepoId("model", "lab", "old")).full == "Lab/old"
    with pytest.raises(RepoAbsent):
        desk.repos.move(visit.actor, visit.repo, RepoId("model", "ann", "third"))


def test_a_move_takes_its_bytes_into_the_quota_of_the_new_namespace(desk):
    row_id, _ = make(desk, "old")
    desk.gate.link("a" * 64, 900, row_id)
    desk.gate.linked.begin(row_id, "b" * 64, 50)
    org = people.add_namespace(desk.database, "lab", "org")
    people.add_member(desk.database, org, 1, "write")
    needed = desk.visit("old").repo.git_bytes + 950
    visit, target = desk.visit("old"), RepoId("model", "lab", "old")
    with desk.database.write() as connection:
        connection.execute(sa.update(namespaces).where(namespaces.c.id == org).values(quota=needed - 1))
    with pytest.raises(QuotaExceeded, match="lab holds 0 bytes"):
        desk.repos.move(visit.actor, visit.repo, target)
    assert desk.visit("old").repo.repo_id.namespace == "ann"
    with desk.database.write() as connection:
        connection.execute(sa.update(namespaces).where(namespaces.c.id == org).values(quota=needed))
    assert desk.repos.move(visit.actor, visit.repo, target).full == "lab/old"
    renamed = desk.visit("old", namespace="lab")
    assert desk.repos.move(renamed.actor, renamed.repo, RepoId("model", "lab", "new")).full == "lab/new"


def test_a_deleted_repo_closes_its_uploads(desk):
    row_id, _ = make(desk, "old")
    upload, arrived = (desk.gate.linked.begin(row_id, oid * 64, 7) for oid in "ab")
    desk.gate.linked.uploads.arrive(arrived.id, "key")
    visit = desk.visit("old")
    desk.repos.delete(visit.actor, visit.repo)
    for one in (upload, arrived):
        with pytest.raises(ObjectAbsent):
            desk.gate.linked.uploads.upload(one.id)
        with pytest.raises(ObjectAbsent):
            desk.gate.linked.finish(one)
    with desk.database.read() as connection:
        assert set(connection.execute(sa.select(lfs_uploads.c.state)).scalars()) == {"failed"}


def test_settings_change_what_is_named_and_nothing_else(desk):
    visit = desk.visit()
    made = desk.repos.change(visit.actor, visit.repo, Changes(private=True, gated="manual", description="Ours"))
    assert made == {"private": True, "gated": "manual", "description": "Ours"}
    repo = desk.visit().repo
    assert (repo.visibility, repo.gated, repo.description) == ("private", "manual", "Ours")
    with pytest.raises(RepoAbsent):
        desk.visit(who="bob")
    desk.repos.change(visit.actor, repo, Changes(gated="", options={"discussionsDisabled": True}))
    repo = desk.visit().repo
    assert (repo.visibility, repo.gated, repo.description) == ("private", "", "Ours")
    assert acts(desk)[-1] == ("repo.settings", "ann/one", {"gated": "", "discussionsDisabled": True})


@pytest.mark.parametrize(
    "changes", [Changes(gated="maybe"), Changes(description="x" * 10_001), Changes(description="\0")]
)
def test_settings_that_make_no_sense_are_refused(desk, changes):
    visit = desk.visit()
    with pytest.raises(BadBody):
        desk.repos.change(visit.actor, visit.repo, changes)
    assert acts(desk) == []
