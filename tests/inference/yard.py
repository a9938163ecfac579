"""Registry, shelf and factory of a pool's tests, and the engines that it builds."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from inference.download import Resolved
from inference.engine import Done, Engine, Info, Request, Sink, Stats, Ticket
from inference.errors import ModelAbsent
from inference.pool import Pool
from inference.sampling import Usage

FIRST, SECOND, THIRD = "a" * 40, "b" * 40, "c" * 40


class Still:
    """An engine that answers nothing and counts how often it was closed."""

    def __init__(self, sha: str, size: int = 100) -> None:
        self.sha, self.size, self.closed, self.is_broken = sha, size, 0, False

    def info(self) -> Info:
        return Info(512, 512, frozenset({"generate"}), self.size, "still")

    def submit(self, request: Request, sink: Sink) -> Ticket:
        sink(Done("length", Usage(1, 0)))
        return Ticket(request.id)

    def cancel(self, ticket: Ticket) -> None: ...

    def stats(self) -> Stats:
        return Stats()

    def drain(self, deadline: float) -> bool:
        return deadline > 0

    def close(self) -> None:
        self.closed += 1

    def broken(self) -> bool:
        return self.is_broken


@dataclass
class Yard:
    """Registry, shelf and factory of one test, with a clock of its own."""

    now: float = 1000.0
    tips: dict[str, str] = field(default_factory=lambda: {"acme/a": FIRST})
    readers: dict[str, set[str | None]] = field(default_factory=dict)
    built: list[Still] = field(default_factory=list)
    pinned_with: list[str | None] = field(default_factory=list)
    released: list[str] = field(default_factory=list)
    failing: dict[str, Exception] = field(default_factory=dict)
    gates: dict[str, threading.Event] = field(default_factory=dict)
    estimates: dict[str, int] = field(default_factory=dict)

    def clock(self) -> float:
        return self.now

    def resolve(self, name: str, token: str | None = None) -> Resolved:
        repo, _, revision = name.partition("@")
        if repo not in self.tips or token not in self.readers.get(repo, {token}):
            raise ModelAbsent("absent")
        return Resolved(repo, revision or None, revision if len(revision) == 40 else self.tips[repo])

    def own_token(self) -> str | None:
        return "own"

    def pin(self, repo: str, sha: str, token: str | None = None) -> Path:
        self.pinned_with.append(token)
        return Path("/checkouts") / sha

    def release(self, sha: str) -> None:
        self.released.append(sha)

    def build(self, path: Path, repo: str, sha: str) -> Engine:
        if sha in self.gates:
            assert self.gates[sha].wait(30)
        if sha in self.failing:
            raise self.failing[sha]
        self.built.append(Still(sha, self.estimate(path, repo, sha)))
        return self.built[-1]

    def estimate(self, path: Path, repo: str, sha: str) -> int:
        return self.estimates.get(sha, 100)

    def engines(self, sha: str) -> list[Still]:
        return [engine for engine in self.built if engine.sha == sha]


MakePool = Callable[..., Pool]


def phases(pool: Pool) -> dict[str, str]:
    """Say in which phase each commit is."""
    return {state.sha: state.phase for state in pool.states()}
