"""The numbers of one request, checked once and read by every engine; pure."""

from __future__ import annotations

from dataclasses import dataclass, field

MAX_BARRED = 512
"""Ids that may end an answer, where an answer has a least length."""


@dataclass(frozen=True, slots=True)
class Numbers:
    """How the next token is chosen.

    Order of effect: repetition, frequency and presence penalty, bias, 1/temperature, top-k, top-p, min-p, then one
    seeded Gumbel draw. Equal numbers, seed and logits give equal tokens whatever else is in the batch.
    """

    temperature: float = 1.0
    """0 takes the likeliest token; up to 2."""
    top_p: float = 1.0
    """Keep the smallest set of likeliest tokens whose probabilities reach this; (0, 1]."""
    top_k: int = 0
    """Keep the k likeliest tokens; 0 keeps all."""
    min_p: float = 0.0
    """Drop tokens below this share of the likeliest token's probability; [0, 1)."""
    frequency_penalty: float = 0.0
    """Subtracted from a token's logit once per earlier generation of it (the prompt is not counted); −2…2."""
    presence_penalty: float = 0.0
    """Subtracted once from every token generated already; −2…2."""
    repetition_penalty: float = 1.0
    """Divides positive and multiplies negative logits of tokens in prompt or answer; 1 is off."""
    seed: int = 0
    """63 bits; the caller's, or drawn by the door."""
    bias: tuple[tuple[int, float], ...] = ()
    """(token id, added to its logit), at most 1,024 pairs."""

    @property
    def greedy(self) -> bool:
        """True if no noise is added."""
        return self.temperature == 0.0


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one request: prompt, of those read from shared pages, and generated."""

    prompt: int
    completion: int
    cached: int = 0


@dataclass(frozen=True, slots=True)
class Top:
    """The likeliest tokens at one position, best first: (token id, natural log of its probability)."""

    entries: tuple[tuple[int, float], ...] = field(default_factory=tuple)
