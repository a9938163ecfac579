"""Bytes of one large object through the LFS door alone, beside nginx with the same file: GET and PUT by curl.

    uv run --group test python tests/bench/lfs_bytes.py [--rounds 7] [--size BYTES] [--folder DIR] [--fsync] [--blocks]

Each round does each thing once on each server, in turns, so that what else the machine does falls on both. Prints
medians of wall seconds and of the server's CPU seconds, the ratio ours / nginx taken round by round, and the anonymous
memory of ours at its largest. nginx neither hashes what it takes nor syncs it; ours hashes always, and syncs with
`--fsync`. `--blocks` serves through uvicorn's own protocol, without zero copy, to see what that is worth.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

sys.path.insert(0, str(Path(__file__).parent))
from lfs_peers import Peer, nginx
from peers import free_port, stopped, wait_for

ROOT = Path(__file__).resolve().parents[2]
MIB = 1 << 20
MEDIA_TYPE = "application/vnd.git-lfs+json"


@dataclass
class Taken:
    """What one act took on one server, round by round: wall seconds, the server's CPU seconds, curl's."""

    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    client: list[float] = field(default_factory=list)


class Memory:
    """Watches a server's anonymous memory from a thread."""

    def __init__(self, peer: Peer) -> None:
        self.most, self._peer, self._stop = 0, peer, threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while not self._stop.wait(0.05):
            self.most = max(self.most, self._peer.resident())


@contextmanager
def door(folder: Path, *flags: str) -> Iterator[Peer]:
    """Run the bare LFS door on a new shelf."""
    port = free_port()
    command = [sys.executable, "-m", "tests.lfs.alone", str(port), str(folder), *flags]
    with stopped(subprocess.Popen(command, cwd=ROOT)) as process:
        wait_for(f"http://127.0.0.1:{port}/")
        yield Peer("weightroom", f"http://127.0.0.1:{port}", (process.pid,))


def plan(peer: Peer, operation: str, oid: str, size: int) -> str:
    """Ask our door where to move an object."""
    asked = {"operation": operation, "objects": [{"oid": oid, "size": size}]}
    headers = {"Accept": MEDIA_TYPE, "Content-Type": MEDIA_TYPE}
    with httpx.Client(base_url=peer.lfs_url, auth=("ann", "ann"), headers=headers, trust_env=False) as client:
        answer = client.post("/org/model.git/info/lfs/objects/batch", json=asked).raise_for_status().json()
    return str(answer["objects"][0]["actions"][operation]["href"])


def curl(*arguments: str) -> None:
    """Run curl; a refusal or a short body ends the benchmark."""
    subprocess.run(["curl", "-sS", "--fail", "-o", "/dev/null", *arguments], check=True)


def measure(peer: Peer, taken: Taken, act: Callable[[], None]) -> None:
    """Do it once."""
    cpu, client, began = peer.cpu(), _children(), time.perf_counter()
    act()
    taken.seconds.append(time.perf_counter() - began)
    taken.cpu.append(peer.cpu() - cpu)
    taken.client.append(_children() - client)


def new_file(path: Path, size: int, seed: int) -> str:
    """Write random bytes and return their SHA-256; the file is in memory afterwards."""
    source, digest = random.Random(seed), hashlib.sha256()
    with path.open("wb") as file:
        for at in range(0, size, MIB):
            piece = source.randbytes(min(MIB, size - at))
            digest.update(piece)
            file.write(piece)
    return digest.hexdigest()


def compare(work: Path, rounds: int, size: int, flags: list[str]) -> None:
    """Run it and print it."""
    oid = new_file(work / "body", size, 1)
    acts = {(act, name): Taken() for act in ("PUT", "GET") for name in ("weightroom", "nginx")}
    with nginx(work / "nginx") as theirs:
        for turn in range(rounds):
            # A server of ours is new each round: its store must not know the object yet.
            with door(work / f"shelf-{turn}", *flags) as ours:
                memory = Memory(ours)
                put_and_get(ours, theirs, work / "body", oid, acts)
                print(f"round {turn + 1}: {_line(acts)}, memory {memory.most / MIB:.0f} MiB", flush=True)
            shutil.rmtree(work / f"shelf-{turn}")
            (work / "nginx" / "data" / oid).unlink()
    for act in ("PUT", "GET"):
        _report(act, acts[act, "weightroom"], acts[act, "nginx"])


def put_and_get(ours: Peer, theirs: Peer, body: Path, oid: str, acts: dict[tuple[str, str], Taken]) -> None:
    """Move the file in and out, once with each server."""
    size, there = body.stat().st_size, f"{theirs.lfs_url}/o/{oid}"
    here = plan(ours, "upload", oid, size)
    measure(theirs, acts["PUT", "nginx"], lambda: curl("-T", str(body), there))
    measure(ours, acts["PUT", "weightroom"], lambda: curl("-T", str(body), here))
    from_here = plan(ours, "download", oid, size)
    measure(theirs, acts["GET", "nginx"], lambda: curl(there))
    measure(ours, acts["GET", "weightroom"], lambda: curl(from_here))


def _line(acts: dict[tuple[str, str], Taken]) -> str:
    return ", ".join(f"{act} {name} {taken.seconds[-1]:.2f} s" for (act, name), taken in acts.items())


def _report(act: str, ours: Taken, theirs: Taken) -> None:
    middle = statistics.median
    ratio = middle(mine / other for mine, other in zip(ours.seconds, theirs.seconds, strict=True))
    print(
        f"{act}: ours {middle(ours.seconds):.2f} s, {middle(ours.cpu):.2f} CPU s; "
        f"nginx {middle(theirs.seconds):.2f} s, {middle(theirs.cpu):.2f} CPU s; wall ratio {ratio:.2f}; "
        f"curl {middle(ours.client):.2f} and {middle(theirs.client):.2f} CPU s"
    )


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--size", type=int, default=1 << 30)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--fsync", action="store_true")
    parser.add_argument("--blocks", action="store_true")
    asked = parser.parse_args()
    flags = [f"--{name}" for name in ("fsync", "blocks") if getattr(asked, name)]
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        print(f"{asked.size} bytes, {os.cpu_count()} cores, {asked.rounds} rounds", flush=True)
        compare(Path(folder), asked.rounds, asked.size, flags)


if __name__ == "__main__":
    main()
