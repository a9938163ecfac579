"""`Engine`: tokens in, events out. Text exists only above this seam.

A request's life, seen by its sink (called from the engine's own thread, never under a lock the caller may need):

    Tokens* ── then exactly one of ── Done(reason, usage)
                                   └─ Failed(error)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol

from inference.errors import SidecarError
from inference.sampling import Numbers, Top, Usage

Reason = Literal["stop", "length", "cancelled"]
Ability = Literal["generate", "vectors", "scores"]


@dataclass(frozen=True, slots=True)
class Info:
    """What is constant about a loaded model."""

    context: int
    """Positions the model can attend to, prompt and answer together."""
    vocab: int
    """Size of the logits' last dimension."""
    abilities: frozenset[Ability]
    bytes: int
    """Device memory the model holds: weights plus reserved cache."""
    name: str
    """Engine, dtype and recipe in a few words; part of `system_fingerprint`."""


@dataclass(frozen=True, slots=True)
class Request:
    """One row of work. `max_new` ≥ 1; `len(ids) + max_new` ≤ context."""

    id: str
    ids: tuple[int, ...]
    """Prompt token ids, at least one."""
    max_new: int
    numbers: Numbers
    stop_ids: frozenset[int] = frozenset()
    """Generating one of these ends the answer; it is not part of `Tokens`."""
    logprobs: int | None = None
    """None: no log-probabilities. n ≥ 0: of the chosen token, and the n likeliest."""
    min_new: int = 0
    """Tokens before which none of `stop_ids` is generated."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """New token ids, in order; `logprobs` and `top` are as long as `ids` when asked for, else empty."""

    ids: tuple[int, ...]
    logprobs: tuple[float, ...] = ()
    top: tuple[Top, ...] = ()


@dataclass(frozen=True, slots=True)
class Done:
    """The last event of a request that ended well."""

    reason: Reason
    usage: Usage


@dataclass(frozen=True, slots=True)
class Failed:
    """The last event of a request that the engine could not finish."""

    error: SidecarError


Event = Tokens | Done | Failed
Sink = Callable[[Event], None]


@dataclass(frozen=True, slots=True)
class Ticket:
    """Names a submitted request to the engine that took it."""

    id: str


@dataclass(frozen=True, slots=True)
class Stats:
    """A cheap look from any thread; cache figures are in tokens."""

    queued: int = 0
    running: int = 0
    kv_used: int = 0
    kv_total: int = 0


class Engine(Protocol):
    """A loaded model. Construction loads; every method may be called from any thread."""

    def info(self) -> Info:
        """Say what is constant about the model."""
        ...

    def submit(self, request: Request, sink: Sink) -> Ticket:
        """Queue a request; return at once, never block.

        Equal request and seed give equal tokens whatever else is in the batch (exact in fp32 on the CPU).
        Raises: EngineFull, Unavailable (draining or closed).
        """
        ...

    def cancel(self, ticket: Ticket) -> None:
        """End a request with `Done("cancelled")`, at most one step later. Idempotent; unknown tickets are ignored."""
        ...

    def stats(self) -> Stats:
        """Look at queue and cache."""
        ...

    def drain(self, deadline: float) -> bool:
        """Refuse new work and wait up to `deadline` seconds for the old; True if all of it finished. Idempotent."""
        ...

    def close(self) -> None:
        """Stop and free device memory; running requests get `Failed`. Idempotent."""
        ...


@dataclass(slots=True)
class Collected:
    """A sink that gathers one request's events; for plain answers and tests."""

    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    top: list[Top] = field(default_factory=list)
    end: Done | Failed | None = None

    def __call__(self, event: Event) -> None:
        if isinstance(event, Tokens):
            self.ids.extend(event.ids)
            self.logprobs.extend(event.logprobs)
            self.top.extend(event.top)
        else:
            self.end = event
