"""Smaller weights at load: `int8` and `int4` on the CPU, through optimum-quanto.

Only the linear layers shrink; `lm_head`, embeddings and norms keep their format, and products run in bfloat16.
"""

from __future__ import annotations

import logging
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any, Literal

from inference.engines.device import Device
from inference.errors import ModelRefused

log = logging.getLogger(__name__)

Recipe = Literal["none", "int8", "int4"]
RECIPES: tuple[Recipe, ...] = ("none", "int8", "int4")


def config(recipe: str, device: Device) -> Any:
    """Build what `from_pretrained` takes as `quantization_config`.

    Float32 is refused: there, unpacking int8 halves the speed of plain weights, and int4 fails in prefill.
    Raises: ModelRefused (unknown recipe, package absent, not bfloat16, not the CPU).
    """
    if recipe not in RECIPES or recipe == "none":
        raise ModelRefused(f"quantize={recipe} is not one of int8, int4; drop the setting", param="quantize")
    if find_spec("optimum") is None or find_spec("optimum.quanto") is None:
        raise ModelRefused(f"quantize={recipe} needs the package optimum-quanto, which is absent", param="quantize")
    if device.kind != "cpu" or device.dtype != "bfloat16":
        raise ModelRefused(
            f"quantize={recipe} runs on the CPU in bfloat16, not on {device.kind} in {device.dtype}; "
            "set dtype=bfloat16 or drop quantize",
            param="quantize",
        )
    import transformers

    return transformers.QuantoConfig(weights=recipe)


def prepare(recipe: str) -> None:
    """Have the int4 unpacking ready before the first request, for which it would be compiled otherwise.

    The compiled form is built once, into quanto's own folder, and needs a compiler; where that fails, a plain
    torch form stands in, with equal numbers.
    """
    if recipe != "int4":
        return
    from optimum.quanto.library.extensions.extension import get_extension

    extension = get_extension("quanto_cpp")
    try:
        _ = extension.lib
    except Exception:
        # The build fails in as many ways as there are machines: no compiler, no ninja, a folder that is read-only.
        log.warning("int4 runs without its compiled unpacking, more slowly: it could not be built", exc_info=True)
        unpack_in_torch(extension)


def unpack_in_torch(extension: Any) -> None:
    """Let quanto unpack with plain torch operations instead of its compiled extension."""
    extension._lib = SimpleNamespace(unpack=_unpack)


def _unpack(packed: Any, bits: int) -> Any:
    """Spread bytes into numbers of `bits` bits: the lowest of every byte first, then the next of every byte."""
    import torch

    return torch.cat([(packed >> at) & ((1 << bits) - 1) for at in range(0, 8, bits)])


def stored(tensor: Any) -> int:
    """Count the bytes a tensor keeps; a quantised one is a shell around the tensors it flattens to."""
    if type(tensor).__name__ in ("Parameter", "Tensor") or not hasattr(tensor, "__tensor_flatten__"):
        return int(tensor.numel() * tensor.element_size())
    names, _ = tensor.__tensor_flatten__()
    return sum(stored(getattr(tensor, name)) for name in names)
