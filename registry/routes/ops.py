"""For whoever runs the server: is it alive, may it have traffic, what does it do, which version is it."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable

import sqlalchemy as sa
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from lfs.errors import LfsError, Missing
from lfs.store import ObjectStore
from registry.db import Database
from registry.errors import RegistryError
from registry.routes.meter import CONTENT_TYPE, Meter

log = logging.getLogger("registry.ops")

MARKER = "derived/ready"
"""A store key that readiness looks for, and writes if it is not there."""
_NO_STORE = {"Cache-Control": "no-store"}


class OpsDoor:
    """Answers probes; `draining`, once set, turns readiness off while work in flight finishes.

    `storage` names what the bucket was found to enforce, for whoever wonders why uploads take the way they take.
    """

    def __init__(
        self,
        *,
        database: Database,
        store: ObjectStore,
        meter: Meter,
        version: str,
        draining: threading.Event,
        storage: Callable[[], str] = lambda: "",
    ) -> None:
        self._db = database
        self._store = store
        self._meter = meter
        self._version = version
        self._draining = draining
        self._storage = storage

    async def health(self, request: Request) -> Response:
        """Say that the process runs; looks at nothing else, so that a sick database does not restart the server."""
        return PlainTextResponse("ok\n", headers=_NO_STORE)

    def ready(self, request: Request) -> Response:
        """Say whether requests can be served: 200, or 503 with the reasons."""
        wrong = {name: text for name, probe in self._probes() if (text := _failure(name, probe))}
        if self._draining.is_set():
            wrong["server"] = "is stopping"
        told = {"storage": enforced} if (enforced := self._storage()) else {}
        body = json.dumps({"ready": not wrong, "problems": wrong, **told})
        return Response(body, 503 if wrong else 200, _NO_STORE, "application/json")

    def metrics(self, request: Request) -> Response:
        """Show the counters of this process as Prometheus reads them."""
        return Response(self._meter.text(), headers=_NO_STORE | {"Content-Type": CONTENT_TYPE})

    async def version(self, request: Request) -> Response:
        """Name the program and its version."""
        return Response(json.dumps({"name": "weightroom", "version": self._version}), media_type="application/json")

    def routes(self) -> list[Route]:
        """Name the routes of this door."""
        return [
            Route("/health", self.health, methods=["GET"]),
            Route("/ready", self.ready, methods=["GET"]),
            Route("/metrics", self.metrics, methods=["GET"]),
            Route("/version", self.version, methods=["GET"]),
        ]

    def _probes(self) -> tuple[tuple[str, Callable[[], None]], ...]:
        return ("database", self._ask_database), ("store", self._ask_store)

    def _ask_database(self) -> None:
        with self._db.read() as connection:
            connection.execute(sa.text("SELECT 1"))

    def _ask_store(self) -> None:
        try:
            self._store.stat(MARKER)
        except Missing:
            self._store.put(MARKER, b"ready\n", 6)


def _failure(name: str, probe: Callable[[], None]) -> str:
    """Run a probe; what it raises goes to the log, and only its kind to whoever asked."""
    try:
        probe()
    except (RegistryError, LfsError) as error:
        log.warning("not ready: %s: %s", name, error.message)
        return error.code
    except Exception:
        log.exception("not ready: %s", name)
        return "failed"
    return ""
