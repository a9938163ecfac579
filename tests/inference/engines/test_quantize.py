"""int8 and int4 weights on the CPU: smaller, close to the original, and able to run in a batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from optimum.quanto.library.extensions.extension import get_extension

from inference.engines import quantize, weights
from inference.engines.batcher import Settings
from inference.engines.continuous import ContinuousEngine
from inference.engines.device import Device
from inference.tiny import make_chat_model
from tests.contracts.heard import answers, ask

pytestmark = pytest.mark.inference

BF16 = Device("cpu", "bfloat16", 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("quantize")
    make_chat_model(path)
    return path


@pytest.fixture
def torch_unpacking() -> None:
    """Keep the compiler out of the tests; both forms give equal numbers."""
    quantize.unpack_in_torch(get_extension("quanto_cpp"))


def _logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = model(torch.tensor([[5, 6, 7, 300]])).logits[0, -1].float()
    return logits


@pytest.mark.usefixtures("torch_unpacking")
@pytest.mark.parametrize(("recipe", "closeness"), [("int8", 0.999), ("int4", 0.9)])
def test_smaller_weights_say_nearly_the_same_and_run_in_a_batch(folder: Path, recipe: str, closeness: float) -> None:
    plain, small = weights.load(folder, BF16), weights.load(folder, BF16, recipe=recipe)
    assert weights.held(small) < weights.held(plain)
    assert type(small.lm_head).__name__ == "Linear"
    assert torch.cosine_similarity(_logits(plain), _logits(small), dim=0) > closeness
    engine = ContinuousEngine(small, f"continuous bfloat16 {recipe}", Settings(rows=4, kv_bytes=4 << 20, page=32))
    try:
        heard = answers(engine, [ask((5, 6, 7 + n), 6) for n in range(4)])
        assert [len(one.ids) for one in heard] == [6] * 4
    finally:
        engine.close()


def test_a_machine_that_cannot_build_the_unpacking_does_without(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Unbuildable:
        _lib: Any = None

        @property
        def lib(self) -> Any:
            raise OSError("no compiler here")

    extension = Unbuildable()
    monkeypatch.setattr("optimum.quanto.library.extensions.extension.get_extension", lambda _: extension)
    quantize.prepare("int8")
    assert extension._lib is None
    quantize.prepare("int4")
    packed = torch.tensor([0x21, 0x43], dtype=torch.uint8)
    assert extension._lib.unpack(packed, 4).tolist() == [1, 3, 2, 4]
    assert "could not be built" in caplog.text
