"""CPU of the Hub's hottest routes beside a bare Starlette route in the same run.

    uv run --extra inference --group test python tests/bench/hub_routes.py [--requests 3000]

Every request carries a token; the database is read on each. Prints milliseconds of server CPU per request, requests
per second of four keep-alive clients, and the ratio to a threaded Starlette route that does nothing.
"""

from __future__ import annotations

import argparse
import http.client
import json
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import peers

CLIENTS = 4


def call(
    server: peers.Server, method: str, path: str, body: bytes | None = None, kind: str = "application/json"
) -> bytes:
    """Make one request; an error status raises."""
    headers = {"Authorization": f"Bearer {server.token}", "Content-Type": kind}
    request = urllib.request.Request(server.url + path, body, headers, method=method)
    with urllib.request.urlopen(request) as answer:
        return bytes(answer.read())


def fill(server: peers.Server) -> None:
    """Make a repo with a config and a README."""
    call(server, "POST", "/api/repos/create", json.dumps({"name": "hot", "type": "model"}).encode())
    lines = [
        {"key": "header", "value": {"summary": "files"}},
        {"key": "file", "value": {"path": "config.json", "content": '{"model_type": "llama"}', "encoding": "utf-8"}},
        {
            "key": "file",
            "value": {"path": "README.md", "content": "---\nlicense: mit\n---\n# Hot\n", "encoding": "utf-8"},
        },
    ]
    body = "\n".join(json.dumps(line) for line in lines).encode()
    call(server, "POST", "/api/models/bench/hot/commit/main", body, "application/x-ndjson")


def measure(server: peers.Server, method: str, path: str, requests: int) -> tuple[float, float]:
    """Return CPU milliseconds per request and requests per second."""
    headers = {"Authorization": f"Bearer {server.token}"} if server.token else {}
    load(server.url, method, path, headers, 200)
    cpu, start = server.cpu(), time.perf_counter()
    load(server.url, method, path, headers, requests)
    seconds = time.perf_counter() - start
    return (server.cpu() - cpu) / requests * 1000, requests / seconds


def load(url: str, method: str, path: str, headers: Mapping[str, str], requests: int) -> None:
    """Send requests over a few keep-alive connections; any status of 400 or above ends the run."""

    def client() -> None:
        connection = http.client.HTTPConnection(url.removeprefix("http://"))
        for _ in range(requests // CLIENTS):
            connection.request(method, path, headers=dict(headers))
            answer = connection.getresponse()
            answer.read()
            if answer.status >= 400:
                failures.append(f"{method} {path}: {answer.status}")
                return
        connection.close()

    failures: list[str] = []
    threads = [threading.Thread(target=client) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise SystemExit(failures[0])


def run(work: Path, requests: int) -> list[dict[str, object]]:
    """Measure every route and return its rows."""
    rows: list[dict[str, object]] = []
    with peers.weightroom(work / "data") as ours, peers.bare_starlette() as bare:
        fill(ours)
        sha = json.loads(call(ours, "GET", "/api/models/bench/hot"))["sha"]
        floor = 0.0
        for name, server, method, path in (
            ("bare Starlette, async", bare, "GET", "/async"),
            ("bare Starlette, threaded", bare, "GET", "/sync"),
            ("HEAD resolve, branch", ours, "HEAD", "/bench/hot/resolve/main/config.json"),
            ("HEAD resolve, sha", ours, "HEAD", f"/bench/hot/resolve/{sha}/config.json"),
            ("GET resolve, small file", ours, "GET", f"/bench/hot/resolve/{sha}/config.json"),
            ("model_info", ours, "GET", "/api/models/bench/hot"),
        ):
            milliseconds, rate = measure(server, method, path, requests)
            floor = milliseconds if "threaded" in name else floor
            ratio = milliseconds / floor if floor else 0.0
            rows.append({"route": name, "cpu_ms": round(milliseconds, 3), "rps": round(rate), "ratio": round(ratio, 2)})
            print(f"{name:28} {milliseconds:6.3f} ms CPU   {rate:7.0f} requests/s   ratio {ratio:5.2f}", flush=True)
    return rows


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=3000)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = run(Path(folder), chosen.requests)
    if chosen.json:
        chosen.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
