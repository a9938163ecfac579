"""A token says just what was signed, in time; a link opens the bytes that it was made for, and no others."""

from __future__ import annotations

import hmac
import struct
from base64 import urlsafe_b64encode
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lfs.errors import BadToken, GrantInvalid, LfsError
from lfs.store import Span
from lfs.xet.index import Leave
from lfs.xet.tokens import LIFETIME, XetTokens

DOMAIN = "0123456789abcdef" * 2
LEAVE = Leave(7, 3, DOMAIN, "write", 1000 + LIFETIME, 11)
KEY = "xet/xorbs/ab/abcd.1234"


class Clock:
    """A time that stands still."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def tokens(clock: Clock) -> XetTokens:
    return XetTokens([b"the secret of the tests", b"the one before"], clock)


@given(
    st.builds(
        Leave,
        repo_id=st.integers(0, 2**63 - 1),
        actor_id=st.integers(0, 2**63 - 1),
        domain=st.binary(min_size=16, max_size=16).map(bytes.hex),
        scope=st.sampled_from(["read", "write"]),
        expires=st.integers(1000, 2**40),
        token_id=st.integers(0, 2**63 - 1),
    )
)
def test_what_is_issued_is_what_is_read(leave: Leave) -> None:
    tokens = XetTokens([b"secret"], lambda: 1000.0)
    assert tokens.read(tokens.issue(leave)) == leave


def test_a_token_ends_on_time(tokens: XetTokens, clock: Clock) -> None:
    text = tokens.issue(LEAVE)
    assert tokens.until() == LEAVE.expires
    clock.now = LEAVE.expires
    assert tokens.read(text) == LEAVE
    clock.now += 1
    with pytest.raises(BadToken, match="expired"):
        tokens.read(text)


def test_a_claim_of_the_version_before_is_refused(tokens: XetTokens) -> None:
    secret = hmac.digest(b"the secret of the tests", b"weightroom xet token\x01", "sha256")
    before = struct.pack(">BBQQQ16s", 1, 1, 7, 3, LEAVE.expires, bytes.fromhex(DOMAIN))
    both = (urlsafe_b64encode(each).rstrip(b"=").decode() for each in (before, hmac.digest(secret, before, "sha256")))
    with pytest.raises(BadToken):
        tokens.read("xet_" + ".".join(both))


def test_the_secret_before_is_accepted_and_no_other(tokens: XetTokens, clock: Clock) -> None:
    assert tokens.read(XetTokens([b"the one before"], clock).issue(LEAVE)) == LEAVE
    with pytest.raises(BadToken, match="not made by this server"):
        tokens.read(XetTokens([b"somebody else's"], clock).issue(LEAVE))


def test_a_token_with_any_character_changed_is_none(tokens: XetTokens) -> None:
    text = tokens.issue(LEAVE)
    for place in range(len(text) - 1):
        other = "A" if text[place] != "A" else "B"
        changed = text[:place] + other + text[place + 1 :]
        try:
            # The last character of either half has bits that mean nothing.
            assert tokens.read(changed) == LEAVE
            assert place == text.index(".") - 1
        except BadToken:
            pass


@given(st.text(max_size=120) | st.text("xet_.ABCabc-=", max_size=120).map(lambda text: f"xet_{text}"))
def test_any_text_is_refused_in_our_words(text: str) -> None:
    with pytest.raises(BadToken):
        XetTokens([b"secret"], lambda: 0.0).read(text)


def test_a_link_opens_its_own_bytes_for_its_time(tokens: XetTokens, clock: Clock) -> None:
    span = Span(10, 20)
    asked = dict(pair.split("=") for pair in tokens.sign(KEY, span).split("&"))
    expires, signature = int(asked["exp"]), asked["sig"]
    assert asked["r"] == "10-19"
    tokens.check(KEY, span, expires, signature)
    wrong = [
        (KEY + "5", span, expires, signature),
        (KEY, Span(10, 21), expires, signature),
        (KEY, Span(0, 20), expires, signature),
        (KEY, span, expires + 1, signature),
        (KEY, span, expires, signature[:-1] + ("0" if signature[-1] != "0" else "1")),
        (KEY, span, expires, ""),
    ]
    for attempt in wrong:
        with pytest.raises(GrantInvalid):
            tokens.check(*attempt)
    clock.now = expires + 1
    with pytest.raises(GrantInvalid):
        tokens.check(KEY, span, expires, signature)


def test_no_grant_of_the_lfs_door_and_no_link_is_a_token(tokens: XetTokens) -> None:
    for text in (tokens.sign(KEY, Span(0, 1)), tokens.issue(replace(LEAVE, scope="read")).removeprefix("xet_")):
        with pytest.raises(LfsError):
            tokens.read(text)


def test_a_signature_that_is_no_hex_is_refused(tokens: XetTokens) -> None:
    with pytest.raises(GrantInvalid):
        tokens.check(KEY, Span(0, 1), 2000, "näh")
