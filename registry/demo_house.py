"""The demo's house: `weightroom serve` as a child in a temporary folder, and visitors that use it as people do."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path

REPO = "demo/tiny-chat"


class DemoFailed(Exception):
    """A step went wrong; the message is the step's own."""


class House:
    """A registry with its sidecar in a temporary folder, and the environment of its visitors."""

    def __init__(self, folder: Path, environ: Mapping[str, str]) -> None:
        self.folder = folder
        self.port, self.sidecar_port = _free_ports(2)
        self.url = f"http://127.0.0.1:{self.port}"
        self.chat_url = f"http://127.0.0.1:{self.sidecar_port}/v1"
        self.chats = find_spec("torch") is not None
        own = {name: value for name, value in environ.items() if not name.startswith(("WEIGHTROOM_", "HF_", "GIT_"))}
        self._settings = own | {
            "WEIGHTROOM_DATA": str(folder / "data"),
            "WEIGHTROOM_PORT": str(self.port),
            "WEIGHTROOM_SIDECAR_PORT": str(self.sidecar_port),
            "WEIGHTROOM_CHECKOUTS": str(folder / "checkouts"),
        }
        self._prepare()
        self.visitor = own | self._visitor()

    def _prepare(self) -> None:
        self.cli("migrate")
        self.cli("user", "create", "demo", "--admin")
        self.token = self.cli("token", "create", "demo").strip()

    def _visitor(self) -> dict[str, str]:
        home = self.folder / "home"
        home.mkdir()
        return {
            "HOME": str(home),
            "HF_ENDPOINT": self.url,
            "HF_TOKEN": self.token,
            "HF_HOME": str(home / "hf"),
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "OPENAI_BASE_URL": self.chat_url,
            "OPENAI_API_KEY": self.token,
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_AUTHOR_NAME": "Demo",
            "GIT_AUTHOR_EMAIL": "demo@example.org",
            "GIT_COMMITTER_NAME": "Demo",
            "GIT_COMMITTER_EMAIL": "demo@example.org",
        }

    def cli(self, *arguments: str) -> str:
        """Run a `weightroom` command."""
        return run([sys.executable, "-m", "registry.cli", *arguments], self.folder, self._settings)

    def git(self, *arguments: str, at: Path) -> str:
        """Run git as the visitor."""
        return run(["git", *arguments], at, self.visitor).strip()

    def python(self, code: str, *arguments: str) -> str:
        """Run a visitor's lines."""
        return run([sys.executable, "-c", code, *arguments], self.folder, self.visitor).strip()

    @property
    def remote(self) -> str:
        """The clone URL, with the token as git takes it."""
        return f"http://demo:{self.token}@127.0.0.1:{self.port}/{REPO}"

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
        """Run `weightroom serve` while the block runs."""
        log = (self.folder / "serve.log").open("wb")
        command = [sys.executable, "-m", "registry.cli", "serve"]
        with log, subprocess.Popen(command, env=self._settings, cwd=self.folder, stdout=log, stderr=log) as process:
            try:
                self._wait(process, f"{self.url}/health")
                if self.chats:
                    self._wait(process, f"http://127.0.0.1:{self.sidecar_port}/health")
                yield
            finally:
                process.terminate()
                process.wait(timeout=60)

    def _wait(self, process: subprocess.Popen[bytes], url: str) -> None:
        deadline = time.monotonic() + 120
        while not _answers(url):
            if process.poll() is not None or time.monotonic() > deadline:
                raise DemoFailed(f"{url} does not answer:\n{(self.folder / 'serve.log').read_text()[-2000:]}")
            time.sleep(0.05)

    def make_model(self, work: Path, seed: int) -> None:
        """Write a tiny model of random weights; without the `inference` extra, bytes that only look like one."""
        if self.chats:
            run([sys.executable, "-m", "inference.tiny", str(work), "--seed", str(seed)], self.folder, self.visitor)
        else:
            (work / "model.safetensors").write_bytes(bytes([seed]) * (1 << 20))

    def create_repo(self) -> None:
        """Make the demo's repo."""
        body = json.dumps({"name": "tiny-chat", "type": "model"}).encode()
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        urllib.request.urlopen(urllib.request.Request(f"{self.url}/api/repos/create", body, headers)).close()


def run(command: list[str], at: Path, environment: Mapping[str, str]) -> str:
    """Run a program and return what it printed.

    Raises: DemoFailed, with what it said instead.
    """
    done = subprocess.run(command, cwd=at, env=dict(environment), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        shown = " ".join(command[:4])
        raise DemoFailed(f"{shown} ended with {done.returncode}:\n{(done.stderr or done.stdout)[-2000:]}")
    return done.stdout


def _free_ports(count: int) -> list[int]:
    """Find ports that nobody listens on now; another program may still take one before we do."""
    with contextlib.ExitStack() as opened:
        sockets = [opened.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=2).close()
    except OSError:
        return False
    return True
