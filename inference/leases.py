"""What the doors ask of the pool: a model to use for a while, and a look at those that are loaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from inference.engine import Engine


class Lease(Protocol):
    """One loaded model in use; it stays loaded until the lease is returned by leaving its `with` block."""

    @property
    def repo(self) -> str:
        """`namespace/name`."""
        ...

    @property
    def sha(self) -> str:
        """The commit that answers."""
        ...

    @property
    def path(self) -> Path:
        """The commit's checkout."""
        ...

    @property
    def engine(self) -> Engine:
        """The loaded model."""
        ...

    def __enter__(self) -> Lease: ...

    def __exit__(self, kind: object, error: object, trace: object, /) -> None: ...


class State(Protocol):
    """One model that the pool knows."""

    @property
    def name(self) -> str:
        """As it was asked for."""
        ...

    @property
    def repo(self) -> str:
        """`namespace/name`."""
        ...

    @property
    def sha(self) -> str:
        """The commit."""
        ...

    @property
    def state(self) -> str:
        """`ready`, `loading`, `failed`, …."""
        ...

    @property
    def pinned(self) -> bool:
        """True if it is never evicted."""
        ...

    @property
    def bytes(self) -> int:
        """Device memory."""
        ...

    @property
    def context(self) -> int:
        """Positions."""
        ...


class Pool(Protocol):
    """Thread-safe."""

    def lease(self, name: str, token: str | None) -> Lease:
        """Wait until the model is loaded, and hold it. May take minutes.

        Raises: ModelAbsent, ModelRefused, Overloaded, Unavailable, InvalidRequest.
        """
        ...

    def states(self) -> Sequence[State]:
        """Look at what is loaded or loading."""
        ...
