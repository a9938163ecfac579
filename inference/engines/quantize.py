"""Smaller weights at load: `int8` and `int4` on the CPU, through optimum-quanto.

Only the linear layers shrink; `lm_head`, embeddings and norms keep their format, and products run in bfloat16.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any, Literal

from inference.engines.device import Device
from inference.errors import ModelRefused

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


def stored(tensor: Any) -> int:
    """Count the bytes a tensor keeps; a quantised one is a shell around the tensors it flattens to."""
    if type(tensor).__name__ in ("Parameter", "Tensor") or not hasattr(tensor, "__tensor_flatten__"):
        return int(tensor.numel() * tensor.element_size())
    names, _ = tensor.__tensor_flatten__()
    return sum(stored(getattr(tensor, name)) for name in names)
