"""The sidecar beside `transformers serve`: tokens per second and time to first token of streamed chats, same run.

    uv run --extra inference --group test --with fastapi python tests/bench/sidecar.py [--tokens 32] [--rounds 3]

`transformers serve` needs fastapi; where that is absent, its rows are left out, and that is said.
All serve one tiny random model in float32 on one thread, one after the other in every round. Prints medians over the
rounds at 1, 8 and 32 clients, and the ratio of the sidecar to each mode of `transformers serve`.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
from inference.tiny import make_chat_model
from tests.services.house import free_port, open_house
from tests.services.sidecar import open_sidecar, upload

CLIENTS = (1, 8, 32)
TOPICS = ("weather", "foxes", "weights", "commits", "Paris", "dogs", "models", "folders")
OURS = "sidecar"
PEERS: dict[str, tuple[str, ...]] = {
    "transformers serve": (),
    "transformers serve, batching": ("--continuous-batching",),
}


@dataclass
class Server:
    """Somebody who answers chats; `figures` holds (tokens/s, seconds to the first token) by number of clients."""

    name: str
    url: str
    model: str
    figures: dict[int, list[tuple[float, float]]] = field(default_factory=dict)

    def median(self, clients: int) -> tuple[float, float]:
        """Give the median rate and the median time to the first token."""
        rates, firsts = zip(*self.figures[clients], strict=True)
        return statistics.median(rates), statistics.median(firsts)


def write_model(folder: Path) -> None:
    """Write a tiny model that never ends an answer by itself, so that all answers are equally long."""
    make_chat_model(folder)
    for path in folder.glob("*config.json"):
        config = json.loads(path.read_text())
        path.write_text(json.dumps({key: value for key, value in config.items() if not key.startswith("eos_token")}))


@contextlib.contextmanager
def transformers_serve(folder: Path, *flags: str) -> Iterator[str]:
    """Run `transformers serve` on a folder while the block runs; gives its URL."""
    port = free_port()
    command = [str(Path(sys.executable).with_name("transformers")), "serve", str(folder), "--port", str(port)]
    command += ["--device", "cpu", "--dtype", "float32", "--log-level", "error", *flags]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with (folder.parent / "serve.log").open("ab") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 120
        while not _answers(f"http://127.0.0.1:{port}/health"):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit((folder.parent / "serve.log").read_text()[-3000:])
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=5).close()
    except OSError:
        return False
    return True


def chat(server: Server, topic: str, tokens: int) -> tuple[int, float]:
    """Stream one greedy chat; returns its tokens, and seconds to the first one."""
    asked = {"role": "user", "content": f"What does the model think of {topic} today?"}
    body = {"model": server.model, "messages": [asked], "max_tokens": tokens, "temperature": 0, "stream": True}
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=300)
    start = time.perf_counter()
    headers = {"Content-Type": "application/json"}
    options = {"stream_options": {"include_usage": True}}
    connection.request("POST", "/v1/chat/completions", json.dumps(body | options), headers)
    answer = connection.getresponse()
    if answer.status != 200:
        raise SystemExit(f"{server.name}: {answer.status} {answer.read()[:500]!r}")
    first, count = 0.0, 0
    for line in answer:
        if not line.startswith(b"data: {"):
            continue
        chunk = json.loads(line[6:])
        if any(choice["delta"].get("content") for choice in chunk["choices"]):
            first = first or time.perf_counter() - start
            count += 1
        # Several tokens may come in one chunk; who counts them is believed.
        count = (chunk.get("usage") or {}).get("completion_tokens", count)
    connection.close()
    return count, first


def measure(server: Server, clients: int, tokens: int) -> None:
    """Let `clients` chats run at once and note the figures."""
    told: list[tuple[int, float]] = []

    def client(number: int) -> None:
        told.append(chat(server, f"{TOPICS[number % len(TOPICS)]} {number}", tokens))

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - start
    if len(told) != clients:
        raise SystemExit(f"{server.name}: {clients - len(told)} of {clients} chats failed")
    figure = (sum(count for count, _ in told) / seconds, statistics.median(first for _, first in told))
    server.figures.setdefault(clients, []).append(figure)


def run(work: Path, tokens: int, rounds: int) -> list[dict[str, object]]:
    """Measure all servers and return their rows."""
    folder = work / "model"
    write_model(folder)
    with contextlib.ExitStack() as stack:
        house = stack.enter_context(open_house(work / "house"))
        upload(house, "ann/bench", folder)
        sidecar = stack.enter_context(open_sidecar(work, house.url, "--model", "ann/bench"))
        sidecar.until_ready()
        servers = [Server(OURS, sidecar.url, "ann/bench")]
        if find_spec("fastapi") is None:
            print("transformers serve is left out: fastapi is not installed", file=sys.stderr)
        else:
            for name, flags in PEERS.items():
                servers.append(Server(name, stack.enter_context(transformers_serve(folder, *flags)), str(folder)))
        for server in servers:
            chat(server, "nothing", tokens)
        for _ in range(rounds):
            for clients in CLIENTS:
                for server in servers:
                    measure(server, clients, tokens)
    return [row for clients in CLIENTS for row in rows(servers, clients)]


def rows(servers: list[Server], clients: int) -> Iterator[dict[str, object]]:
    """Print and give the figures at one number of clients."""
    own_rate, own_first = servers[0].median(clients)
    for server in servers:
        rate, first = server.median(clients)
        faster, sooner = own_rate / rate, own_first / first if first else 0.0
        print(
            f"{clients:3} clients  {server.name:30} {rate:8.0f} tokens/s   first {first * 1000:7.0f} ms   "
            f"sidecar: rate x{faster:.2f}, first x{sooner:.2f}",
            flush=True,
        )
        yield {
            "clients": clients,
            "server": server.name,
            "tokens_per_second": round(rate),
            "first_ms": round(first * 1000),
            "sidecar_rate_ratio": round(faster, 2),
            "sidecar_first_ratio": round(sooner, 2),
        }


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = run(Path(folder), chosen.tokens, chosen.rounds)
    if chosen.json:
        chosen.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
