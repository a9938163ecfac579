"""The Xet door beside the LFS door of the same server: one large file up and down by huggingface_hub, in the same run.

    uv run --extra inference --group test python tests/bench/xet_doors.py [--size 1GiB in bytes] [--rounds 3]
        [--parallel 8]

Prints MB/s as the client sees them, CPU seconds of the server with its children, and the largest anonymous memory of
the server process; ratios are taken round by round. Then how far memory grows while several clients upload at once.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import peers
from lfs_peers import Peer

MB = 10**6
CLIENT = """
import json, sys, time
from huggingface_hub import HfApi
act, repo, name, path = sys.argv[1:]
api = HfApi()
api.create_repo(repo, private=True, exist_ok=True)
begin = time.perf_counter()
if act == "upload":
    api.upload_file(repo_id=repo, path_in_repo=name, path_or_fileobj=path)
else:
    api.hf_hub_download(repo, name, local_dir=path)
print(json.dumps(time.perf_counter() - begin))
"""


@dataclass
class Taken:
    """What one act took, round by round: the client's seconds, the server's CPU seconds, its largest memory."""

    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    memory: int = 0


class Bench:
    """A server of ours with `repo`, and clients, each with a home of its own."""

    def __init__(self, server: peers.Server, work: Path, size: int) -> None:
        self.server, self.work, self.size = server, work, size
        self.peer = Peer("weightroom", server.url, (server.pid,))
        self._homes = 0

    def act(self, act: str, name: str, path: Path, *, xet: bool) -> float:
        """Upload or download a file by a new client; return its seconds without those of its start."""
        self._homes += 1
        home = self.work / f"home{self._homes}"
        environment = {
            "PATH": os.environ["PATH"],
            "HF_HOME": str(home),
            "HF_ENDPOINT": self.server.url,
            "HF_TOKEN": self.server.token,
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        }
        if not xet:
            environment["HF_HUB_DISABLE_XET"] = "1"
        command = [sys.executable, "-c", CLIENT, act, "bench/doors", name, str(path)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr[-2000:])
        return float(json.loads(done.stdout.splitlines()[-1]))

    def measure(self, taken: Taken, act: str, name: str, path: Path, *, xet: bool) -> None:
        """Do it, and note what it took."""
        before = self.peer.cpu()
        with sampled(self.peer) as largest:
            taken.seconds.append(self.act(act, name, path, xet=xet))
        taken.cpu.append(self.peer.cpu() - before)
        taken.memory = max(taken.memory, largest[0])

    def new_file(self, name: str, seed: int) -> Path:
        """Write a file that does not pack and that nobody has sent."""
        path, dice = self.work / name, random.Random(seed)
        with path.open("wb") as file:
            for at in range(0, self.size, MB):
                file.write(dice.randbytes(min(MB, self.size - at)))
        return path


@contextmanager
def sampled(peer: Peer) -> Iterator[list[int]]:
    """Look at the memory of the server while the block runs; the list holds the largest, in bytes."""
    largest, over = [peer.resident()], threading.Event()

    def look() -> None:
        while not over.wait(0.05):
            largest[0] = max(largest[0], peer.resident())

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield largest
    finally:
        over.set()
        watcher.join()


def compare(bench: Bench, rounds: int) -> dict[str, Taken]:
    """Send a new file by each door and fetch each by each, in turns."""
    acts = ("upload lfs", "upload xet", "download lfs", "download xet", "download xet file whole")
    taken = {name: Taken() for name in acts}
    for turn in range(rounds):
        for door in ("lfs", "xet"):
            path = bench.new_file("up.bin", 2 * turn + (door == "xet"))
            bench.measure(taken[f"upload {door}"], "upload", f"{door}.bin", path, xet=door == "xet")
            path.unlink()
        for act, name, xet in (
            ("download lfs", "lfs.bin", False),
            ("download xet", "xet.bin", True),
            ("download xet file whole", "xet.bin", False),
        ):
            with tempfile.TemporaryDirectory(dir=bench.work) as folder:
                bench.measure(taken[act], "download", name, Path(folder), xet=xet)
    return taken


def report(taken: dict[str, Taken], size: int) -> None:
    """Print a line for each act, with its ratio to the same act by LFS."""
    print(f"{'act':24} {'MB/s':>7} {'CPU s':>7} {'RSS MB':>7}  seconds: ours by Xet / by LFS")
    for name, each in taken.items():
        base = taken[f"{name.split()[0]} lfs"]
        ratio = statistics.median(ours / theirs for ours, theirs in zip(each.seconds, base.seconds, strict=True))
        speed, cpu = size / MB / statistics.median(each.seconds), statistics.median(each.cpu)
        print(f"{name:24} {speed:7.0f} {cpu:7.2f} {each.memory / MB:7.0f}  {ratio:.2f}")


def crowd(bench: Bench, clients: int) -> None:
    """Upload different files at once, and print how far memory grew."""
    paths = [bench.new_file(f"{number}.bin", 1000 + number) for number in range(clients)]
    before = bench.peer.resident()
    with sampled(bench.peer) as largest:
        threads = [
            threading.Thread(target=bench.act, args=("upload", path.name, path), kwargs={"xet": True}) for path in paths
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    grown = (largest[0] - before) / MB
    print(f"{clients} uploads at once of {bench.size / MB:.0f} MB: {before / MB:.0f} MB grew by {grown:.0f} MB")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=1 << 30)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--parallel", type=int, default=8)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        # What comes whole would be sent by its chunks in the background, beside what is measured.
        with peers.weightroom(work / "data", WEIGHTROOM_XET_INGEST="off") as server:
            bench = Bench(server, work, asked.size)
            report(compare(bench, asked.rounds), asked.size)
            bench.size = asked.size // asked.parallel
            crowd(bench, asked.parallel)


if __name__ == "__main__":
    main()
