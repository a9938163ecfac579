"""Tokens: shape, checksum, storage."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from registry import tokens


def test_a_token_has_the_shape_that_every_client_sends() -> None:
    token = tokens.mint()
    assert re.fullmatch(r"hf_[A-Za-z0-9]{40}", token)
    assert tokens.plausible(token)


def test_tokens_differ() -> None:
    assert len({tokens.mint() for _ in range(100)}) == 100


@given(st.integers(3, 42), st.sampled_from("0Az"))
def test_one_wrong_letter_is_noticed(place: int, letter: str) -> None:
    token = tokens.mint()
    changed = token[:place] + letter + token[place + 1 :]
    assert tokens.plausible(changed) == (changed == token)


@given(st.text())
def test_other_text_is_not_a_token(text: str) -> None:
    assert not tokens.plausible(text)


def test_what_is_stored_does_not_show_the_token() -> None:
    token = tokens.mint()
    assert re.fullmatch(r"[0-9a-f]{64}", tokens.digest(token))
    assert token[3:] not in tokens.digest(token)
