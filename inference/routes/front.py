"""Around every request: its id, its log line, its counters, and an answer when something broke."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from uuid import uuid4

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from inference.meters import Meters
from inference.routes import problems
from inference.sampling import Usage

log = logging.getLogger("inference.requests")


@dataclass(slots=True)
class Record:
    """What is known of one request when it ends; filled in by the doors. No prompt, output, token or query."""

    id: str
    arrived: float
    actor: str | None = None
    model: str | None = None
    sha: str | None = None
    finish: str | None = None
    usage: Usage = field(default_factory=lambda: Usage(0, 0))
    queued_until: float | None = None
    first_token: float | None = None
    cancelled: bool = False


class Front:
    """Plain ASGI middleware; stands between Starlette's error page and the routes."""

    def __init__(self, app: ASGIApp, *, meters: Meters, clock: Callable[[], float] = time.monotonic):
        self._app = app
        self._meters = meters
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection event."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        record = Record(_request_id(scope), self._clock())
        scope.setdefault("state", {})["record"] = record
        status = 0

        async def marked(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), *_marks(record)]
            await send(message)

        try:
            await self._app(scope, receive, marked)
        except Exception:
            log.exception("request %s broke", record.id)
            if not status:
                status = 500
                await JSONResponse(problems.unknown(), 500, dict(_text_marks(record)))(scope, receive, send)
        finally:
            self._account(scope, record, status)

    def _account(self, scope: Scope, record: Record, status: int) -> None:
        ended = self._clock()
        route = getattr(scope.get("route"), "path", "unknown")
        self._meters.requests.labels(route, str(status)).inc()
        if record.cancelled:
            self._meters.cancels.inc()
        if record.model is not None:
            self._count_tokens(record, ended)
        line = {
            "id": record.id,
            "actor": record.actor,
            "model": record.model,
            "sha": record.sha,
            "route": route,
            "status": status,
            "finish": record.finish,
            "prompt": record.usage.prompt,
            "cached": record.usage.cached,
            "completion": record.usage.completion,
            "queue_ms": _ms(record.arrived, record.queued_until),
            "ttft_ms": _ms(record.arrived, record.first_token),
            "total_ms": _ms(record.arrived, ended),
            "cancelled": record.cancelled,
        }
        log.info("%s", json.dumps(line, ensure_ascii=False))

    def _count_tokens(self, record: Record, ended: float) -> None:
        self._meters.prompt.inc(record.usage.prompt)
        self._meters.cached.inc(record.usage.cached)
        self._meters.generated.inc(record.usage.completion)
        self._meters.e2e.observe(ended - record.arrived)
        if record.first_token is not None:
            self._meters.ttft.observe(record.first_token - record.arrived)
            if record.usage.completion > 1:
                self._meters.itl.observe((ended - record.first_token) / (record.usage.completion - 1))


def _request_id(scope: Scope) -> str:
    """Take the client's id if it is short and printable, else make one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and 0 < len(value) <= 128 and all(0x21 <= byte <= 0x7E for byte in value):
            return str(value.decode("ascii"))
    return uuid4().hex


def _text_marks(record: Record) -> list[tuple[str, str]]:
    marks = [("x-request-id", record.id)]
    if record.sha is not None:
        marks.append(("x-model-commit", record.sha))
    return marks


def _marks(record: Record) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in _text_marks(record)]


def _ms(start: float, end: float | None) -> int | None:
    return None if end is None else round((end - start) * 1000)
