"""What the Xet door says: refusals, and the lines by which a client follows the filing of its shard.

    refusal   {"error": "…"}
    filing    {"type": "waiting"} | {"type": "validating", "verified": 3, "total": 9}       now and then
              {"type": "committing", "stage": "syncing"}                                    after the last file
              {"type": "result", "result": 0 or 1}                                          1: some of it was new
              {"type": "error", "message": "…", "retryable": false}                         or this

One object a line. Clients end a connection on which nothing comes for minutes, and skip types that they do not know.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Coroutine

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from lfs import errors
from lfs.bodies import Json
from lfs.errors import LfsError

STATUS: dict[type[LfsError], int] = {
    errors.NeedsLogin: 401,
    errors.BadToken: 401,
    errors.GrantInvalid: 403,
    errors.NotAllowed: 403,
    # Clients try again after a 507, in vain.
    errors.QuotaExceeded: 403,
    errors.RepoAbsent: 404,
    errors.ObjectAbsent: 404,
    errors.Missing: 404,
    # By a 404, and by nothing else, clients find out what is not spoken here.
    errors.WrongVerb: 404,
    errors.Damaged: 410,
    errors.TooLarge: 413,
    errors.RangeUnsatisfiable: 416,
    errors.BadRequest: 400,
    errors.BadXet: 400,
    errors.Mismatch: 400,
    errors.RateLimited: 429,
    errors.Unavailable: 429,
    errors.HeavyError: 503,
    errors.NoSpace: 507,
}

PASSES = (errors.RateLimited, errors.Unavailable)
"""What a client may try again in a moment."""

MAX_WAIT = 60
# Below the patience of any proxy on the way.
BEAT = 5.0

Tell = Callable[[int, int], None]

_log = logging.getLogger(__name__)


def render(error: LfsError, request: Request) -> Response:
    """Write the answer to a refused request."""
    status = next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), 500)
    message = "Nothing is served at this address." if isinstance(error, errors.WrongVerb) else error.message
    return said({"error": message}, status, _headers(error))


def said(found: Json, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Answer in JSON."""
    return Response(json.dumps(found), status, headers, "application/json")


def length(size: int) -> Response:
    """Answer a HEAD."""
    return Response(headers={"Content-Length": str(size)})


class Followed:
    """Answers at once, tells how far `work` is, and ends with what comes of it.

    `done` is called once the work has ended, however it did, also when the client left before.
    """

    def __init__(
        self,
        work: Callable[[Tell], Coroutine[object, object, bool]],
        *,
        beat: float | None = None,
        done: Callable[[], None] = lambda: None,
    ) -> None:
        self._work, self._beat, self._done = work, beat or BEAT, done
        self._lines: asyncio.Queue[Json | None] = asyncio.Queue()
        self._last: Json = {"type": "waiting"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        headers = [(b"content-type", b"application/x-ndjson"), (b"x-accel-buffering", b"no")]
        loop = asyncio.get_running_loop()
        task = asyncio.ensure_future(self._work(self._teller(loop)))
        task.add_done_callback(self._ended)
        try:
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            while (line := await self._next()) is not None:
                await send(_line(line, more=True))
        finally:
            # What was begun is filed, also when the client has left; its next try finds it there.
            await asyncio.wait([task])
        await send(_line(_ending(task), more=False))

    def _ended(self, task: asyncio.Future[bool]) -> None:
        self._done()
        self._lines.put_nowait(None)

    def _teller(self, loop: asyncio.AbstractEventLoop) -> Tell:
        def tell(verified: int, total: int) -> None:
            self._put(loop, {"type": "validating", "verified": verified, "total": total})
            if verified == total:
                self._put(loop, {"type": "committing", "stage": "syncing"})

        return tell

    def _put(self, loop: asyncio.AbstractEventLoop, line: Json) -> None:
        loop.call_soon_threadsafe(self._lines.put_nowait, line)

    async def _next(self) -> Json | None:
        """Return the next line, None after the last; the one before once more when nothing came for a beat."""
        try:
            async with asyncio.timeout(self._beat):
                found = await self._lines.get()
        except TimeoutError:
            return self._last
        self._last = found or self._last
        return found


def _ending(task: asyncio.Future[bool]) -> Json:
    try:
        return {"type": "result", "result": int(task.result())}
    except LfsError as error:
        return {"type": "error", "message": error.message, "retryable": isinstance(error, PASSES)}
    except Exception:
        # The status went out long ago: this line is the only place left for it.
        _log.exception("filing a shard failed")
        return {"type": "error", "message": "The server failed to file this; its log says why.", "retryable": False}


def _line(found: Json, *, more: bool) -> dict[str, object]:
    return {"type": "http.response.body", "body": json.dumps(found).encode() + b"\n", "more_body": more}


def _headers(error: LfsError) -> dict[str, str]:
    if isinstance(error, (errors.NeedsLogin, errors.BadToken)):
        return {"WWW-Authenticate": 'Bearer realm="weightroom"'}
    if isinstance(error, errors.RangeUnsatisfiable):
        return {"Content-Range": f"bytes */{error.size}"}
    if isinstance(error, PASSES):
        return {"Retry-After": str(min(getattr(error, "retry_after", 5), MAX_WAIT))}
    return {}
