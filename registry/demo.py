"""The tour, end to end: one model, two commits, every door, each door naming the same sha.

The registry and its sidecar run as `weightroom serve` runs them; every visitor is a program that users have: git,
git-lfs, huggingface_hub, transformers, openai. Each Python visitor is the few lines that a user would paste.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
from collections.abc import Iterator, Mapping
from pathlib import Path

from registry.demo_house import REPO, DemoFailed, House

DOWNLOAD = """
from pathlib import Path
from huggingface_hub import snapshot_download
print(Path(snapshot_download("demo/tiny-chat")).name)
"""
LOAD = """
from pathlib import Path
from huggingface_hub import try_to_load_from_cache
from transformers import AutoModelForCausalLM
AutoModelForCausalLM.from_pretrained("demo/tiny-chat")
print(Path(try_to_load_from_cache("demo/tiny-chat", "model.safetensors")).parent.name)
"""
CHAT = """
import sys
from openai import OpenAI
client = OpenAI()
answer = client.chat.completions.with_raw_response.create(
    model=sys.argv[1], messages=[{"role": "user", "content": "Hello"}], max_tokens=8, temperature=0
)
print(answer.headers["x-model-commit"], repr(answer.parse().choices[0].message.content))
"""


class Board:
    """Prints each step with its result and time; a step that takes long shows that it is still at work."""

    def __init__(self) -> None:
        self._number = 0
        self._live = sys.stdout.isatty()
        self._start = time.perf_counter()

    @contextlib.contextmanager
    def step(self, title: str) -> Iterator[list[str]]:
        """Time a step; what is appended to the list is its result."""
        self._number += 1
        start = time.perf_counter()
        said: list[str] = []
        done = threading.Event()
        watcher = threading.Thread(target=self._watch, args=(title, start, done), daemon=True)
        watcher.start()
        try:
            yield said
        finally:
            done.set()
            watcher.join()
        print(f"\r{self._number:2}  {title:44} {' '.join(said):42} {time.perf_counter() - start:6.1f} s", flush=True)

    def skip(self, title: str, why: str) -> None:
        """Say that a step is left out, and why."""
        self._number += 1
        print(f"{self._number:2}  {title:44} skipped: {why}", flush=True)

    def close(self, sha: str) -> None:
        """Say how it ended."""
        print(f"\nEvery door named {sha}. {time.perf_counter() - self._start:.1f} s in all.", flush=True)

    def _watch(self, title: str, start: float, done: threading.Event) -> None:
        pause = 0.2 if self._live else 5.0
        while not done.wait(pause):
            seconds = time.perf_counter() - start
            if self._live:
                print(f"\r{self._number:2}  {title:44} … {seconds:.0f} s", end="", flush=True)
            else:
                print(f"    {title}: still at work after {seconds:.0f} s", flush=True)


def tour(house: House, board: Board) -> None:
    """Walk through every door twice."""
    work = house.folder / "work"
    with board.step("create the repo, clone it") as said:
        house.create_repo()
        house.git("lfs", "install", "--skip-repo", at=house.folder)
        house.git("clone", "--quiet", house.remote, str(work), at=house.folder)
        said.append(house.git("rev-parse", "HEAD", at=work))
    first = _push(house, board, work, seed=0, title="git push, weights through git-lfs")
    _look(house, board, first)
    second = _push(house, board, work, seed=1, title="a second commit, with other weights")
    _chat(house, board, first, second)
    board.close(f"{first} and then {second}")


def _push(house: House, board: Board, work: Path, *, seed: int, title: str) -> str:
    with board.step(title) as said:
        house.make_model(work, seed)
        house.git("add", "--all", at=work)
        house.git("commit", "--quiet", "--message", f"Weights of seed {seed}", at=work)
        house.git("push", "--quiet", at=work)
        sha = house.git("rev-parse", "HEAD", at=work)
        said.append(sha)
    return sha


def _look(house: House, board: Board, sha: str) -> None:
    with board.step("git clone elsewhere") as said:
        house.git("clone", "--quiet", house.remote, "clone", at=house.folder)
        said.append(_same(sha, house.git("rev-parse", "HEAD", at=house.folder / "clone")))
    if not house.chats:
        board.skip("huggingface_hub, transformers, openai", "install the `inference` extra")
        return
    with board.step("huggingface_hub: snapshot_download") as said:
        said.append(_same(sha, house.python(DOWNLOAD)))
    with board.step("transformers: from_pretrained") as said:
        said.append(_same(sha, house.python(LOAD)))


def _chat(house: House, board: Board, first: str, second: str) -> None:
    if not house.chats:
        return
    for asked, sha in ((REPO, second), (f"{REPO}@{first}", first), (f"{REPO}@main", second)):
        with board.step(f"openai: chat with {asked if len(asked) < 30 else REPO + '@' + first[:7]}") as said:
            answered, _, text = house.python(CHAT, asked).partition(" ")
            said += [_same(sha, answered), text]


def _same(sha: str, seen: str) -> str:
    if seen != sha:
        raise DemoFailed(f"this door names {seen}, git pushed {sha}")
    return sha


def main(environ: Mapping[str, str]) -> int:
    """Run the tour in a temporary folder; return the exit status."""
    absent = [name for name in ("git", "git-lfs") if shutil.which(name) is None]
    if absent:
        print(f"weightroom demo needs {' and '.join(absent)}; install with your package manager.", file=sys.stderr)
        return 3
    board = Board()
    with tempfile.TemporaryDirectory(prefix="weightroom-demo-", ignore_cleanup_errors=True) as folder:
        print(f"Weightroom demo in {folder}\n", flush=True)
        try:
            house = House(Path(folder), environ)
            with contextlib.ExitStack() as opened:
                with board.step("start registry and sidecar") as said:
                    opened.enter_context(house.open())
                    said.append(house.url)
                tour(house, board)
        except (DemoFailed, urllib.error.URLError, subprocess.SubprocessError) as error:
            print(f"\nThe demo stopped: {error}", file=sys.stderr)
            return 1
    return 0
