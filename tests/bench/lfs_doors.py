"""Our LFS door beside nginx with a batch stub, and beside giftless: the same objects, the same client, the same run.

    uv run --extra inference --group test python tests/bench/lfs_doors.py [--rounds 5] [--large 1GiB in bytes]
        [--small 2000] [--fsync never|always] [--git-lfs PATH] [--skip-giftless]

Prints medians of whole `git lfs` commands in seconds, the ratio ours / theirs taken round by round, the server's CPU
seconds and its largest anonymous memory. nginx neither hashes what it takes nor syncs it; with `--fsync never` ours
does not sync either, so that the two do the same to the disk.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import lfs_peers
import peers
from lfs_peers import Peer

MIB = 1 << 20
ENVIRONMENT = {
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_LFS_SKIP_SMUDGE": "1",
    "GIT_AUTHOR_NAME": "Bench",
    "GIT_AUTHOR_EMAIL": "bench@example.org",
    "GIT_COMMITTER_NAME": "Bench",
    "GIT_COMMITTER_EMAIL": "bench@example.org",
}


@dataclass
class Taken:
    """What one operation took on one server, round by round."""

    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    memory: int = 0


class Client:
    """git and git-lfs in a folder of their own."""

    def __init__(self, home: Path, program: str) -> None:
        self.home = home
        path = f"{Path(program).parent}:{os.environ['PATH']}" if program else os.environ["PATH"]
        self.environment = os.environ | ENVIRONMENT | {"HOME": str(home), "PATH": path}

    def __call__(self, *arguments: str, at: Path) -> str:
        """Run git; its own message is the error."""
        done = subprocess.run(["git", *arguments], cwd=at, env=self.environment, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"git {' '.join(arguments)}: {done.stderr}{done.stdout}")
        return done.stdout


def fill(client: Client, work: Path, sizes: list[int], seed: int) -> None:
    """Make a repository whose commit names new objects of these sizes, and put the objects where git-lfs looks."""
    client("init", "--quiet", "-b", "main", str(work), at=work.parent)
    client("lfs", "install", "--local", at=work)
    (work / ".gitattributes").write_text("*.bin filter=lfs diff=lfs merge=lfs -text\n")
    source = random.Random(seed)
    for number, size in enumerate(sizes):
        path = work / f"{number:05}.bin"
        digest = hashlib.sha256()
        with path.open("wb") as file:
            for start in range(0, size, MIB):
                block = source.randbytes(min(MIB, size - start))
                digest.update(block)
                file.write(block)
        kept = work / ".git/lfs/objects" / digest.hexdigest()[:2] / digest.hexdigest()[2:4] / digest.hexdigest()
        kept.parent.mkdir(parents=True, exist_ok=True)
        path.rename(kept)
        path.write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{digest.hexdigest()}\nsize {size}\n")
    client("add", "--all", at=work)
    client("commit", "--quiet", "--message", "objects", at=work)
    client("remote", "add", "origin", str(work), at=work)
    client("config", "lfs.locksverify", "false", at=work)


class Bench:
    """Pushes and fetches the same objects with every server in turn."""

    def __init__(self, folder: Path, client: Client, rounds: int) -> None:
        self.folder, self.client, self.rounds = folder, client, rounds

    def compare(self, name: str, sizes: list[int], servers: list[Peer]) -> list[dict[str, object]]:
        """Time push and pull; the first round warms up and does not count."""
        taken = {(verb, peer.name): Taken() for verb in ("push", "pull") for peer in servers}
        for number in range(self.rounds + 1):
            work = self.folder / "work"
            fill(self.client, work, sizes, seed=random.randrange(1 << 60))
            for peer in servers if number % 2 else reversed(servers):
                for verb in ("push", "pull"):
                    self._once(verb, work, peer, taken[verb, peer.name], counts=number > 0)
            shutil.rmtree(work)
        return [row for verb in ("push", "pull") for row in self._rows(f"{verb} {name}", verb, servers, taken)]

    def _once(self, verb: str, work: Path, peer: Peer, taken: Taken, *, counts: bool) -> None:
        at, command = work, ["lfs", "push", "--all", "origin", "main"]
        if verb == "pull":
            at, command = self.folder / "clone", ["lfs", "fetch", "origin", "main"]
            self.client("clone", "--quiet", str(work), str(at), at=self.folder)
        self.client("config", "lfs.url", peer.lfs_url, at=at)
        # What the one before left to be written must not slow this one.
        os.sync()
        before, began = peer.cpu(), time.perf_counter()
        self.client(*command, at=at)
        seconds, cpu = time.perf_counter() - began, peer.cpu() - before
        if verb == "pull":
            shutil.rmtree(at)
        if counts:
            taken.seconds.append(seconds)
            taken.cpu.append(cpu)
            taken.memory = max(taken.memory, peer.resident())

    def _rows(
        self, name: str, verb: str, servers: list[Peer], taken: dict[tuple[str, str], Taken]
    ) -> list[dict[str, object]]:
        rows = []
        ours = taken[verb, servers[0].name]
        for peer in servers:
            theirs = taken[verb, peer.name]
            ratio = statistics.median(a / b for a, b in zip(ours.seconds, theirs.seconds, strict=True))
            seconds, cpu = statistics.median(theirs.seconds), statistics.median(theirs.cpu)
            rows.append({"operation": name, "server": peer.name, "seconds": seconds, "cpu": cpu, "ours/theirs": ratio})
            told = f"{name:22} {peer.name:12} {seconds:8.2f} s   CPU {cpu:6.2f} s   RSS {theirs.memory >> 20:5} MiB"
            print(f"{told}   ours/theirs {ratio:5.2f}", flush=True)
        return rows


def batch_of_100(peer: Peer, operation: str, rounds: int) -> float:
    """Median milliseconds of a batch of 100 absent objects; each upload opens a hundred rows anew."""
    objects = [{"oid": hashlib.sha256(str(n).encode()).hexdigest(), "size": n} for n in range(100)]
    body = json.dumps({"operation": operation, "objects": objects}).encode()
    media = "application/vnd.git-lfs+json"
    scheme, _, rest = peer.lfs_url.partition("://")
    login, _, place = rest.rpartition("@")
    headers = {"Accept": media, "Content-Type": media}
    if login:
        headers["Authorization"] = f"Basic {base64.b64encode(login.encode()).decode()}"
    took = []
    for _ in range(rounds):
        request = urllib.request.Request(f"{scheme}://{place}/objects/batch", body, headers)
        began = time.perf_counter()
        urllib.request.urlopen(request).read()
        took.append(time.perf_counter() - began)
    return statistics.median(took) * 1000


def ours(stack: ExitStack, folder: Path, fsync: str) -> Peer:
    """Start our registry with one repo."""
    # What it would do with large objects afterwards, in the background, is none of the peers' work.
    settings = {"WEIGHTROOM_FSYNC": fsync, "WEIGHTROOM_MIN_FREE": "0", "WEIGHTROOM_XET_INGEST": "off"}
    server = stack.enter_context(peers.weightroom(folder, **settings))
    request = urllib.request.Request(
        server.url + "/api/repos/create",
        b'{"name": "lfs"}',
        {"Authorization": f"Bearer {server.token}", "Content-Type": "application/json"},
    )
    urllib.request.urlopen(request).close()
    return Peer("weightroom", f"{server.with_login()}/bench/lfs.git/info/lfs", (server.pid,))


def main() -> None:
    """Run the comparison."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--rounds", type=int, default=5)
    asked.add_argument("--large", type=int, default=1 << 30, help="bytes of the large object")
    asked.add_argument("--small", type=int, default=2000, help="how many objects of 64 KiB")
    asked.add_argument("--fsync", choices=("never", "always"), default="never")
    asked.add_argument("--git-lfs", default="", help="the git-lfs to use, if not the one on PATH")
    asked.add_argument("--skip-giftless", action="store_true")
    chosen = asked.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-lfs-") as name, ExitStack() as stack:
        folder = Path(name)
        client = Client(folder / "home", chosen.git_lfs)
        client.home.mkdir()
        servers = [ours(stack, folder / "ours", chosen.fsync), stack.enter_context(lfs_peers.nginx(folder / "nginx"))]
        if not chosen.skip_giftless:
            servers.append(stack.enter_context(lfs_peers.giftless(folder / "giftless")))
        print(client("lfs", "version", at=folder).strip(), f"fsync {chosen.fsync}", flush=True)
        bench = Bench(folder, client, chosen.rounds)
        rows = bench.compare(f"{chosen.large >> 20} MiB", [chosen.large], servers)
        rows += bench.compare(f"{chosen.small} x 64 KiB", [65_536] * chosen.small, servers)
        for operation in ("upload", "download"):
            for peer in servers[:2]:
                took = batch_of_100(peer, operation, 50)
                print(f"batch of 100 {operation:9} {peer.name:12} {took:8.2f} ms", flush=True)
        print(json.dumps(rows))


if __name__ == "__main__":
    main()
