"""The sampler against plain arithmetic: noise, order of the stages, and rows that do not know of each other."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.engines.sampler import Sampler, gumbel
from inference.sampling import Numbers

pytestmark = pytest.mark.inference

VOCAB = 64
NUMBERS = st.builds(
    Numbers,
    temperature=st.sampled_from([0.0, 1e-7, 0.3, 1.0, 2.0]),
    top_p=st.sampled_from([1.0, 0.95, 0.5, 1e-6]),
    top_k=st.sampled_from([0, 1, 5, VOCAB, 10 * VOCAB]),
    min_p=st.sampled_from([0.0, 0.05, 0.9]),
    frequency_penalty=st.sampled_from([0.0, 0.7, -2.0]),
    presence_penalty=st.sampled_from([0.0, 1.5]),
    repetition_penalty=st.sampled_from([1.0, 1.3, 0.8]),
    seed=st.integers(0, 2**63 - 1),
    bias=st.lists(st.tuples(st.integers(0, VOCAB - 1), st.floats(-100, 100, width=32)), max_size=4).map(tuple),
)


def _choose(sampler: Sampler, logits: torch.Tensor, slots: list[int]) -> list[int]:
    rows = sampler.plan(slots)
    return [int(token) for token in sampler(logits, rows).argmax(-1)]


def _one(numbers: Numbers, logits: torch.Tensor, steps: int = 1, prompt: tuple[int, ...] = ()) -> list[int]:
    """Choose `steps` tokens from the same logits, alone in the batch."""
    sampler = Sampler(1, logits.shape[-1], "cpu")
    sampler.fill(0, numbers, prompt, None)
    return [_choose(sampler, logits, [0])[0] for _ in range(steps)]


def _many(temperature: float, logits: torch.Tensor, count: int) -> list[int]:
    """Draw `count` tokens from the same logits, by a hundred seeds."""
    sampler = Sampler(100, logits.shape[-1], "cpu")
    for slot in range(100):
        sampler.fill(slot, Numbers(temperature=temperature, seed=slot), (), None)
    rows = logits.expand(100, -1)
    return [token for _ in range(count // 100) for token in _choose(sampler, rows, list(range(100)))]


@settings(max_examples=60, deadline=None)
@given(st.lists(NUMBERS, min_size=2, max_size=6), st.integers(0, 2**31))
def test_a_row_chooses_the_same_alone_and_in_any_batch(asked: list[Numbers], seed: int) -> None:
    logits = torch.randn(len(asked), VOCAB, generator=torch.Generator().manual_seed(seed)) * 4
    batch, static = Sampler(len(asked), VOCAB, "cpu"), Sampler(len(asked), VOCAB, "cpu", static=True)
    for slot, numbers in enumerate(asked):
        batch.fill(slot, numbers, (1, 2), None)
        static.fill(slot, numbers, (1, 2), 3)
    slots = list(range(len(asked)))
    together = [_choose(batch, logits, slots) for _ in range(4)]
    # Graph capture runs every stage on every row; that must change nothing.
    assert together == [_choose(static, logits, slots) for _ in range(4)]
    for slot, numbers in enumerate(asked):
        assert [step[slot] for step in together] == _one(numbers, logits[slot : slot + 1], 4, (1, 2))


def test_the_raw_logits_are_left_alone() -> None:
    logits = torch.randn(1, VOCAB)
    kept = logits.clone()
    _one(Numbers(bias=((3, 50.0),), frequency_penalty=1.0, seed=1), logits, 3)
    assert torch.equal(logits, kept)


def test_temperature_zero_takes_the_likeliest_token() -> None:
    logits = torch.randn(1, VOCAB)
    assert _one(Numbers(temperature=0.0, seed=9), logits, 5) == [int(logits.argmax())] * 5


def test_draws_follow_the_probabilities() -> None:
    logits = torch.tensor([[0.5, 0.25, 0.125, 0.125]]).log()
    drawn = _many(1.0, logits, 4000)
    shares = [drawn.count(token) / 4000 for token in range(4)]
    assert shares == pytest.approx([0.5, 0.25, 0.125, 0.125], abs=0.03)


def test_temperature_sharpens_and_flattens() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0]])
    for temperature in (0.5, 2.0):
        drawn = _many(temperature, logits, 3000)
        expected = (logits[0] / temperature).softmax(-1).tolist()
        assert [drawn.count(token) / 3000 for token in range(3)] == pytest.approx(expected, abs=0.04)


@pytest.mark.parametrize(
    ("numbers", "kept"),
    [
        (Numbers(seed=1, top_k=2), {0, 1}),
        (Numbers(seed=1, top_p=0.6), {0, 1}),
        (Numbers(seed=1, top_p=0.5), {0}),
        (Numbers(seed=1, top_p=0.51), {0, 1}),
        (Numbers(seed=1, min_p=0.45), {0, 1}),
        (Numbers(seed=1, min_p=0.9), {0}),
        # The shares that top-p adds up are those of what top-k left: 2/3 and 1/3.
        (Numbers(seed=1, top_k=2, top_p=0.6), {0}),
        (Numbers(seed=1, top_k=3, top_p=0.99, min_p=0.2), {0, 1, 2}),
    ],
)
def test_cuts_keep_exactly_the_likeliest(numbers: Numbers, kept: set[int]) -> None:
    logits = torch.tensor([[0.5, 0.25, 0.125, 0.0625, 0.0625]]).log()
    assert set(_one(numbers, logits, 400)) == kept


def test_a_cut_wider_than_the_first_look_is_the_same_cut() -> None:
    logits = torch.zeros(1, 5000)
    logits[0, :3000] = 1e-3 * torch.arange(3000, 0, -1)
    sampler = Sampler(1, 5000, "cpu")
    sampler.fill(0, Numbers(seed=5, top_k=2000), (), None)
    chosen = {_choose(sampler, logits, [0])[0] for _ in range(300)}
    assert max(chosen) < 2000
    assert max(chosen) > 1024
    sampler.fill(0, Numbers(seed=5, top_p=0.9999), (), None)
    assert len({_choose(sampler, logits, [0])[0] for _ in range(50)}) > 20


def test_frequency_and_presence_count_the_answer_and_not_the_prompt() -> None:
    logits = torch.tensor([[1.0, 0.8, -9.0]])
    assert _one(Numbers(temperature=0.0, frequency_penalty=0.15), logits, 5, (0, 0, 0)) == [0, 0, 1, 0, 1]
    assert _one(Numbers(temperature=0.0, presence_penalty=0.3), logits, 4, (0,)) == [0, 1, 0, 0]


def test_repetition_counts_the_prompt_too_and_pushes_down_either_sign() -> None:
    assert _one(Numbers(temperature=0.0, repetition_penalty=2.0), torch.tensor([[1.0, 0.8]]), 1, (0,)) == [1]
    assert _one(Numbers(temperature=0.0, repetition_penalty=2.0), torch.tensor([[-1.0, -1.5]]), 1, (0,)) == [1]


def test_bias_comes_before_temperature_and_may_ban() -> None:
    logits = torch.tensor([[1.0, 0.0, 0.0]])
    assert _one(Numbers(temperature=0.0, bias=((2, 5.0),)), logits) == [2]
    assert 0 not in _one(Numbers(seed=3, bias=((0, -100.0),)), logits, 200)


def test_a_slot_forgets_its_last_owner() -> None:
    logits = torch.randn(1, VOCAB)
    sampler = Sampler(2, VOCAB, "cpu")
    crowded = Numbers(seed=8, frequency_penalty=2.0, repetition_penalty=3.0, bias=((5, 90.0),), top_k=3)
    sampler.fill(1, crowded, tuple(range(40)), 5)
    for _ in range(6):
        _choose(sampler, logits, [1])
    sampler.fill(1, Numbers(seed=4), (), None)
    assert [_choose(sampler, logits, [1])[0] for _ in range(6)] == _one(Numbers(seed=4), logits, 6)


def test_logprobs_are_of_the_logits_before_any_stage() -> None:
    logits = torch.randn(2, VOCAB)
    sampler = Sampler(2, VOCAB, "cpu")
    sampler.fill(0, Numbers(temperature=0.0), (), None)
    sampler.fill(1, Numbers(temperature=0.0, bias=((9, 100.0),)), (), 4)
    _choose(sampler, logits, [0, 1])
    expected = logits[1].log_softmax(-1)
    assert sampler.logprob(1) == pytest.approx(float(expected[9]), abs=1e-6)
    best = expected.topk(4)
    entries = sampler.top(1, 4).entries
    assert [token for token, _ in entries] == best.indices.tolist()
    assert [value for _, value in entries] == pytest.approx(best.values.tolist(), abs=1e-6)


def test_noise_is_a_pure_function_with_the_moments_of_gumbel() -> None:
    keys = Sampler(1, 50_000, "cpu")._token_keys
    seeds, positions = torch.tensor([0, 1, 2**63 - 1, 1]), torch.tensor([0, 0, 0, 1])
    noise = gumbel(seeds, positions, keys)
    assert torch.equal(noise, gumbel(seeds, positions, keys))
    assert torch.equal(noise[1], gumbel(seeds[1:2], positions[1:2], keys)[0])
    assert noise.isfinite().all()
    assert noise.mean(-1).tolist() == pytest.approx([0.5772] * 4, abs=0.03)
    assert noise.var(-1).tolist() == pytest.approx([math.pi**2 / 6] * 4, abs=0.08)
    assert (torch.corrcoef(noise) - torch.eye(4)).abs().max() < 0.02


def _mixed(bits: int) -> int:
    bits = (bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    bits = (bits ^ (bits >> 27)) * 0x94D049BB133111EB % 2**64
    return bits ^ (bits >> 31)


@given(st.integers(0, 2**63 - 1), st.integers(0, 100_000))
def test_noise_is_that_of_unbounded_integers(seed: int, position: int) -> None:
    # A saved seed names an answer, on every device and in every release; this is its definition.
    key = _mixed((_mixed((seed + 0x9E3779B97F4A7C15) % 2**64) + position * 0x9E3779B97F4A7C15) % 2**64)
    shares = [((_mixed((key + token * 0x94D049BB133111EB) % 2**64) >> 11) + 0.5) / 2**53 for token in range(6)]
    expected = [-math.log(-math.log1p(-share)) for share in shares]
    noise = gumbel(torch.tensor([seed]), torch.tensor([position]), Sampler(1, 6, "cpu")._token_keys)
    assert noise[0].tolist() == pytest.approx(expected, abs=2e-4, rel=1e-4)


@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_barred_ids_are_not_chosen_before_the_least_length_whatever_bias_they_have(
    static: bool, temperature: float
) -> None:
    sampler = Sampler(2, VOCAB, "cpu", static=static)
    keen = Numbers(temperature=temperature, bias=((3, 100.0),))
    sampler.fill(0, keen, (), None, least=4, barred=(3, 10**6))
    sampler.fill(1, keen, (), None)
    steps = [_choose(sampler, torch.zeros(2, VOCAB), [0, 1]) for _ in range(6)]
    assert all(token != 3 for token, _ in steps[:4])
    assert [token for token, _ in steps[4:]] == [3, 3]
    assert [token for _, token in steps] == [3] * 6
    sampler.fill(0, keen, (), None)
    assert _choose(sampler, torch.zeros(1, VOCAB), [0]) == [3]
