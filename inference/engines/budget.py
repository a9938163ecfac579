"""How many bytes models may hold on a device when nobody said."""

from __future__ import annotations

import os

from inference.engines.device import Device

SHARE = 0.8
"""Of the device's memory; the rest is for activations, other processes and the checks of uploads."""


def of(device: Device) -> int:
    """Give 80 % of the device's memory, in bytes: all of it on CUDA, the machine's on the CPU."""
    if device.kind == "cuda":
        import torch

        total = int(torch.cuda.get_device_properties(0).total_memory)
    else:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return int(total * SHARE)
