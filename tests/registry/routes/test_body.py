"""Bodies are bounded before they are believed."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.types import Message

from registry.errors import BadBody, TooLarge
from registry.routes.body import parse_object, read_body, read_json

LIMIT = 64


def request(pieces: Iterable[bytes], headers: dict[str, str] | None = None) -> Request:
    waiting = [*pieces]

    async def receive() -> Message:
        piece = waiting.pop(0) if waiting else b""
        return {"type": "http.request", "body": piece, "more_body": bool(waiting)}

    raw = [(name.encode(), text.encode()) for name, text in (headers or {}).items()]
    return Request({"type": "http", "method": "POST", "headers": raw}, receive)


def read(pieces: Iterable[bytes], headers: dict[str, str] | None = None) -> dict[str, object]:
    return anyio.run(read_json, request(pieces, headers), LIMIT)


def test_a_body_in_pieces_is_one_object() -> None:
    assert read([b'{"a":', b" 1}"], {"content-type": "application/json; charset=utf-8"}) == {"a": 1}
    assert read([b""]) == {}


def test_a_body_announced_too_large_is_refused_unread() -> None:
    asked = request([b"x"], {"content-length": str(LIMIT + 1)})
    with pytest.raises(TooLarge, match="the limit for one request"):
        anyio.run(read_body, asked, LIMIT)


def test_a_body_that_turns_out_too_large_is_refused() -> None:
    with pytest.raises(TooLarge):
        read([b" " * LIMIT, b"{}"])


@pytest.mark.parametrize("announced", ["-1", "+1", "1e3", "٣"])
def test_a_length_that_is_no_number_is_refused(announced: str) -> None:
    with pytest.raises(BadBody):
        anyio.run(read_body, request([b""], {"content-length": announced}), LIMIT)


@pytest.mark.parametrize("kind", ["text/html", "application/x-www-form-urlencoded"])
def test_another_content_type_is_refused(kind: str) -> None:
    with pytest.raises(BadBody, match="application/json"):
        read([b"{}"], {"content-type": kind})


@pytest.mark.parametrize(
    "body", [b"[]", b"1", b"{", b'{"a": NaN}', b'{"a": "\\ud800"}', b'{"a": "\\u0000"}', b"\xff", b"[" * 60]
)
def test_what_is_no_object_or_no_text_is_refused(body: bytes) -> None:
    with pytest.raises(BadBody):
        read([body])


def test_the_text_of_an_escape_is_no_escape() -> None:
    assert parse_object(b'{"a": "\\\\u0000"}') == {"a": "\\u0000"}


@given(st.binary())
def test_garbage_raises_only_our_error(body: bytes) -> None:
    with contextlib.suppress(BadBody):
        parse_object(body)


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


@given(st.dictionaries(texts, texts | st.integers() | st.lists(texts)))
def test_objects_survive_the_journey(value: dict[str, object]) -> None:
    assert parse_object(json.dumps(value).encode()) == value
