"""Fields of bodies are read by type, and nothing else is believed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.errors import BadBody, BadName
from registry.names import RepoId
from registry.routes.hub import fields

JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(), inner, max_size=3)),
    max_leaves=5,
)
NAMES = ("content", "encoding", "name", "organization", "type", "visibility", "private")


@given(st.dictionaries(st.sampled_from(NAMES), JSON))
def test_garbage_is_refused_in_our_words(body):
    for read in (
        lambda: fields.text(body, "name"),
        lambda: fields.maybe_text(body, "type"),
        lambda: fields.flag(body, "private"),
        lambda: fields.whole(body, "name"),
        lambda: fields.private(body),
        lambda: fields.content(body),
        lambda: fields.repo_type(body),
        lambda: fields.repo(body, "ann"),
    ):
        try:
            read()
        except (BadBody, BadName):
            pass


def test_a_repo_is_named_whole_or_in_parts():
    assert fields.repo({"name": "one"}, "ann") == RepoId("model", "ann", "one")
    assert fields.repo({"name": "one", "organization": "lab", "type": "space"}, "ann") == RepoId("space", "lab", "one")
    assert fields.repo({"name": "lab/one", "type": None}, "ann") == RepoId("model", "lab", "one")


def test_halves_of_characters_are_no_text():
    with pytest.raises(BadBody):
        fields.text({"name": "a\ud800"}, "name")
    assert fields.text({"name": "é😀"}, "name") == "é😀"


def test_a_content_is_text_or_base64():
    assert fields.content({"content": "é"}) == "é".encode()
    assert fields.content({"content": "AP8=", "encoding": "base64"}) == b"\0\xff"
    for body in ({"content": "!", "encoding": "base64"}, {"content": "é", "encoding": "base64"}, {"encoding": "hex"}):
        with pytest.raises(BadBody):
            fields.content(body)
