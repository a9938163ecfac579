"""A checked-out commit → an engine: policy first, then weights, then the thread that answers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from inference.engine import Engine
from inference.engines import weights
from inference.engines.continuous import ContinuousEngine
from inference.engines.device import Device
from inference.loading import judge

WIDTHS = {"float32": 4, "bfloat16": 2, "float16": 2}


class Builder:
    """Builds engines for one device and recipe; the device is looked at when the first one is built."""

    def __init__(
        self, *, device: Callable[[], Device], recipe: str = "none", allow_pickle: frozenset[str] = frozenset()
    ):
        self._device = device
        self._recipe = recipe
        self._allow_pickle = allow_pickle

    def build(self, path: Path, repo: str, sha: str) -> Engine:
        """Load a commit.

        Raises: ModelRefused, Overloaded (`model_capacity`), and whatever Transformers makes of a broken folder.
        """
        loadable = judge(path, repo, sha, self._allow_pickle)
        device = self._device()
        model = weights.load(path, device, recipe=self._recipe, pickle=loadable.is_pickle)
        return ContinuousEngine(model, f"continuous {device.kind} {device.dtype} {self._recipe}")

    def estimate(self, path: Path, repo: str, sha: str) -> int:
        """Guess the bytes that a commit's weights will take.

        Raises: ModelRefused.
        """
        return judge(path, repo, sha, self._allow_pickle).estimate(WIDTHS[self._device().dtype])
