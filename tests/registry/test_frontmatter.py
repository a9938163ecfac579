"""Card metadata is read as YAML, within bounds that hostile files cannot pass."""

from __future__ import annotations

import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from registry import frontmatter
from registry.frontmatter import CardError

SCALARS = st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False)
WORDS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=20)
VALUES = st.recursive(
    SCALARS | WORDS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=4)
)


@given(st.dictionaries(WORDS, VALUES, max_size=6))
def test_what_yaml_wrote_is_read_back(card: dict[str, object]) -> None:
    assert frontmatter.read(yaml.safe_dump(card, allow_unicode=True)) == card


@given(st.text(max_size=300) | st.text(st.sampled_from("{}[]&*!<:- \n|>'\"?,%@#0a"), max_size=120))
def test_garbage_raises_only_our_error(text: str) -> None:
    try:
        found = frontmatter.read(text)
    except CardError:
        return
    json.dumps(found, allow_nan=False).encode()


@given(st.text(st.sampled_from("-\n\r a:\ufeff"), max_size=60))
def test_a_card_is_parted_without_losing_a_word(text: str) -> None:
    block, prose = frontmatter.split(text)
    assert block in text
    assert text.endswith(prose) or text == prose


@pytest.mark.parametrize(
    ("text", "block", "prose"),
    [
        ("---\nlicense: mit\n---\n# Hi\n", "license: mit", "# Hi\n"),
        ("\n\n---\r\na: 1\r\nb: 2\r\n---\r\nx", "a: 1\r\nb: 2", "x"),
        ("\ufeff---\na: 1\n---", "a: 1", ""),
        ("---\n---\nx", "", "x"),
        ("# no metadata\n---\na: 1\n---\n", "", "# no metadata\n---\na: 1\n---\n"),
        ("---\na: 1\n----\n", "", "---\na: 1\n----\n"),
        ("---\na: |\n  ---\n---\nx", "a: |\n  ---", "x"),
    ],
)
def test_the_block_ends_at_the_first_line_of_three_dashes(text: str, block: str, prose: str) -> None:
    assert frontmatter.split(text) == (block, prose)


def test_a_block_that_never_ends_is_told() -> None:
    assert frontmatter.unclosed("---\na: 1\n")
    assert not frontmatter.unclosed("---\na: 1\n---\n")
    assert not frontmatter.unclosed("# text")


def test_values_come_out_as_json_knows_them() -> None:
    block = 'a: 2020-01-02\nb: .nan\nc: !!set {y, x}\n1: 2\nd: !!binary aGk=\ne: &x [1]\nf: *x\ng: "a\\0b"\n'
    expected = {"a": "2020-01-02", "b": "nan", "c": ["x", "y"], "1": 2, "d": None, "e": [1], "f": [1], "g": "ab"}
    assert frontmatter.read(block) == expected


LISTS = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12)
)
MERGES = "a0: &a0 {x: 1}\n" + "".join(f"a{i}: &a{i} {{<<: [{','.join([f'*a{i - 1}'] * 10)}]}}\n" for i in range(1, 12))


@pytest.mark.parametrize(
    "block",
    [
        pytest.param(LISTS, id="alias bomb"),
        pytest.param(MERGES, id="merge bomb"),
        pytest.param("a: &a [*a]", id="loop"),
        pytest.param("[" * 100_000, id="deep flow"),
        pytest.param("".join("  " * i + "a:\n" for i in range(60)), id="deep block"),
        pytest.param("a: " + "9" * 70, id="long number"),
        pytest.param("a: 1" + ":1" * 100, id="long sexagesimal"),
        pytest.param("x: " + "y" * (600 << 10), id="large"),
        pytest.param("x: !!python/object/apply:os.system [id]", id="python"),
        pytest.param("- a\n- b", id="list"),
        pytest.param("a: 'b", id="open quote"),
        pytest.param("? [a]\n: 1", id="list as key"),
    ],
)
def test_hostile_metadata_is_refused(block: str) -> None:
    with pytest.raises(CardError):
        frontmatter.read(block)


def test_a_refusal_names_the_line() -> None:
    with pytest.raises(CardError, match="line 2"):
        frontmatter.read("a: 1\n  b: 2\n")
