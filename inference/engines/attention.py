"""Which attention kernel a model is loaded with, by what this machine can run without fetching anything."""

from __future__ import annotations

from importlib.util import find_spec

from inference.engines.device import Device

SDPA = "sdpa"
FLASH = (("flash_attn_interface", "flash_attention_3"), ("flash_attn", "flash_attention_2"))
"""Packages that bring a paged kernel, best first, and the name Transformers knows each by."""


def pick(device: Device) -> str:
    """Name the attention implementation for this device.

    Continuous batching turns graphs and overlap on only for implementations named `flash…`; `sdpa` reads the paged
    cache through an index and a mask, and is right everywhere. Float32 has no flash kernel.
    """
    if device.kind == "cpu" or device.dtype == "float32":
        return SDPA
    return next((name for package, name in FLASH if find_spec(package) is not None), SDPA)
