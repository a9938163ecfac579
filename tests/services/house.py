"""A whole registry as a child process, as users run it: on SQLite and a folder, or on PostgreSQL and a bucket."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from registry import cli, schema
from registry.accounts import Accounts
from registry.commands.opening import opened
from registry.config import Config
from registry.desk import Shelves
from registry.upkeep.fsck import Fsck
from tests.services.forked import Forked

ADMIN = "ann"


def free_port() -> int:
    """Find a port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class House:
    """A registry in `folder` with one admin, `ann`; starts, stops, dies and starts again on the same data and port."""

    folder: Path
    settings: Mapping[str, str] = field(default_factory=dict)
    port: int = 0
    token: str = ""
    process: Forked | None = None

    def __post_init__(self) -> None:
        self.port = self.port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = self.folder / "server.log"

    @property
    def environment(self) -> dict[str, str]:
        """What every command of this house runs with."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("WEIGHTROOM_")}
        return inherited | {"WEIGHTROOM_DATA": str(self.folder / "data")} | dict(self.settings)

    def cli(self, *arguments: str, data: str = "", check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a `weightroom` command."""
        command = [sys.executable, "-m", "registry.cli", *arguments]
        done = subprocess.run(
            command, env=self.environment, input=data, capture_output=True, text=True, check=False, timeout=120
        )
        if check and done.returncode != 0:
            raise AssertionError(f"{arguments} ended with {done.returncode}: {done.stderr}")
        return done

    def furnish(self) -> None:
        """Migrate, and make the admin with a token; as the commands do, without starting three processes for it."""
        config = Config.from_environ(self.environment)
        database = opened(config)
        schema.migrate(database)
        accounts = Accounts(database)
        accounts.create_user(ADMIN, admin=True)
        self.token = accounts.create_token(ADMIN, "admin")
        database.dispose()

    def findings(self) -> list[str]:
        """What `weightroom fsck --read-data` says, without the seconds that a process of its own takes to start."""
        with contextlib.closing(Shelves(Config.from_environ(self.environment))) as shelves:
            return findings(shelves)

    def new_token(self, user: str, role: str = "write") -> str:
        """Make a token for a user."""
        return self.cli("token", "create", user, "--role", role).stdout.strip()

    def start(self) -> None:
        """Start the server and wait until it answers."""
        self.process = Forked(cli.main, ["serve", "--no-sidecar", "--port", str(self.port)], self.environment, self.log)
        deadline = time.monotonic() + 30
        while not self.answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"the server did not come up:\n{self.log.read_text()[-3000:]}")
            time.sleep(0.02)

    def answers(self) -> bool:
        """True if the server answers at all."""
        try:
            urllib.request.urlopen(self.url + "/health", timeout=2).close()
        except urllib.error.HTTPError as refusal:
            refusal.close()
            return True
        except OSError:
            return False
        return True

    def enforced(self) -> str:
        """What readiness says of the bucket, once it says something: until then nothing is sent there directly."""
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            with urllib.request.urlopen(self.url + "/ready", timeout=10) as answer:
                if found := json.load(answer).get("storage"):
                    return str(found)
            time.sleep(0.05)
        raise AssertionError("readiness never named what the bucket enforces")

    def asked(self, method: str, path: str = "", since: int = 0) -> int:
        """Count the requests in the log, from byte `since` on, whose path begins with `path`."""
        with self.log.open("rb") as log:
            log.seek(since)
            wanted = f'"method": "{method}", "path": "{path}'
            return sum(wanted in line.decode(errors="replace") for line in log)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Stop the server; return its exit status."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(how)
        status = self.process.wait(timeout=60)
        self.process = None
        return status

    def resident(self) -> int:
        """Anonymous memory of the server process, in bytes; mapped files do not count."""
        assert self.process is not None
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("no RssAnon in /proc")

    def remote(self, repo: str, token: str | None = None) -> str:
        """Clone URL of a repo with a token in it."""
        return f"http://x:{token or self.token}@127.0.0.1:{self.port}/{repo}"


def findings(shelves: Shelves) -> list[str]:
    """What a check that reads every byte finds wrong."""
    fsck = Fsck(
        database=shelves.database,
        store=shelves.store,
        packs=shelves.packs,
        manifests=shelves.manifests,
        repositories=shelves.repositories,
    )
    return [finding.line() for finding in fsck.run(read_data=True)]


@contextlib.contextmanager
def open_house(folder: Path, **settings: str) -> Iterator[House]:
    """Run a furnished house while the block runs; settings are named without their prefix."""
    folder.mkdir(parents=True, exist_ok=True)
    house = House(folder, {f"WEIGHTROOM_{name}": value for name, value in settings.items()})
    house.furnish()
    house.start()
    try:
        yield house
    finally:
        if house.process is not None:
            house.stop()
