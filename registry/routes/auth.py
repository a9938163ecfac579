"""Authorization header → token → actor, for every door.

A token travels as `Bearer <token>`, or as the password of Basic with any user name, as git and git-lfs send it. It is
never read from a URL query, where proxies and histories would keep it.
"""

from __future__ import annotations

import base64
import binascii
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Protocol

from starlette.requests import Request

from registry import tokens
from registry.access import Access, Act, Actor, Visit
from registry.db import Database, now
from registry.errors import BadToken, Busy
from registry.names import RepoId

_WRONG = "Invalid credentials in Authorization header"
_TOUCH_SECONDS = 60.0
_REMEMBERED = 10_000


def token_of(headers: Mapping[str, str]) -> str | None:
    """Read the token that came with a request; None if none came. Header names are lower-case.

    Raises: BadToken (an Authorization header that is neither Bearer nor Basic, or is no text).
    """
    header = headers.get("authorization", "").strip()
    if not header:
        return None
    scheme, _, rest = header.partition(" ")
    rest = rest.strip()
    if scheme.lower() == "bearer" and rest:
        return rest
    if scheme.lower() == "basic" and rest:
        return _basic(rest)
    raise BadToken(_WRONG)


def _basic(encoded: str) -> str:
    try:
        user, colon, password = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError) as error:
        raise BadToken(_WRONG) from error
    # `https://<token>@host/…` puts the token where the user name goes and leaves the password empty.
    token = password or user
    if not colon or not token:
        raise BadToken(_WRONG)
    return token


class Greeter(Protocol):
    """Hears of every token that turned out to be good."""

    def __call__(self, token: str, actor: Actor) -> None:
        """Take note; called on the request's own thread, must not raise."""


def nobody(token: str, actor: Actor) -> None:
    """Take no note."""


class DoorAccess(Access):
    """Access as the doors use it: notes when a token was used, and tells the greeter whose it is.

    Only the methods that hold no transaction while they return do so; `visit_in` stays as it is.
    """

    def __init__(
        self,
        database: Database,
        *,
        anonymous_read: bool = True,
        greet: Greeter = nobody,
        clock: Callable[[], datetime] = now,
        ticks: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(database, anonymous_read=anonymous_read, clock=clock)
        self._greet = greet
        self._ticks = ticks
        self._touched: OrderedDict[int, float] = OrderedDict()

    def actor(self, token: str | None) -> Actor:
        """Say whose token this is."""
        actor = super().actor(token)
        self._note(token, actor)
        return actor

    def visit(self, token: str | None, repo: RepoId, act: Act = "read", *, ref: bytes | None = None) -> Visit:
        """Bring an actor to a repo."""
        visit = super().visit(token, repo, act, ref=ref)
        self._note(token, visit.actor)
        return visit

    def _note(self, token: str | None, actor: Actor) -> None:
        if token is None or actor.token_id is None:
            return
        self._greet(token, actor)
        at = self._ticks()
        # Looked up here first, so that a busy token costs a write a minute and not a statement per request.
        if at - self._touched.get(actor.token_id, -_TOUCH_SECONDS) < _TOUCH_SECONDS:
            return
        self._touched[actor.token_id] = at
        self._touched.move_to_end(actor.token_id)
        while len(self._touched) > _REMEMBERED:
            self._touched.popitem(last=False)
        try:
            self.touch(actor)
        except Busy:
            # The time of last use is a courtesy; the request must not fail for it.
            pass


class Auth:
    """Who is asking, for doors that hold a Starlette request."""

    def __init__(self, access: Access) -> None:
        self._access = access

    def actor(self, request: Request) -> Actor:
        """Say who sent a request.

        Raises: BadToken.
        """
        return self._access.actor(token_of(request.headers))

    def visit(self, request: Request, repo: RepoId, act: Act = "read", ref: bytes | None = None) -> Visit:
        """Bring the sender of a request to a repo, in one statement.

        Raises: BadToken, NeedsLogin, RepoAbsent, NotAllowed, as `Access.visit` does.
        """
        return self._access.visit(token_of(request.headers), repo, act, ref=ref)


def fingerprint(token: str) -> str:
    """Name a token in memory without keeping it."""
    return tokens.digest(token)
