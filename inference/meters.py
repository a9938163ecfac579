"""What is counted, and its Prometheus text; names that gateways look for are given as aliases."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


@dataclass(frozen=True, slots=True)
class Load:
    """The house at one instant."""

    queued: int
    running: int
    model_bytes: int
    loads: int = 0
    evictions: int = 0
    kv_used: int = 0
    kv_total: int = 0


class _Gauges(Collector):
    """Asks for the load when the text is made, so that nothing must be kept in step."""

    def __init__(self, look: Callable[[], Load]):
        self._look = look

    def collect(self) -> Iterable[Metric]:
        load = self._look()
        queued, running = float(load.queued), float(load.running)
        yield GaugeMetricFamily("weightroom_queued", "Requests that wait.", value=queued)
        yield GaugeMetricFamily("weightroom_running", "Requests being answered.", value=running)
        yield GaugeMetricFamily("weightroom_model_bytes", "Memory of loaded models.", value=float(load.model_bytes))
        yield GaugeMetricFamily("vllm:num_requests_waiting", "As weightroom_queued.", value=queued)
        yield GaugeMetricFamily("vllm:num_requests_running", "As weightroom_running.", value=running)
        yield CounterMetricFamily("weightroom_loads", "Models loaded.", value=float(load.loads))
        yield CounterMetricFamily("weightroom_evictions", "Models unloaded.", value=float(load.evictions))
        ratio = load.kv_used / load.kv_total if load.kv_total else 0.0
        yield GaugeMetricFamily("weightroom_kv_used_ratio", "Share of all cache tokens in use.", value=ratio)
        yield GaugeMetricFamily("vllm:kv_cache_usage_perc", "As weightroom_kv_used_ratio.", value=ratio)


class Meters:
    """One process's counters; thread-safe."""

    def __init__(self, look: Callable[[], Load]):
        own = self._registry = CollectorRegistry()
        self.requests = Counter("weightroom_requests", "Answers by route and status.", ["route", "code"], registry=own)
        self.prompt = Counter("weightroom_prompt_tokens", "Prompt tokens read.", registry=own)
        self.cached = Counter("weightroom_cached_tokens", "Prompt tokens found in shared pages.", registry=own)
        self.generated = Counter("weightroom_generated_tokens", "Tokens generated.", registry=own)
        self.cancels = Counter("weightroom_cancels", "Requests whose client left.", registry=own)
        self.ttft = Histogram("weightroom_ttft_seconds", "Arrival to first token.", buckets=SECONDS, registry=own)
        self.itl = Histogram("weightroom_itl_seconds", "Mean time between tokens.", buckets=SECONDS, registry=own)
        self.e2e = Histogram("weightroom_e2e_seconds", "Arrival to end.", buckets=SECONDS, registry=own)
        self._registry.register(_Gauges(look))

    def text(self) -> bytes:
        """Write all values in Prometheus' text format."""
        return generate_latest(self._registry)
