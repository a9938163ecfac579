"""Chooses the next token of every row: static tables, one line per live request, and noise that is a pure function.

The engine around it takes the argmax of what comes back, so the scores returned here are arranged for their argmax to
*be* the sample (the Gumbel-max trick). The noise of a token is a hash of (seed, position, token id) in 64-bit integer
arithmetic: it does not depend on the batch, on what ran before, or on the device.

Stages, in the order that `Numbers` promises:

    repetition, frequency, presence → bias → least length → 1/temperature → top-k, top-p, min-p → + noise

A stage touches only rows that ask for it. With `static=True` every stage runs on every row at full width, so that the
step reads nothing back to the host and has one shape; that is what graph capture needs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import inf, log
from typing import TYPE_CHECKING

from inference.sampling import MAX_BARRED, Numbers, Top

if TYPE_CHECKING:
    from torch import Tensor

MAX_TOP = 20
MAX_BIAS = 1024
COLDEST = 1e-5
"""Below this temperature the likeliest token wins anyway, and dividing by it would overflow."""
FIRST_WIDTH = 1024
"""Likeliest tokens looked at before a whole row is sorted; sorting 150,000 scores takes 8 ms a row on one core."""

# The finaliser of SplitMix64, as signed 64-bit numbers because torch has no unsigned products.
GOLDEN, STIR_1, STIR_2 = -0x61C8864680B583EB, -0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15

Stage = Callable[["Tensor", "Tensor"], "Tensor"]


class Sampler:
    """Tables of `slots` requests over `vocab` ids; row `spare` is neutral and belongs to padding."""

    def __init__(self, slots: int, vocab: int, device: str, *, static: bool = False):
        import torch

        def table(*shape: int, dtype: object = torch.float32) -> Tensor:
            return torch.zeros((slots + 1, *shape), dtype=dtype, device=device)

        self.spare, self.vocab, self.static = slots, vocab, static
        self._heat, self._floor, self._top_p = table(), table(), table()
        self._frequency, self._presence, self._repetition = table(), table(), table()
        self._top_k, self._seed, self._position = (table(dtype=torch.int64) for _ in range(3))
        self._counts, self._prompt = table(vocab, dtype=torch.int32), table(vocab, dtype=torch.bool)
        self._hot = table(dtype=torch.bool)
        self._bias_ids, self._bias = table(MAX_BIAS, dtype=torch.int64), table(MAX_BIAS)
        self._least = table(dtype=torch.int64)
        self._barred_ids, self._barred = table(MAX_BARRED, dtype=torch.int64), table(MAX_BARRED)
        self._logprob, self._top_logprobs = table(), table(min(MAX_TOP, vocab))
        self._top_ids = table(min(MAX_TOP, vocab), dtype=torch.int64)
        self._asks: dict[int, frozenset[str]] = {}
        self._lines: dict[str, Tensor | None] = {}
        self._token_keys = torch.arange(vocab, dtype=torch.int64, device=device) * STIR_2
        self._ranks = torch.arange(vocab, dtype=torch.int64, device=device)
        self.fill(slots, Numbers(temperature=0.0), (), None)

    def fill(
        self, slot: int, numbers: Numbers, prompt: tuple[int, ...], logprobs: int | None, *,
        least: int = 0, barred: Iterable[int] = (),
    ) -> None:  # fmt: skip
        """Take a request into `slot`; everything its last owner left there is gone afterwards.

        barred: up to `MAX_BARRED` ids that are not among the first `least` tokens.
        """
        import torch

        greedy = numbers.temperature < COLDEST
        self._heat[slot] = 1.0 if greedy else numbers.temperature
        self._hot[slot] = not greedy
        self._top_k[slot] = numbers.top_k if 0 < numbers.top_k < self.vocab else self.vocab
        self._top_p[slot] = numbers.top_p if numbers.top_p < 1 else inf
        self._floor[slot] = log(numbers.min_p) if numbers.min_p > 0 else -inf
        self._frequency[slot], self._presence[slot] = numbers.frequency_penalty, numbers.presence_penalty
        self._repetition[slot] = numbers.repetition_penalty
        self._seed[slot], self._position[slot] = numbers.seed, 0
        self._counts[slot].zero_()
        self._prompt[slot].zero_()
        if prompt and numbers.repetition_penalty != 1:
            self._prompt[slot, torch.tensor(sorted(set(prompt)), device=self._prompt.device)] = True
        self._bias_ids[slot].zero_()
        self._bias[slot].zero_()
        if numbers.bias:
            ids, amounts = zip(*numbers.bias, strict=True)
            self._bias_ids[slot, : len(ids)] = torch.tensor(ids, device=self._bias.device)
            self._bias[slot, : len(ids)] = torch.tensor(amounts, dtype=torch.float32, device=self._bias.device)
        self._bar(slot, least, sorted(id_ for id_ in barred if 0 <= id_ < self.vocab))
        self._asks[slot] = _asks(numbers, greedy, logprobs, least)

    def _bar(self, slot: int, least: int, ids: list[int]) -> None:
        import torch

        self._least[slot] = least
        self._barred_ids[slot].zero_()
        self._barred[slot].zero_()
        if least and ids:
            self._barred_ids[slot, : len(ids)] = torch.tensor(ids, device=self._barred.device)
            self._barred[slot, : len(ids)] = -inf

    def plan(self, slots: list[int], padded: int = 0) -> Tensor:
        """Say which slots the next step samples for, in order; return them as int32, padded with the spare row."""
        import torch

        device = self._heat.device
        for stage in ("penalty", "bias", "least", "heat", "nucleus", "noise", "logprobs"):
            lines = [line for line, slot in enumerate(slots) if stage in self._asks[slot]]
            self._lines[stage] = torch.tensor(lines, dtype=torch.int64, device=device) if lines else None
        return torch.tensor(slots + [self.spare] * (padded - len(slots)), dtype=torch.int32)

    def __call__(self, logits: Tensor, rows: Tensor) -> Tensor:
        """Return scores whose argmax is each row's next token, and count that token.

        logits: float32 [n, vocab], left unchanged; rows: int32 [n], a slot each.
        """
        rows = rows.long()
        scores = logits.clone()
        self._apply("penalty", self._penalise, scores, rows)
        self._apply("bias", self._lean, scores, rows)
        self._apply("least", self._wait, scores, rows)
        self._apply("heat", lambda part, own: part / self._heat[own].unsqueeze(1), scores, rows)
        self._apply("nucleus", self._cut, scores, rows)
        self._apply("noise", self._stir, scores, rows)
        chosen = scores.argmax(-1)
        if self.static or self._lines.get("logprobs") is not None:
            self._note(logits, chosen, rows)
        ones = rows.new_ones(rows.shape)
        self._counts.index_put_((rows, chosen), ones.int(), accumulate=True)
        self._position.index_add_(0, rows, ones)
        return scores

    def logprob(self, slot: int) -> float:
        """Read the natural log of the probability of the last token chosen for `slot`, before any stage."""
        return float(self._logprob[slot])

    def top(self, slot: int, count: int) -> Top:
        """Read the `count` likeliest tokens of the last step of `slot`, before any stage."""
        ids, values = self._top_ids[slot, :count].tolist(), self._top_logprobs[slot, :count].tolist()
        return Top(tuple(zip(ids, values, strict=True)))

    def _apply(self, name: str, stage: Stage, scores: Tensor, rows: Tensor) -> None:
        """Run a stage in place on the lines that ask for it."""
        lines = self._lines.get(name)
        if self.static or (lines is not None and len(lines) == len(rows)):
            scores.copy_(stage(scores, rows))
        elif lines is not None:
            scores.index_copy_(0, lines, stage(scores[lines], rows[lines]))

    def _penalise(self, scores: Tensor, rows: Tensor) -> Tensor:
        counts, factor = self._counts[rows], self._repetition[rows].unsqueeze(1)
        seen = (counts > 0) | self._prompt[rows]
        pushed = (scores / factor).where(scores > 0, scores * factor)
        scores = pushed.where(seen, scores)
        scores = scores - counts * self._frequency[rows].unsqueeze(1)
        return scores - (counts > 0) * self._presence[rows].unsqueeze(1)

    def _lean(self, scores: Tensor, rows: Tensor) -> Tensor:
        return scores.scatter_add(1, self._bias_ids[rows], self._bias[rows])

    def _wait(self, scores: Tensor, rows: Tensor) -> Tensor:
        """Keep answers from ending while they are shorter than asked for."""
        is_short = (self._position[rows] < self._least[rows]).unsqueeze(1)
        amounts = self._barred[rows].where(is_short, self._barred.new_zeros(()))
        return scores.scatter_add(1, self._barred_ids[rows], amounts)

    def _cut(self, scores: Tensor, rows: Tensor) -> Tensor:
        width = self.vocab if self.static else min(FIRST_WIDTH, self.vocab)
        lowest, sure = self._lowest(scores, rows, width)
        if not self.static and not bool(sure.all()):
            # Which rows need the whole sort depends on themselves alone, so no row's answer depends on its batch.
            rest = (~sure).nonzero().squeeze(1)
            lowest[rest] = self._lowest(scores[rest], rows[rest], self.vocab)[0]
        floor = scores.amax(-1, keepdim=True) + self._floor[rows].unsqueeze(1)
        return scores.masked_fill(scores < lowest.maximum(floor), -inf)

    def _lowest(self, scores: Tensor, rows: Tensor, width: int) -> tuple[Tensor, Tensor]:
        """Find the lowest score that top-k and top-p keep, [n, 1], and whether `width` scores were enough, [n]."""
        top_k, top_p = self._top_k[rows].unsqueeze(1), self._top_p[rows].unsqueeze(1)
        best = scores.topk(width, -1).values
        inside = self._ranks[:width] < top_k
        best = best.masked_fill(~inside, -inf)
        total = best.logsumexp(-1, keepdim=True).where(top_k < self.vocab, scores.logsumexp(-1, keepdim=True))
        mass = (best - total).exp().cumsum(-1)
        kept = inside.clone()
        kept[:, 1:] &= mass[:, :-1] < top_p
        lowest = best.gather(1, kept.sum(-1, keepdim=True) - 1)
        off = (top_k >= self.vocab) & (top_p == inf)
        sure = off | (top_k <= width) | (mass[:, -1:] >= top_p)
        return lowest.masked_fill(off, -inf), sure.squeeze(1)

    def _stir(self, scores: Tensor, rows: Tensor) -> Tensor:
        if scores.device.type == "cpu" and not self.static:
            # Row by row the work stays in the cache: 34 ms, not 83, for eight rows of 152,000 ids (2 cores, 2026-11).
            for line, row in enumerate(rows.unsqueeze(1)):
                scores[line] += gumbel(self._seed[row], self._position[row], self._token_keys)[0]
            return scores
        noisy = scores + gumbel(self._seed[rows], self._position[rows], self._token_keys)
        return noisy.where(self._hot[rows].unsqueeze(1), scores) if self.static else noisy

    def _note(self, logits: Tensor, chosen: Tensor, rows: Tensor) -> None:
        lines = None if self.static else self._lines["logprobs"]
        if lines is not None:
            logits, chosen, rows = logits[lines], chosen[lines], rows[lines]
        total = logits.logsumexp(-1)
        best = logits.topk(self._top_ids.shape[1], -1)
        self._logprob[rows] = logits.gather(1, chosen.unsqueeze(1)).squeeze(1) - total
        self._top_ids[rows] = best.indices
        self._top_logprobs[rows] = best.values - total.unsqueeze(1)


def gumbel(seed: Tensor, position: Tensor, token_keys: Tensor) -> Tensor:
    """Draw float32 [n, vocab] Gumbel noise from int64 [n] seeds and positions; a pure function of each element.

    Source: SplitMix64's finaliser, over (mixed seed + position) first and over that plus the token's key then.
    """
    keys = _mix(_mix(seed + GOLDEN) + position * GOLDEN)
    bits = _mix(keys.unsqueeze(1) + token_keys)
    # 53 random bits in [0, 1). Values near 0 keep their full precision in float32, and they make the largest noise.
    share = bits.bitwise_right_shift_(11).bitwise_and_((1 << 53) - 1).float().add_(0.5).mul_(2.0**-53)
    return share.clamp_(max=1 - 2.0**-24).neg_().log1p_().neg_().log_().neg_()


def _mix(bits: Tensor) -> Tensor:
    """Mix in place."""
    for by, factor in ((30, STIR_1), (27, STIR_2), (31, 1)):
        # A shift of signed numbers drags the sign along; the mask takes it off again.
        bits.bitwise_xor_((bits >> by).bitwise_and_((1 << (64 - by)) - 1))
        if factor != 1:
            bits.mul_(factor)
    return bits


def _asks(numbers: Numbers, greedy: bool, logprobs: int | None, least: int) -> frozenset[str]:
    """Name the stages this request needs; the others would leave its scores as they are."""
    penalised = numbers.frequency_penalty or numbers.presence_penalty or numbers.repetition_penalty != 1
    cut = not greedy and (numbers.top_k > 0 or numbers.top_p < 1 or numbers.min_p > 0)
    wanted = {
        "penalty": penalised,
        "bias": numbers.bias,
        "least": least > 0,
        "heat": not greedy,
        "nucleus": cut,
        "noise": not greedy,
        "logprobs": logprobs is not None,
    }
    return frozenset(name for name, is_wanted in wanted.items() if is_wanted)
