"""What every address of Git LFS has in common: its verbs, its media types, and our errors in the renderer's words."""

from __future__ import annotations

import inspect
import json
from collections.abc import Awaitable, Callable, Mapping

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lfs.bodies import Json
from lfs.errors import Interrupted, LfsError, NotAcceptable, TooLarge, WrongType, WrongVerb
from lfs.problems import MEDIA_TYPE, Render

MAX_BODY = 8 << 20
JSON_TYPES = (MEDIA_TYPE, "application/json")

Answer = Callable[[Request], Awaitable[ASGIApp]]
Act = Callable[[Request, bytes], Json]
Verbs = Mapping[str, Answer]


class Door:
    """One address: its verbs, and our errors in the words of the renderer."""

    def __init__(self, verbs: Verbs, render: Render) -> None:
        self._verbs, self._render = verbs, render
        # The reference page of routes says of an address what its verbs say of themselves.
        told = [inspect.getdoc(answer) or "" for answer in verbs.values()]
        self.__doc__ = " ".join(dict.fromkeys(told)) or "Answer that this address takes other verbs."

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request, started = Request(scope, receive), False

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            answer = await self._answer(request)
            await answer(scope, receive, watched)
        except LfsError as error:
            # Once bytes are on their way only a broken connection says that they are not all.
            if started:
                raise
            await self._render(error, request)(scope, receive, send)

    async def _answer(self, request: Request) -> ASGIApp:
        if request.method not in self._verbs:
            verbs = tuple(self._verbs) or ("POST",)
            raise WrongVerb(f"This address takes {', '.join(verbs)}; see the Git LFS API.", allowed=verbs)
        return await self._verbs[request.method](request)


def in_json(act: Act, *, status: int = 200) -> Answer:
    """Wrap a synchronous endpoint: media types, a bounded body, one hop to a worker thread."""

    async def answer(request: Request) -> ASGIApp:
        _check_types(request)
        body = await _body(request)
        # Written on the thread too: an answer that names 10,000 parts takes the event loop's time otherwise.
        found = await run_in_threadpool(lambda: json.dumps(act(request, body)))
        return Response(found, status, media_type=MEDIA_TYPE)

    answer.__doc__ = act.__doc__
    return answer


def _check_types(request: Request) -> None:
    accepted = [each.split(";")[0].strip().lower() for each in request.headers.get("accept", "*/*").split(",")]
    if not set(accepted) & {*JSON_TYPES, "*/*", "application/*", ""}:
        raise NotAcceptable(f"This server answers {MEDIA_TYPE}; put it, or nothing, into Accept.")
    if request.method == "POST":
        sent = request.headers.get("content-type", "").split(";")[0].strip().lower()
        if sent not in JSON_TYPES:
            raise WrongType(f"Send the body as {MEDIA_TYPE}.")


async def _body(request: Request) -> bytes:
    gathered, size, more = [], 0, True
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise Interrupted("The connection closed before the end of the body.")
        gathered.append(message.get("body", b""))
        size, more = size + len(gathered[-1]), message.get("more_body", False)
        if size > MAX_BODY:
            raise TooLarge(f"A request body may have {MAX_BODY} bytes; send fewer objects at a time.")
    return b"".join(gathered)
