"""Tokens are read from the Authorization header in the two forms that clients use, and from nowhere else."""

from __future__ import annotations

import base64
from datetime import timedelta

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from registry import tokens
from registry.access import ANONYMOUS, Actor
from registry.db import Database, now
from registry.errors import BadToken
from registry.routes.auth import DoorAccess, token_of
from registry.tables.identity import namespaces, users
from registry.tables.identity import tokens as token_table


def basic(text: str) -> dict[str, str]:
    return {"authorization": "Basic " + base64.b64encode(text.encode()).decode()}


def test_a_bearer_token_and_a_basic_password_are_tokens() -> None:
    assert token_of({"authorization": "Bearer hf_x"}) == "hf_x"
    assert token_of({"authorization": "bearer  hf_x "}) == "hf_x"
    assert token_of(basic("ada:hf_x")) == "hf_x"
    assert token_of(basic("hf_x:")) == "hf_x"
    assert token_of({}) is None
    assert token_of({"authorization": " "}) is None


@pytest.mark.parametrize("header", ["Bearer", "Digest x", "Basic", "Basic ???", "Basic Og==", "Basic YWRh", "hf_x"])
def test_a_header_that_is_no_token_is_refused_and_not_taken_for_nobody(header: str) -> None:
    with pytest.raises(BadToken):
        token_of({"authorization": header})


@given(st.text())
def test_garbage_raises_only_our_error(header: str) -> None:
    try:
        token_of({"authorization": header})
    except BadToken:
        return


def a_token(database: Database) -> str:
    token = tokens.mint()
    with database.write() as connection:
        named = {"name": "ada", "name_fold": "ada", "kind": "user", "created_at": now()}
        space = connection.execute(sa.insert(namespaces).values(named)).inserted_primary_key[0]
        user = connection.execute(sa.insert(users).values(namespace_id=space, created_at=now())).inserted_primary_key[0]
        row = {"user_id": user, "hash": tokens.digest(token), "role": "write", "created_at": now()}
        connection.execute(sa.insert(token_table).values(row))
    return token


def last_used(database: Database) -> object:
    with database.read() as connection:
        return connection.execute(sa.select(token_table.c.last_used_at)).scalar()


def test_use_of_a_token_is_noted_once_a_minute(database: Database) -> None:
    token, ticks, start = a_token(database), [0.0], now()
    moments = [start]
    access = DoorAccess(database, clock=lambda: moments[0], ticks=lambda: ticks[0])
    access.actor(token)
    assert last_used(database) == start
    for seconds, expected in ((59, 0), (61, 61)):
        ticks[0], moments[0] = float(seconds), start + timedelta(seconds=seconds)
        access.actor(token)
        assert last_used(database) == start + timedelta(seconds=expected)


def test_the_greeter_hears_of_good_tokens_only(database: Database) -> None:
    heard: list[tuple[str, Actor]] = []
    access = DoorAccess(database, greet=lambda token, actor: heard.append((token, actor)))
    token = a_token(database)
    assert access.actor(None) == ANONYMOUS
    with pytest.raises(BadToken):
        access.actor(tokens.mint())
    assert heard == []
    access.actor(token)
    assert [(one, actor.name) for one, actor in heard] == [(token, "ada")]
