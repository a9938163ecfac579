"""A whole sidecar as a child process, as users run it, and models pushed to the registry that it reads."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.services.house import House

UPLOAD = """
import sys
from huggingface_hub import HfApi
api = HfApi()
api.create_repo(sys.argv[1], private=sys.argv[3] == "private", exist_ok=True)
print(api.upload_folder(repo_id=sys.argv[1], folder_path=sys.argv[2]).oid)
"""


def upload(house: House, repo: str, folder: Path, *, visibility: str = "public") -> str:
    """Upload a folder with huggingface_hub; returns the commit's sha."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder.parent),
        "HF_ENDPOINT": house.url,
        "HF_TOKEN": house.token,
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", UPLOAD, repo, str(folder), visibility],
        env=environment, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.split()[-1]


@dataclass
class Sidecar:
    """A running sidecar: its base URL, and what it wrote to its log."""

    url: str
    process: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)

    def until_ready(self, seconds: float = 90.0) -> None:
        """Wait until its pinned models are loaded."""
        until = time.monotonic() + seconds
        while httpx.get(f"{self.url}/ready").status_code != 200:
            assert time.monotonic() < until, self.lines
            time.sleep(0.1)

    def gauge(self, name: str) -> float:
        """Read one value of its metrics."""
        text = httpx.get(f"{self.url}/metrics").text
        return float(next(line for line in text.splitlines() if line.startswith(name + " ")).split()[-1])

    def until_idle(self, seconds: float) -> None:
        """Wait until it answers nobody."""
        until = time.monotonic() + seconds
        while self.gauge("weightroom_running"):
            assert time.monotonic() < until
            time.sleep(0.02)

    def stop(self) -> int:
        """Ask it to end; returns its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60)


@contextlib.contextmanager
def open_sidecar(folder: Path, registry: str, *arguments: str, **settings: str) -> Iterator[Sidecar]:
    """Run a sidecar while the block runs, on a free port; gives it once it accepts."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("WEIGHTROOM_")}
    environment = inherited | {f"WEIGHTROOM_{name}": value for name, value in settings.items()}
    command = [sys.executable, "-m", "inference.cli", "serve", "--registry", registry, "--port", "0"]
    command += ["--device", "cpu", "--dtype", "float32", "--checkouts", str(folder / "checkouts"), *arguments]
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder
    )
    assert process.stdout
    assert process.stderr
    sidecar = Sidecar("", process)
    readers = [threading.Thread(target=sidecar.lines.extend, args=(process.stderr,), daemon=True)]
    said: queue.Queue[str] = queue.Queue()
    readers.append(threading.Thread(target=lambda: [said.put(line) for line in process.stdout or ()], daemon=True))
    for reader in readers:
        reader.start()
    try:
        first = said.get(timeout=90)
        assert "listens on http://" in first, (first, sidecar.lines)
        sidecar.url = first.split()[-1]
        yield sidecar
    finally:
        sidecar.stop()
        for reader in readers:
            reader.join(10)
        process.stdout.close()
        process.stderr.close()
