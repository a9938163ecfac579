"""`/v1/chat/completions` over a socket: shapes, streams, and what ends a request early."""

from __future__ import annotations

import json
import math
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from inference.app import assemble
from inference.keys import Keys
from inference.limits import Lines
from inference.pool import Pool
from inference.routes.chat import LEAST, sayable
from inference.visits import Visits
from tests.inference.echo import SHA, EchoEngine, EchoOrigin, EchoShelf, held, wait_until
from tests.inference.listening import listening

URL = "/v1/chat/completions"


def _body(text: str = "The quick brown fox", **fields: object) -> dict[str, object]:
    asked = {"model": "acme/echo", "messages": [{"role": "user", "content": text}], "temperature": 0, "max_tokens": 8}
    return {**asked, **fields}


@pytest.fixture
def client(sidecar: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=sidecar, timeout=30) as client:
        yield client


def _events(text: str) -> list[dict[str, object]]:
    lines = [line for line in text.split("\n\n") if line]
    assert all(line.startswith("data: ") for line in lines)
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line[6:]) for line in lines[:-1]]


def test_an_answer_has_openais_shape_and_names_its_commit(client: httpx.Client) -> None:
    answer = client.post(URL, json=_body(), headers={"X-Request-Id": "mine-1"})
    assert answer.status_code == 200
    body = answer.json()
    assert body["object"] == "chat.completion"
    assert body["model"] == "acme/echo"
    assert body["choices"][0]["message"]["role"] == "assistant"
    assert body["choices"][0]["finish_reason"] == "length"
    assert body["usage"]["total_tokens"] == body["usage"]["prompt_tokens"] + 8
    assert answer.headers["x-model-commit"] == SHA
    assert answer.headers["x-request-id"] == "mine-1"
    assert body["system_fingerprint"].startswith(f"wr-{SHA[:12]}-")


def test_a_stream_says_the_same_in_order(client: httpx.Client) -> None:
    plain = client.post(URL, json=_body()).json()
    answer = client.post(URL, json=_body(stream=True, stream_options={"include_usage": True}))
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["cache-control"] == "no-store"
    chunks = _events(answer.text)
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}  # type: ignore[index]
    assert all(chunk["usage"] is None for chunk in chunks[:-1])
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"] == plain["usage"]
    middle = [chunk["choices"][0] for chunk in chunks[:-1]]  # type: ignore[index]
    assert "".join(part["delta"].get("content", "") for part in middle) == plain["choices"][0]["message"]["content"]
    assert [part["finish_reason"] for part in middle if part["finish_reason"]] == ["length"]
    assert middle[-1]["delta"] == {}
    assert len({chunk["id"] for chunk in chunks}) == 1


def test_an_unasked_usage_is_not_sent(client: httpx.Client) -> None:
    assert all("usage" not in chunk for chunk in _events(client.post(URL, json=_body(stream=True)).text))


@pytest.mark.parametrize("stream", [False, True])
def test_refusals_are_real_statuses_also_for_streams(client: httpx.Client, stream: bool) -> None:
    for fields, status, code in (
        ({"model": "acme/none"}, 404, "model_not_found"),
        ({"temperature": 9}, 400, "invalid_value"),
        ({"messages": [{"role": "user", "content": "x " * 400}]}, 400, "context_length_exceeded"),
    ):
        answer = client.post(URL, json=_body(stream=stream, **fields))
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


def test_bodies_are_json_of_bounded_size(client: httpx.Client) -> None:
    assert client.post(URL, content=b"{").json()["error"]["code"] == "unsupported_media_type"
    headers = {"Content-Type": "application/json; charset=utf-8"}
    assert client.post(URL, content=b"{", headers=headers).json()["error"]["code"] == "invalid_json"
    large = client.post(URL, content=b" " * (8 * 2**20 + 1), headers=headers)
    assert (large.status_code, large.json()["error"]["code"]) == (413, "request_too_large")


def test_a_broken_engine_is_a_500_or_an_event_without_done(shelf: EchoShelf) -> None:
    engine = EchoEngine(fail_after=2)
    pool = Pool(shelf, lambda path, repo, sha: engine, 10**12, 0)
    app = assemble(pool=pool, keys=Keys("none"), visits=Visits(), origin=EchoOrigin(), find=shelf.resolve)
    with listening(app) as url:
        answer = httpx.post(url + URL, json=_body())
        assert (answer.status_code, answer.json()["error"]["code"]) == (500, "engine_failed")
        lines = [line for line in httpx.post(url + URL, json=_body(stream=True)).text.split("\n\n") if line]
    pool.close()
    assert json.loads(lines[-1][6:])["error"]["code"] == "engine_failed"


def _send(url: str, body: dict[str, object]) -> socket.socket:
    """Send a request and keep the connection in hand."""
    parts = urlsplit(url)
    content = json.dumps(body).encode()
    head = f"POST {URL} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    connection = socket.create_connection((parts.hostname, parts.port), timeout=30)
    connection.sendall(head.encode() + content)
    return connection


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_frees_engine_and_lease(
    sidecar: str, engine: EchoEngine, pool: Pool, stream: bool
) -> None:
    engine.gate.clear()
    connection = _send(sidecar, _body(stream=stream))
    wait_until(lambda: len(engine.seen) == 1)
    assert held(pool) == 1
    connection.close()
    wait_until(lambda: engine.cancelled)
    engine.gate.set()
    wait_until(lambda: not held(pool))


def test_a_client_that_leaves_the_line_is_never_run(pool: Pool, shelf: EchoShelf, engine: EchoEngine) -> None:
    lines = Lines(max_queue=4, slots=1)
    app = assemble(pool=pool, keys=Keys("none"), visits=Visits(), origin=EchoOrigin(), find=shelf.resolve, lines=lines)
    engine.gate.clear()
    with listening(app) as url:
        first, second = _send(url, _body()), None
        wait_until(lambda: lines.counts() == (0, 1))
        second = _send(url, _body("second"))
        wait_until(lambda: lines.counts() == (1, 1))
        second.close()
        wait_until(lambda: lines.counts() == (0, 1))
        engine.gate.set()
        assert b"200 OK" in first.recv(4096)
        first.close()
        wait_until(lambda: lines.counts() == (0, 0))
    assert len(engine.seen) == 1


def test_a_full_line_is_a_429_with_a_time(pool: Pool, shelf: EchoShelf, engine: EchoEngine) -> None:
    lines = Lines(max_queue=1, slots=1)
    app = assemble(pool=pool, keys=Keys("none"), visits=Visits(), origin=EchoOrigin(), find=shelf.resolve, lines=lines)
    engine.gate.clear()
    with listening(app) as url:
        waiting = [_send(url, _body()), _send(url, _body())]
        wait_until(lambda: lines.counts() == (1, 1))
        answer = httpx.post(url + URL, json=_body())
        assert (answer.status_code, answer.json()["error"]["type"]) == (429, "rate_limit_error")
        assert 1 <= int(answer.headers["retry-after"]) <= 60
        assert httpx.get(url + "/health").status_code == 200
        engine.gate.set()
        for connection in waiting:
            assert b"200 OK" in connection.recv(4096)
            connection.close()


@pytest.mark.parametrize("stream", [False, True])
def test_a_deadline_ends_a_request_and_frees_its_row(
    sidecar: str, engine: EchoEngine, pool: Pool, stream: bool
) -> None:
    engine.gate.clear()
    answer = httpx.post(sidecar + URL, json=_body(stream=stream, timeout=0.2))
    if stream:
        assert "deadline_exceeded" in answer.text
        assert "[DONE]" not in answer.text
    else:
        assert (answer.status_code, answer.json()["error"]["code"]) == (504, "deadline_exceeded")
    engine.gate.set()
    wait_until(lambda: not held(pool) and not engine.stats().running)


def test_a_closing_house_refuses_new_work_and_tells_those_who_stay(
    pool: Pool, shelf: EchoShelf, engine: EchoEngine
) -> None:
    visits = Visits()
    app = assemble(pool=pool, keys=Keys("none"), visits=visits, origin=EchoOrigin(), find=shelf.resolve)
    engine.gate.clear()
    with listening(app) as url:
        running = _send(url, _body(stream=True))
        wait_until(lambda: len(engine.seen) == 1)
        drain = threading.Thread(target=visits.drain, args=(0.3,))
        drain.start()
        wait_until(lambda: visits.draining)
        refused = httpx.post(url + URL, json=_body())
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "draining")
        assert httpx.get(url + "/ready").status_code == 503
        drain.join(10)
        text = b""
        while piece := running.recv(65536):
            text += piece
            if b'"draining"' in text:
                break
        running.close()
        assert b'"draining"' in text
        assert b"[DONE]" not in text
        engine.gate.set()


def test_a_closing_house_ends_who_waits_for_a_load(shelf: EchoShelf, engine: EchoEngine) -> None:
    gate, visits = threading.Event(), Visits()

    def slow(path: Path, repo: str, sha: str) -> EchoEngine:
        assert gate.wait(30)
        return engine

    pool = Pool(shelf, slow, 10**12, 0)
    app = assemble(pool=pool, keys=Keys("none"), visits=visits, origin=EchoOrigin(), find=shelf.resolve)
    with listening(app) as url, ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(httpx.post, url + URL, json=_body(), timeout=30)
        wait_until(lambda: [state.phase for state in pool.states()] == ["loading"])
        began = time.monotonic()
        assert not visits.drain(0.1)
        answer = waiting.result()
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "draining")
        assert time.monotonic() - began < 4
        gate.set()
        wait_until(lambda: pool.states()[0].phase == "ready" and not held(pool))
    pool.close()


@pytest.mark.parametrize("depth", [50, 180, 240, 480, 900, 990, 1100, 5000])
def test_variables_that_are_nested_deeply_are_rendered_or_refused(client: httpx.Client, depth: int) -> None:
    nested = "[" * depth + "]" * depth
    body = json.dumps(_body(max_tokens=1))[:-1] + ', "chat_template_kwargs": {"x": ' + nested + "}}"
    answer = client.post(URL, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == (200 if depth == 50 else answer.status_code)
    assert answer.status_code in (200, 400), answer.text


def test_a_log_probability_that_is_no_number_is_said_as_the_least_one() -> None:
    assert [sayable(value) for value in (math.nan, -math.inf, -0.5)] == [LEAST, LEAST, -0.5]
