"""Counts requests for /metrics: how many by route and status, how long, how many bytes, how many now; and upkeep."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0, 600.0)


@dataclass(frozen=True, slots=True)
class Seen:
    """One finished request, for the log and the counters; `route` is the pattern that matched, empty if none did."""

    method: str
    route: str
    path: str
    status: int
    seconds: float
    sent: int


class Meter:
    """Counters of one process; labels are patterns of ours, never what a client wrote. Thread-safe."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        labels = ("method", "route", "status")
        self._count = Counter("weightroom_requests", "Finished requests.", labels, registry=self.registry)
        self._sent = Counter("weightroom_sent_bytes", "Bytes of bodies sent.", ("route",), registry=self.registry)
        self._open = Gauge("weightroom_requests_in_flight", "Requests being answered now.", registry=self.registry)
        self._seconds = Histogram(
            "weightroom_request_seconds",
            "Seconds from the first byte asked to the last byte sent.",
            ("method", "route"),
            buckets=_SECONDS,
            registry=self.registry,
        )

        self.scrubbed = Counter(
            "weightroom_xet_scrubbed_bytes", "Bytes of stored chunks read again.", registry=self.registry
        )
        self.damaged = Gauge(
            "weightroom_xet_damaged_xorbs", "Xorbs whose bytes are others, put aside.", registry=self.registry
        )
        self.ingested = Counter(
            "weightroom_xet_ingested_objects", "Objects that came whole, sent by their chunks.", registry=self.registry
        )
        self.freed = Counter(
            "weightroom_xet_freed_bytes",
            "Bytes that came whole and may go, since their objects are kept by their chunks.",
            registry=self.registry,
        )
        self._ingests = Gauge(
            "weightroom_xet_ingests", "Objects that came whole and are not sent.", ("state",), registry=self.registry
        )

    def ingests(self, counts: Mapping[str, int]) -> None:
        """Note how many objects are in each state of the way to their chunks."""
        for state, count in counts.items():
            self._ingests.labels(state).set(count)

    def begin(self) -> None:
        """Note that a request came in."""
        self._open.inc()

    def end(self, seen: Seen) -> None:
        """Note that a request is finished."""
        method = seen.method if seen.method in _METHODS else "other"
        route = seen.route or "none"
        self._open.dec()
        self._count.labels(method, route, str(seen.status)).inc()
        self._seconds.labels(method, route).observe(seen.seconds)
        if seen.sent:
            self._sent.labels(route).inc(seen.sent)

    def text(self) -> bytes:
        """Write all counters as Prometheus reads them."""
        return generate_latest(self.registry)
