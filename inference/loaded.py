"""What the pool hands out and shows: a loaded commit, the lease of one, and the state of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Protocol, Self, runtime_checkable

from inference.engine import Engine

Phase = Literal["loading", "ready", "superseded", "failed"]


@runtime_checkable
class Breakable(Protocol):
    """An engine that can tell that its thread ended by itself."""

    def broken(self) -> bool:
        """Say whether only a new engine helps."""
        ...


@dataclass(slots=True, eq=False)
class Loaded:
    """A commit in memory; `path` is its folder, tokenizer and templates included. Its figures are the pool's."""

    repo: str
    sha: str
    path: Path
    engine: Engine
    bytes: int
    leases: int = 0
    used_at: float = 0.0
    is_superseded: bool = False
    """A name has moved on from it, and none has asked for it since."""
    is_closing: bool = False

    def is_broken(self) -> bool:
        """Say whether the engine's thread ended by itself."""
        return isinstance(self.engine, Breakable) and self.engine.broken()


@dataclass(frozen=True, slots=True)
class State:
    """One commit as `/v1/models` shows it."""

    names: tuple[str, ...]
    """Names that it serves, or will serve."""
    repo: str
    sha: str
    phase: Phase
    bytes: int = 0
    context: int = 0
    leases: int = 0
    is_pinned: bool = False
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Turnover:
    """What was loaded and unloaded since the start, and how full the caches are, in tokens."""

    loads: int = 0
    evictions: int = 0
    kv_used: int = 0
    kv_total: int = 0


class Lease:
    """The right to use a loaded model until it is given back; a context manager."""

    __slots__ = ("_give_back", "_is_back", "loaded", "name", "repo")

    def __init__(self, name: str, repo: str, loaded: Loaded, give_back: Callable[[Loaded], None]):
        self.name = name
        self.repo = repo
        self.loaded = loaded
        self._give_back = give_back
        self._is_back = False

    @property
    def sha(self) -> str:
        """The commit that answers; not always the newest one of its branch."""
        return self.loaded.sha

    @property
    def engine(self) -> Engine:
        """The engine; not to be used after the lease is given back."""
        return self.loaded.engine

    @property
    def path(self) -> Path:
        """The folder of the commit."""
        return self.loaded.path

    def give_back(self) -> None:
        """End the lease. Idempotent."""
        if not self._is_back:
            self._is_back = True
            self._give_back(self.loaded)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.give_back()
