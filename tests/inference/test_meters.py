"""Counters are written in Prometheus' text, and the load is asked for when the text is."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from inference.meters import Load, Meters


def test_the_text_is_read_back_by_prometheus_own_parser() -> None:
    loads = iter([Load(3, 2, 1000), Load(4, 2, 1000)])
    meters = Meters(lambda: next(loads))
    meters.requests.labels("/v1/x", "200").inc()
    meters.ttft.observe(0.2)
    families = {family.name: family for family in text_string_to_metric_families(meters.text().decode())}
    assert families["weightroom_requests"].samples[0].labels == {"route": "/v1/x", "code": "200"}
    assert families["weightroom_queued"].samples[0].value == families["vllm:num_requests_waiting"].samples[0].value == 3
    assert families["weightroom_model_bytes"].samples[0].value == 1000
    assert b"weightroom_queued 4.0" in meters.text()


def test_turnover_and_caches_are_told() -> None:
    text = Meters(lambda: Load(0, 0, 0, loads=3, evictions=2, kv_used=25, kv_total=100)).text().decode()
    for line in ("weightroom_loads_total 3.0", "weightroom_evictions_total 2.0", "weightroom_kv_used_ratio 0.25"):
        assert line in text


def test_two_houses_in_one_process_count_apart() -> None:
    one, other = Meters(lambda: Load(0, 0, 0)), Meters(lambda: Load(0, 0, 0))
    one.cancels.inc()
    assert b"weightroom_cancels_total 1.0" in one.text()
    assert b"weightroom_cancels_total 0.0" in other.text()
