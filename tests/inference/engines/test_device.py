"""What a machine is taken for: device, number format, threads."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from inference.engines import attention, device, quantize
from inference.engines.device import Device
from inference.errors import ModelRefused

pytestmark = pytest.mark.inference


def test_the_cpu_is_taken_when_asked_for_and_float32_may_be_forced() -> None:
    found = device.resolve("cpu", "float32")
    assert (found.kind, found.dtype) == ("cpu", "float32")
    assert found.threads >= 1


def test_auto_takes_what_is_there() -> None:
    assert device.resolve("auto").kind == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize(
    ("capabilities", "answer"),
    [({"avx512_bf16": True}, True), ({"amx_bf16": True}, True), ({"avx2": True, "avx512_f": True}, False), ({}, False)],
)
def test_bfloat16_is_the_default_only_where_the_cpu_multiplies_it(
    capabilities: dict[str, object], answer: bool
) -> None:
    assert device.multiplies_bfloat16(capabilities) is answer


def test_one_core_is_left_to_the_loop_and_one_thread_always_remains() -> None:
    assert [device.threads(cores) for cores in (1, 2, 3, 16)] == [1, 1, 2, 15]


def test_hyperthreads_of_a_core_count_once(tmp_path: Path) -> None:
    import os

    for cpu in os.sched_getaffinity(0):
        (tmp_path / f"cpu{cpu}" / "topology").mkdir(parents=True)
        (tmp_path / f"cpu{cpu}" / "topology" / "thread_siblings_list").write_text("0-1\n")
    assert device.physical_cores(tmp_path) == 1
    assert device.physical_cores(tmp_path / "absent") == len(os.sched_getaffinity(0))


@pytest.mark.parametrize(("asked", "dtype"), [("gpu", "auto"), ("cpu", "int8"), ("", "auto")])
def test_unknown_words_are_refused(asked: str, dtype: str) -> None:
    with pytest.raises(ValueError, match="must be"):
        device.resolve(asked, dtype)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has the device whose absence is tested")
def test_cuda_asked_for_and_absent_is_an_error() -> None:
    with pytest.raises(ValueError, match="no CUDA device"):
        device.resolve("cuda")


def test_the_cpu_and_float32_take_sdpa() -> None:
    assert attention.pick(Device("cpu", "bfloat16", 1)) == "sdpa"
    assert attention.pick(Device("cuda", "float32", 1)) == "sdpa"


@pytest.mark.parametrize(
    ("recipe", "where"),
    [
        ("int8", Device("cpu", "float32", 1)),
        ("int4", Device("cuda", "bfloat16", 1)),
        ("int3", Device("cpu", "bfloat16", 1)),
        ("none", Device("cpu", "bfloat16", 1)),
    ],
)
def test_recipes_that_do_not_fit_are_refused(recipe: str, where: Device) -> None:
    with pytest.raises(ModelRefused, match=f"quantize={recipe}"):
        quantize.config(recipe, where)
