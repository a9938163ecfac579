"""Policy stands before torch: what may not be loaded is refused before a byte of it is read."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

import pytest

from inference.building import Builder
from inference.engines.device import Device
from inference.errors import ModelRefused


def test_an_estimate_counts_the_width_of_the_loading_format(checkout: Path) -> None:
    wide, narrow = (
        Builder(device=partial(Device, "cpu", dtype, 1)).estimate(checkout, "acme/echo", "a" * 40)
        for dtype in ("float32", "bfloat16")
    )
    assert wide == 2 * narrow > 0


def test_pickled_weights_are_refused(checkout: Path, tmp_path: Path) -> None:
    for name in ("config.json", "tokenizer.json"):
        shutil.copy(checkout / name, tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(ModelRefused):
        Builder(device=lambda: Device("cpu", "float32", 1)).build(tmp_path, "acme/echo", "a" * 40)
