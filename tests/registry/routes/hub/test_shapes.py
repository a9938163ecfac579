"""Bodies are written as the Hub's clients parse them."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.access import RepoRow
from registry.cards import Facts
from registry.errors import BadBody
from registry.git.history import Commit
from registry.git.snapshot import Ref
from registry.names import RepoType
from registry.routes.hub import shapes

AT = datetime(2026, 1, 2, 3, 4, 5, 678_901, tzinfo=UTC)


def _repo(kind: RepoType = "model", sdk: str = "") -> RepoRow:
    return RepoRow(
        id=255,
        type=kind,
        namespace_id=1,
        namespace="Ann",
        name="My.Repo",
        visibility="public",
        gated="",
        description="words",
        sdk=sdk,
        default_branch=b"refs/heads/main",
        refs_version=1,
        manifest_version=1,
        git_bytes=3,
        lfs_bytes=4,
        downloads=5,
        likes=6,
        created_at=AT,
        updated_at=AT,
    )


@given(st.datetimes(timezones=st.just(UTC)))
def test_moments_have_milliseconds_and_z(at: datetime) -> None:
    text = shapes.moment(at)
    assert text.endswith("Z")
    assert abs(datetime.fromisoformat(text.replace("Z", "+00:00")) - at) < timedelta(milliseconds=1)


def test_other_zones_are_brought_to_utc() -> None:
    assert shapes.moment(AT.astimezone(timezone(timedelta(hours=5)))) == "2026-01-02T03:04:05.678Z"


@pytest.mark.parametrize("kind", ["model", "dataset", "space"])
def test_every_property_that_may_be_named_can_be_made(kind: RepoType) -> None:
    names = shapes.expanded(kind, sorted(shapes.EXPANDABLE[kind]))
    found = shapes.described(_repo(kind), "a" * 40, Facts(), names)
    json.loads(shapes.body(found))
    assert found["_id"] == "0000000000000000000000ff"
    assert found["id"] == "Ann/My.Repo"
    assert None not in found.values()
    assert {*shapes.INFO[kind], *shapes.LISTED[kind]} <= shapes.EXPANDABLE[kind] | {"downloads", "gated"}


def test_an_unknown_property_is_refused_with_the_known_ones() -> None:
    with pytest.raises(BadBody, match="runtime"):
        shapes.expanded("space", ["sha", "library_name"])


def test_a_space_takes_its_sdk_from_the_repo_then_from_its_card() -> None:
    card = Facts(card={"sdk": "gradio"})
    made = [shapes.described(_repo("space", sdk), None, card, ["sdk", "subdomain"]) for sdk in ("docker", "")]
    assert [one["sdk"] for one in made] == ["docker", "gradio"]
    assert made[0]["subdomain"] == "ann-my-repo"


@pytest.mark.parametrize("said", [3, [], "", [1], {"a": 1}, None])
def test_odd_base_models_are_left_out(said: object) -> None:
    facts = Facts(card={"base_model": said})  # type: ignore[dict-item]
    assert "baseModels" not in shapes.described(_repo(), None, facts, ["baseModels"])


def test_a_tag_shows_the_commit_that_it_finally_names() -> None:
    shown = {b"refs/tags/v1": Ref(b"refs/tags/v1", "1" * 40, "2" * 40), b"refs/notes/x": Ref(b"refs/notes/x", "3" * 40)}
    found = shapes.refs(shown, pulls=True)
    assert found["tags"] == [{"name": "v1", "ref": "refs/tags/v1", "targetCommit": "2" * 40}]
    assert (found["branches"], found["converts"], found["pullRequests"]) == ([], [], [])


def test_formatted_messages_carry_no_markup() -> None:
    made = Commit("a" * 40, "b" * 40, (), "A", "a@b", AT, "<b>&\n\n<i>")
    assert shapes.commit(made, formatted=True)["formatted"] == {"title": "&lt;b&gt;&amp;", "message": "&lt;i&gt;"}
    assert "formatted" not in shapes.commit(made, formatted=False)


def test_names_that_are_not_text_can_be_shown() -> None:
    json.loads(shapes.body({"path": shapes.text(b"\xff\xfe")}))
