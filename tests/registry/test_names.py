"""Names from the wire: what is taken, what is refused, and how a revision and a path are told apart."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry import names
from registry.errors import BadName, BadPath, RegistryError
from registry.names import RepoId

LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"


@pytest.mark.parametrize("text", ["a", "Llama-3.1_8B", "0x", "a" * 96])
def test_ordinary_names_are_taken(text: str) -> None:
    assert names.check_name(text, "Name") == text


@pytest.mark.parametrize(
    "text",
    [
        *("", ".a", "-a", "_a", "a/b", "a b", "a..b", "a--b", "a.", "a-", "x.git", "X.GIT", "x.lock", "x.ipynb"),
        *("a" * 97, "ä", "a\n", "a\0", "..", "a\\b", "a:b", "\N{ZERO WIDTH NON-JOINER}a"),
    ],
)
def test_names_that_a_path_or_a_ref_could_misread_are_refused(text: str) -> None:
    with pytest.raises(BadName):
        names.check_name(text, "Name")


@pytest.mark.parametrize("text", ["api", "API", "datasets", "v1", "Lfs"])
def test_a_namespace_cannot_shadow_a_route(text: str) -> None:
    with pytest.raises(BadName, match="reserved"):
        names.check_namespace(text)


@pytest.mark.parametrize("text", ["a", "a/b/c", "/b", "a/", "", "a//b"])
def test_a_repo_id_has_two_parts(text: str) -> None:
    with pytest.raises(BadName):
        names.parse_repo_id("model", text)


def test_a_repo_knows_its_web_path_and_its_folded_form() -> None:
    repo = names.parse_repo_id("dataset", "Org/Data")
    assert (repo.full, repo.web, repo.fold) == ("Org/Data", "datasets/Org/Data", "org/data")


@pytest.mark.parametrize(
    ("raw", "known", "split"),
    [
        ("main/config.json", (), ("main", "config.json")),
        ("main", (), ("main", "")),
        ("feature%2Fx/a/b.txt", (), ("feature/x", "a/b.txt")),
        ("refs%2Fpr%2F1/a/b", (), ("refs/pr/1", "a/b")),
        ("refs/pr/1/a/b", (), ("refs/pr/1", "a/b")),
        ("refs/heads/x/y/a.txt", ("refs/heads/x", "refs/heads/x/y"), ("refs/heads/x/y", "a.txt")),
        ("refs/heads/x/y/a.txt", (), ("refs/heads/x", "y/a.txt")),
        ("main/with%20space%2Fslash.txt", (), ("main", "with space/slash.txt")),
        ("main/a%2Bb", (), ("main", "a+b")),
    ],
)
def test_revision_and_path_are_split_before_unquoting(raw: str, known: tuple[str, ...], split: tuple[str, str]) -> None:
    assert names.split_revpath(raw, known) == split


def test_a_path_that_is_not_utf8_is_refused() -> None:
    with pytest.raises(BadPath):
        names.split_revpath("main/%ff%fe")


@given(st.text(max_size=60))
def test_any_text_is_split_or_refused(raw: str) -> None:
    try:
        revision, path = names.split_revpath(raw)
    except RegistryError:
        return
    assert isinstance(revision, str)
    assert isinstance(path, str)


@given(st.text(alphabet=LETTERS, min_size=1, max_size=20), st.text(alphabet=LETTERS, min_size=1, max_size=20))
def test_a_checked_id_survives_its_text(namespace: str, name: str) -> None:
    assert names.parse_repo_id("model", f"{namespace}/{name}") == RepoId("model", namespace, name)


@pytest.mark.parametrize("text", ["A" * 64, "a" * 63, "a" * 65, "../" + "a" * 61, "a" * 64 + "\n", "g" * 64])
def test_only_lower_case_hex_is_an_oid(text: str) -> None:
    assert not names.is_oid(text)
    assert not names.is_sha(text[:40]) or text[:40] == "a" * 40
