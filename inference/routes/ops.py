"""Health, readiness, version, metrics: for probes and dashboards, without a key."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from inference.meters import Meters
from inference.pool import Pool
from inference.visits import Visits


class Ops:
    """The door. `async` without a wait: a probe must not queue for a thread behind the work it asks about."""

    def __init__(self, *, pool: Pool, meters: Meters, visits: Visits, version: str, pinned: Sequence[str]):
        self._pool = pool
        self._meters = meters
        self._visits = visits
        self._version = version
        self._pinned = frozenset(pinned)

    async def health(self, _: Request) -> Response:
        """Say that the process lives, and whether a pinned model cannot be served."""
        failed = sorted(self._pinned.intersection(self._named("failed")))
        return JSONResponse({"status": "failed" if failed else "ok", "failed": failed}, 503 if failed else 200)

    async def ready(self, _: Request) -> Response:
        """Say whether work may be sent: not while closing, and not before the pinned models are loaded."""
        missing = sorted(self._pinned.difference(self._named("ready")))
        closing = self._visits.draining
        body = {"ready": not (missing or closing), "draining": closing, "waiting_for": missing}
        return JSONResponse(body, 200 if body["ready"] else 503)

    async def version(self, _: Request) -> Response:
        """Say which release answers."""
        return JSONResponse({"version": self._version})

    async def metrics(self, _: Request) -> Response:
        """Give all counters in Prometheus' text format."""
        return Response(self._meters.text(), media_type=CONTENT_TYPE_LATEST)

    def _named(self, phase: str) -> list[str]:
        return [name for state in self._pool.states() if state.phase == phase for name in state.names]

    def routes(self) -> list[Route]:
        """List the endpoints."""
        return [
            Route("/health", self.health, methods=["GET"]),
            Route("/ready", self.ready, methods=["GET"]),
            Route("/version", self.version, methods=["GET"]),
            Route("/metrics", self.metrics, methods=["GET"]),
        ]
