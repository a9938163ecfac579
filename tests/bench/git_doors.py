"""Our git door beside nginx with `git http-backend`: the same repository, the same client, the same run.

    uv run --extra inference --group test python tests/bench/git_doors.py [--commits 2000] [--rounds 7]

Prints medians of whole `git` commands in seconds and the ratio ours / theirs, taken pair by pair. Fairness: the peer's
repository is repacked with bitmaps before the run; its pushes run once as git does by default (no fsync) and once with
`core.fsync=committed,reference`, which is nearer to what ours promises.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import peers

GIT_ENVIRONMENT = {
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_AUTHOR_NAME": "Bench",
    "GIT_AUTHOR_EMAIL": "bench@example.org",
    "GIT_COMMITTER_NAME": "Bench",
    "GIT_COMMITTER_EMAIL": "bench@example.org",
}


def git(*arguments: str, at: Path, data: bytes | None = None) -> str:
    """Run git; its own message is the error."""
    done = subprocess.run(
        ["git", *arguments],
        cwd=at,
        env=os.environ | GIT_ENVIRONMENT | {"HOME": str(at)},
        input=data,
        capture_output=True,
    )
    if done.returncode:
        raise SystemExit(f"git {' '.join(arguments)}: {done.stderr.decode()}")
    return done.stdout.decode().strip()


def history(path: Path, commits: int) -> None:
    """Make a bare repository of a linear history; every commit changes three of 300 files in 30 folders."""
    git("init", "--bare", "-b", "main", str(path), at=path.parent)
    lines = []
    for n in range(1, commits + 1):
        lines.append(f"commit refs/heads/main\nmark :{n}\ncommitter Bench <b@example.org> {1700000000 + n} +0000\n")
        lines.append(f"data {len(str(n))}\n{n}\n")
        for k in range(3):
            at = (n * 7 + k * 101) % 300
            text = "".join(f"line {i} of {at} at {n if i % 9 == n % 9 else 0}\n" for i in range(60))
            lines.append(f"M 100644 inline d{at % 30}/f{at}.txt\ndata {len(text)}\n{text}")
    git("fast-import", "--quiet", at=path, data="".join(lines).encode())
    git("repack", "-adbq", "--write-bitmap-index", at=path)
    git("config", "http.receivepack", "true", at=path)
    git("config", "receive.unpackLimit", "1", at=path)


class Bench:
    """Runs one operation against both servers in turn and keeps what each took."""

    def __init__(self, work: Path, rounds: int) -> None:
        self.work = work
        self.rounds = rounds
        self.rows: list[dict[str, object]] = []
        self.numbers = itertools.count()

    def compare(self, name: str, ours: Callable[[int], float], theirs: Callable[[int], float]) -> None:
        """Time both, alternating; the first round warms caches and does not count."""
        pairs = [(ours(n), theirs(n)) for n in range(self.rounds + 1)][1:]
        a, b = statistics.median(p[0] for p in pairs), statistics.median(p[1] for p in pairs)
        ratio = statistics.median(p[0] / p[1] for p in pairs)
        self.rows.append({"operation": name, "ours_s": round(a, 4), "peer_s": round(b, 4), "ratio": round(ratio, 3)})
        print(f"{name:32} ours {a:7.3f} s   http-backend {b:7.3f} s   ratio {ratio:5.2f}", flush=True)

    def timed(self, *arguments: str, at: Path) -> float:
        """Seconds of one git command."""
        start = time.perf_counter()
        git(*arguments, at=at)
        return time.perf_counter() - start

    def ls_remote(self, url: str) -> Callable[[int], float]:
        """List the refs."""
        return lambda n: self.timed("ls-remote", url, at=self.work)

    def clone(self, url: str, *flags: str) -> Callable[[int], float]:
        """Clone without a checkout, which would time the client's disk."""

        def once(n: int) -> float:
            target = self.work / "clone"
            shutil.rmtree(target, ignore_errors=True)
            return self.timed("clone", "-q", "--no-checkout", *flags, url, str(target), at=self.work)

        return once

    def fetch(self, url: str, behind: Path) -> Callable[[int], float]:
        """Fetch one commit into a fresh copy of a clone that is one commit behind."""

        def once(n: int) -> float:
            target = self.work / "behind"
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(behind, target)
            return self.timed("fetch", "-q", url, "main", at=target)

        return once

    def push(self, url: str, clone: Path) -> Callable[[int], float]:
        """Make one commit and push it."""

        def once(n: int) -> float:
            number = next(self.numbers)
            (clone / "pushed.txt").write_text(f"{number}\n")
            git("add", "-A", at=clone)
            git("commit", "-qm", f"push {number}", at=clone)
            return self.timed("push", "-q", url, "HEAD:refs/heads/main", at=clone)

        return once


def create_repo(server: peers.Server, name: str) -> None:
    """Make an empty model repo; its first commit is overwritten by the push that follows."""
    request = urllib.request.Request(
        server.url + "/api/repos/create",
        json.dumps({"name": name, "type": "model"}).encode(),
        {"Authorization": f"Bearer {server.token}", "Content-Type": "application/json"},
    )
    urllib.request.urlopen(request).close()


def run(work: Path, commits: int, rounds: int) -> list[dict[str, object]]:
    """Run every comparison and return its rows."""
    repos = work / "repos"
    repos.mkdir()
    history(repos / "bench.git", commits)
    print(f"{commits} commits, {git('count-objects', '-v', at=repos / 'bench.git').replace(chr(10), ', ')}")
    with peers.weightroom(work / "data") as ours, peers.http_backend(work / "nginx", repos) as peer:
        create_repo(ours, "bench")
        mine, theirs = ours.with_login() + "/bench/bench", peer.url + "/bench.git"
        git("push", "-q", "--force", mine, "main:main", at=repos / "bench.git")
        bench = Bench(work, rounds)
        bench.compare("ls-remote", bench.ls_remote(mine), bench.ls_remote(theirs))
        bench.compare("clone", bench.clone(mine), bench.clone(theirs))
        bench.compare("clone --depth 1", bench.clone(mine, "--depth", "1"), bench.clone(theirs, "--depth", "1"))
        for name, url in (("a", mine), ("b", theirs)):
            git("clone", "-q", url, str(work / name), at=work)
        behind = work / "one-behind"
        git("clone", "-q", theirs, str(behind), at=work)
        for name, url in (("a", mine), ("b", theirs)):
            bench.push(url, work / name)(0)
        bench.compare("fetch of one commit", bench.fetch(mine, behind), bench.fetch(theirs, behind))
        bench.compare("push of one commit", bench.push(mine, work / "a"), bench.push(theirs, work / "b"))
        git("config", "core.fsync", "committed,reference", at=repos / "bench.git")
        bench.compare("push, peer with fsync", bench.push(mine, work / "a"), bench.push(theirs, work / "b"))
        return bench.rows


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--commits", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = run(Path(folder), chosen.commits, chosen.rounds)
    if chosen.json:
        chosen.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
