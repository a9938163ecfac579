"""Around every request: ids, one log line without words, counters, and errors that tell nothing."""

from __future__ import annotations

import json
import logging

import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from inference.meters import Load, Meters
from inference.routes.front import Front
from tests.inference.echo import SHA
from tests.inference.listening import listening

CHAT = {"model": "acme/echo", "messages": [{"role": "user", "content": "sesame"}], "max_tokens": 2, "temperature": 0}


@pytest.mark.parametrize(("sent", "kept"), [("abc-1", True), ("x" * 129, False), ("a b", False), ("", False)])
def test_a_short_printable_id_is_echoed_and_others_are_replaced(sidecar: str, sent: str, kept: bool) -> None:
    given = httpx.get(f"{sidecar}/health", headers={"X-Request-Id": sent}).headers["x-request-id"]
    assert (given == sent) is kept
    assert given


def test_a_request_leaves_one_line_without_its_words(sidecar: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="inference.requests"):
        httpx.post(f"{sidecar}/v1/chat/completions?q=sesame", json=CHAT, headers={"Authorization": "Bearer sesame"})
        httpx.get(f"{sidecar}/health")
    line = json.loads(caplog.messages[0])
    assert line["route"] == "/v1/chat/completions"
    assert (line["status"], line["model"], line["sha"], line["finish"]) == (200, "acme/echo", SHA, "length")
    assert (line["completion"], line["cancelled"], line["actor"]) == (2, False, "local")
    assert line["total_ms"] >= line["ttft_ms"] >= line["queue_ms"] >= 0
    assert not any("sesame" in message for message in caplog.messages)


def test_requests_and_tokens_are_counted(sidecar: str) -> None:
    httpx.post(f"{sidecar}/v1/chat/completions", json=CHAT)
    text = httpx.get(f"{sidecar}/metrics").text
    assert 'weightroom_requests_total{code="200",route="/v1/chat/completions"} 1.0' in text
    assert "weightroom_generated_tokens_total 2.0" in text
    assert "vllm:num_requests_running 0.0" in text
    assert "weightroom_ttft_seconds_count 1.0" in text


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "unknown_url"),
        ("GET", "/v1/nowhere", 404, "unknown_url"),
        ("GET", "/v1/chat/completions", 405, "method_not_allowed"),
        ("DELETE", "/health", 405, "method_not_allowed"),
        ("POST", "/v1/embeddings", 501, "unsupported_endpoint"),
        ("POST", "/v1/images/generations", 501, "unsupported_endpoint"),
        ("GET", "/v1/fine_tuning/jobs", 501, "unsupported_endpoint"),
        ("POST", "/v1/rerank", 501, "unsupported_endpoint"),
        ("POST", "/v1/webhook_endpoints", 501, "unsupported_endpoint"),
        ("GET", "/v1/chat/completions/abc", 501, "unsupported_endpoint"),
    ],
)
def test_what_is_not_served_says_so_in_openais_words(
    sidecar: str, method: str, path: str, status: int, code: str
) -> None:
    answer = httpx.request(method, sidecar + path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert answer.headers["x-request-id"]


def test_what_breaks_is_logged_and_tells_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async def broken(_: Request) -> Response:
        raise ZeroDivisionError("secret detail")

    meters = Meters(lambda: Load(0, 0, 0))
    app = Starlette(routes=[Route("/x", broken)], middleware=[Middleware(Front, meters=meters)])
    with listening(app) as url:
        answer = httpx.get(url + "/x")
    assert answer.status_code == 500
    assert answer.json()["error"]["code"] == "internal_error"
    assert "secret" not in answer.text
    assert answer.headers["x-request-id"] in caplog.text
    assert "secret detail" in caplog.text
