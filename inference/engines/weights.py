"""A folder that policy has passed → a causal language model on its device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from inference.engines import attention, quantize
from inference.engines.device import Device, settle


def load(path: Path, device: Device, *, recipe: str = "none", pickle: bool = False) -> Any:
    """Load the model under `path`; nothing is fetched and no code of the model runs.

    recipe: `none`, `int8` or `int4`. pickle: True only when the operator allowed this very sha.
    Raises: ModelRefused (recipe and machine do not fit), and whatever Transformers makes of a broken folder.
    """
    import torch
    import transformers

    settle(device)
    quantize.prepare(recipe)
    transformers.utils.logging.disable_progress_bar()
    options: dict[str, Any] = {} if recipe == "none" else {"quantization_config": quantize.config(recipe, device)}
    model = transformers.AutoModelForCausalLM.from_pretrained(
        path,
        dtype=getattr(torch, device.dtype),
        attn_implementation=attention.pick(device),
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=not pickle,
        **options,
    )
    if device.kind == "cuda":
        model = model.to("cuda")
    return model.eval().requires_grad_(False)


def held(model: Any) -> int:
    """Count the bytes of all parameters and buffers; quantised tensors count what they store."""
    return sum(quantize.stored(tensor) for tensor in [*model.parameters(), *model.buffers()])
