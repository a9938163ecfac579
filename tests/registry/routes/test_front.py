"""Each answer, whatever its door, has a request id and safe headers; each request one line in the log."""

from __future__ import annotations

import json
import logging
from ipaddress import ip_network

import anyio
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient
from starlette.types import Message

from registry.limits import Limits
from registry.routes import context
from registry.routes.front import Front, Origins, bucket_of
from registry.routes.meter import Meter
from registry.routes.problems import Problems

PROXY = ip_network("10.0.0.0/8")


def echo(request: Request) -> Response:
    return PlainTextResponse(f"{context.origin(request)} {request.scope['state']['client']}")


def boom(request: Request) -> Response:
    raise RuntimeError("hunter2")


def failed(request: Request, error: Exception) -> Response:
    return Problems("plain").render(error, request)


def application() -> Starlette:
    routes = [Route("/api/{name}", echo), Route("/boom", boom), Route("/a/{rest:path}", echo)]
    return Starlette(routes=routes, exception_handlers={Exception: failed})


def client(
    *,
    public_url: str | None = None,
    peer: str = "203.0.113.9",
    quotas: dict[str, int] | None = None,
    meter: Meter | None = None,
) -> TestClient:
    front = Front(
        application(),
        origins=Origins(public_url, [PROXY]),
        limits=Limits(quotas or {}),
        meter=meter or Meter(),
    )
    return TestClient(front, base_url="http://hub.example", client=(peer, 1), raise_server_exceptions=False)


def test_a_request_id_is_kept_or_made() -> None:
    assert client().get("/api/x", headers={"X-Request-Id": "trace-1"}).headers["x-request-id"] == "trace-1"
    made = client().get("/api/x", headers={"X-Request-Id": "two\twords"}).headers["x-request-id"]
    assert len(made) == 32


def test_every_answer_has_safe_headers() -> None:
    for path in ("/api/x", "/nothing", "/boom"):
        headers = client().get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert "sandbox" in headers["content-security-policy"]
        assert "x-request-id" in headers


def test_the_log_line_has_neither_query_nor_token(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "registry.access"):
        client().get("/api/x?token=hf_hunter2", headers={"Authorization": "Bearer hf_hunter2"})
    (record,) = [record for record in caplog.records if record.name == "registry.access"]
    line = json.loads(record.getMessage())
    assert (line["method"], line["path"], line["status"]) == ("GET", "/api/x", 200)
    assert "hunter2" not in record.getMessage()


def test_a_failure_outside_every_door_tells_only_its_request_id(caplog: pytest.LogCaptureFixture) -> None:
    response = client().get("/boom")
    assert response.status_code == 500
    assert response.headers["x-request-id"] in response.text
    assert "hunter2" not in response.text
    assert "hunter2" in caplog.text


@pytest.mark.parametrize("path", ["/a//b", "/a/../b", "/a/./b", "/a/..", "/a/b\0", "/a/b\n", "/a/b\\c", "a", ""])
def test_a_path_that_reads_two_ways_is_refused(path: str) -> None:
    # A test client would tidy the path itself; a hostile one does not.
    scope = {"type": "http", "method": "GET", "path": path, "headers": [], "scheme": "http", "query_string": b""}
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b""}

    async def send(message: Message) -> None:
        sent.append(message)

    anyio.run(Front(application(), origins=Origins(None, []), limits=Limits({}), meter=Meter()), scope, receive, send)
    assert sent[0]["status"] == 400


def test_the_origin_is_what_the_client_asked() -> None:
    assert client().get("/api/x").text == "http://hub.example 203.0.113.9"


def test_forwarded_headers_of_strangers_are_not_believed() -> None:
    headers = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "evil.example", "X-Forwarded-For": "198.51.100.1"}
    assert client().get("/api/x", headers=headers).text == "http://hub.example 203.0.113.9"


def test_forwarded_headers_of_our_proxies_are_believed() -> None:
    headers = {
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "models.example",
        "X-Forwarded-For": "192.0.2.66, 198.51.100.1, 10.0.0.7",
    }
    assert client(peer="10.0.0.1").get("/api/x", headers=headers).text == "https://models.example 198.51.100.1"


def test_a_public_url_is_the_origin_whatever_is_asked() -> None:
    found = client(public_url="https://models.example").get("/api/x", headers={"Host": "evil.example"})
    assert found.text.startswith("https://models.example ")


def seen(request: Request) -> Response:
    raw = context.raw_path(request)
    return PlainTextResponse(f"{context.origin(request)} {request.url.path} {raw} {request.url.netloc}")


def below(path: str, public_url: str = "https://example.org/a/models", **more: str) -> str:
    """Ask for a path as a proxy passes it on; return origin, path, raw path and Host as rooms behind see them."""
    origins = Origins(public_url, [PROXY])
    app = Starlette(routes=[Route("/{rest:path}", seen)])
    front = Front(app, origins=origins, limits=Limits({}), meter=Meter())
    asked = TestClient(front, base_url="http://10.1.2.3:8000", client=("10.0.0.1", 1))
    answer = asked.get(path, headers=more)
    return answer.text if answer.status_code == 200 else str(answer.status_code)


@pytest.mark.parametrize(
    ("path", "inner"),
    [
        ("/ann/m/resolve/a%2Fb/c", "/ann/m/resolve/a/b/c /ann/m/resolve/a%2Fb/c"),
        ("/a/models/ann/m/resolve/a%2Fb/c", "/ann/m/resolve/a/b/c /ann/m/resolve/a%2Fb/c"),
        ("/%61/mod%65ls/ann/m", "/ann/m /ann/m"),
        ("/a/models", "/ /"),
        ("/a/models/", "/ /"),
        ("/a/modelsx/m", "/a/modelsx/m /a/modelsx/m"),
        ("/a%2Fmodels/m", "/a/models/m /a%2Fmodels/m"),
        ("/a/models/a/models/m", "/a/models/m /a/models/m"),
    ],
)
def test_the_prefix_of_the_public_url_is_taken_off_once_if_it_is_there(path: str, inner: str) -> None:
    assert below(path) == f"https://example.org/a/models {inner} example.org"


def test_a_proxy_that_says_what_it_took_off_is_believed_and_strangers_are_not() -> None:
    told = {"X-Forwarded-Prefix": "/hub"}
    assert below("/hub/m", "https://example.org/hub", **told).split()[1] == "/hub/m"
    front = Front(
        Starlette(routes=[Route("/{rest:path}", seen)]),
        origins=Origins("https://example.org/hub", []),
        limits=Limits({}),
        meter=Meter(),
    )
    assert TestClient(front).get("/hub/m", headers=told).text.split()[1] == "/m"


def test_below_a_prefix_odd_paths_are_refused_as_above_it() -> None:
    for path in ("/a/models//x", "/a/models/%2e%2e/x", "/a/models/x/%2E/y", "/a/models/b%5Cc"):
        assert below(path) == "400"


def test_rate_buckets_count_below_the_prefix() -> None:
    front = Front(application(), origins=Origins("https://example.org/m", []), limits=Limits({"api": 1}), meter=Meter())
    asked = TestClient(front)
    assert [asked.get(path).status_code for path in ("/m/api/x", "/api/x")] == [200, 429]


def test_every_refusal_of_the_front_is_in_the_words_of_the_door() -> None:
    limited = client(quotas={"git": 1, "lfs": 1})
    for path in ("/a/b/info/refs", "/a/b.git/info/lfs/locks"):
        limited.get(path)
    git, lfs = limited.get("/a/b/info/refs"), limited.get("/a/b.git/info/lfs/locks")
    assert (git.status_code, lfs.status_code) == (429, 429)
    assert git.headers["cache-control"] == "no-cache, max-age=0, must-revalidate"
    assert lfs.json()["request_id"] == lfs.headers["x-request-id"]
    odd = client().get("/api/models/a/b/tree/main//x")
    assert odd.status_code == 422
    assert "path" in odd.json()["error"]


def test_a_used_up_bucket_is_429_in_the_words_of_its_client() -> None:
    limited = client(quotas={"api": 1})
    first, second = limited.get("/api/x"), limited.get("/api/x")
    assert (first.status_code, first.headers["ratelimit"].split(";t=")[0]) == (200, '"api";r=0')
    assert second.status_code == 429
    assert int(second.headers["retry-after"]) <= 300
    assert "WEIGHTROOM_LIMIT_API" in second.json()["error"]


def test_finished_requests_are_counted_by_pattern_and_not_by_path() -> None:
    meter = Meter()
    watched = client(meter=meter)
    for path in ("/api/x", "/api/y", "/none"):
        watched.get(path)
    text = meter.text().decode()
    assert 'weightroom_requests_total{method="GET",route="/api/{name}",status="200"} 2.0' in text
    assert 'weightroom_requests_total{method="GET",route="none",status="404"} 1.0' in text
    assert "weightroom_requests_in_flight 0.0" in text
    assert "/api/x" not in text


def seen_by_rooms_behind(request: Request) -> Response:
    return PlainTextResponse(str(request.base_url))


def test_rooms_behind_see_the_origin_as_their_own() -> None:
    front = Front(
        Starlette(routes=[Route("/", seen_by_rooms_behind)]),
        origins=Origins("https://models.example", []),
        limits=Limits({}),
        meter=Meter(),
    )
    assert TestClient(front, base_url="http://10.1.2.3:8000").get("/").text == "https://models.example/"


@pytest.mark.parametrize(
    ("path", "bucket"),
    [
        ("/api/models", "api"),
        ("/ada/m/resolve/main/config.json", "resolve"),
        ("/ada/m.git/info/refs", "git"),
        ("/ada/m/git-upload-pack", "git"),
        ("/ada/m.git/info/lfs/objects/batch", "lfs"),
        ("/ada/m.git/info/lfs/locks/verify", "lfs"),
        ("/lfs/o/abc", None),
        ("/health", None),
    ],
)
def test_each_door_counts_in_its_bucket(path: str, bucket: str | None) -> None:
    assert bucket_of(path) == bucket


AT = "/xet/0123/g4"


@pytest.mark.parametrize(
    ("method", "path", "bucket"),
    [
        ("GET", f"{AT}/v1/chunks/default/ab", "xet"),
        ("POST", f"{AT}/v1/xorb-grants/default/ab", "xet"),
        ("POST", f"{AT}/v1/xorb-commits/default/ab/grant/cd", "xet"),
        ("HEAD", f"{AT}/v1/xorbs/default/ab", "xet"),
        ("GET", f"{AT}/v2/reconstructions/ab", "xet"),
        ("GET", f"{AT}/reconstruction/ab", "xet"),
        ("POST", f"{AT}/v1/anything", "xet"),
        ("GET", "/xet/blobs", "xet"),
        ("POST", f"{AT}/v1/xorbs/default/ab", None),
        ("POST", f"{AT}/v2/shards", None),
        ("POST", f"{AT}/shard/default/ab", None),
        ("POST", f"{AT}/xorb/default/ab", None),
        ("GET", "/xet/blob/xet/xorbs/ab/cd", None),
        ("GET", "/xet/blob/xet/xorbs/ab\ncd", None),
    ],
)
def test_of_chunks_everything_counts_but_their_bytes(method: str, path: str, bucket: str | None) -> None:
    assert bucket_of(path, method) == bucket


def test_too_much_of_chunks_is_429_and_a_chunk_is_not_there() -> None:
    limited = client(quotas={"xet": 1})
    limited.get(f"{AT}/v2/reconstructions/ab")
    refused = limited.get(f"{AT}/v2/reconstructions/ab")
    assert (refused.status_code, list(refused.json())) == (429, ["error"])
    assert 0 < int(refused.headers["retry-after"]) <= 300
    assert "WEIGHTROOM_LIMIT_XET" in refused.json()["error"]
    for path in (f"{AT}/v1/chunks/default/ab", f"{AT}/chunk/default/ab"):
        absent = limited.get(path)
        assert (absent.status_code, list(absent.json())) == (404, ["error"])
        assert "retry-after" not in absent.headers
        assert absent.headers["ratelimit"].startswith('"xet";r=0;')
