"""Which device, which number format, how many threads: decided once per process, before anything loads."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Kind = Literal["cpu", "cuda"]
Dtype = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True, slots=True)
class Device:
    """Where a model lives and in which number format; `threads` counts torch's threads on the CPU."""

    kind: Kind
    dtype: Dtype
    threads: int


def resolve(asked: str = "auto", dtype: str = "auto") -> Device:
    """Turn `auto|cpu|cuda` and `auto|float32|bfloat16|float16` into what this machine has.

    `auto` is CUDA when a device answers. bfloat16 is the default on CUDA, and on CPUs that multiply it in hardware;
    other CPUs emulate it at a fraction of float32's speed, so they get float32.
    Raises: ValueError (an unknown word, or CUDA asked for and absent).
    """
    import torch

    if asked not in ("auto", "cpu", "cuda"):
        raise ValueError(f"device must be auto, cpu or cuda, not {asked!r}")
    if dtype not in ("auto", "float32", "bfloat16", "float16"):
        raise ValueError(f"dtype must be auto, float32, bfloat16 or float16, not {dtype!r}")
    present = bool(torch.cuda.is_available())
    if asked == "cuda" and not present:
        raise ValueError("device cuda was asked for and no CUDA device answers; use cpu or auto")
    kind: Kind = "cuda" if asked == "cuda" or (asked == "auto" and present) else "cpu"
    fast = kind == "cuda" or multiplies_bfloat16(dict(torch.cpu.get_capabilities()))
    wanted = ("bfloat16" if fast else "float32") if dtype == "auto" else dtype
    return Device(kind=kind, dtype=wanted, threads=threads(physical_cores()))  # type: ignore[arg-type]


def multiplies_bfloat16(capabilities: dict[str, object]) -> bool:
    """Say whether the CPU has bfloat16 products in hardware."""
    return bool(capabilities.get("avx512_bf16")) or bool(capabilities.get("amx_bf16"))


def threads(cores: int) -> int:
    """Leave one core to the event loop: torch's threads spin, and spinning for the last core halts both."""
    return max(1, cores - 1)


def physical_cores(cpus: Path = Path("/sys/devices/system/cpu")) -> int:
    """Count the distinct cores this process may run on; hyperthreads of one core count once."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    siblings = set()
    for cpu in allowed:
        listed = cpus / f"cpu{cpu}" / "topology" / "thread_siblings_list"
        siblings.add(listed.read_text().strip() if listed.is_file() else str(cpu))
    return max(1, len(siblings))


def settle(device: Device) -> None:
    """Give torch its thread count. It holds for threads started afterwards, the engine's among them."""
    import torch

    if device.kind == "cpu" and torch.get_num_threads() != device.threads:
        torch.set_num_threads(device.threads)
