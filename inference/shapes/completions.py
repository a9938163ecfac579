"""`/v1/completions`: the request, its answer and its chunks. Prompts are text, ids, or a list of either.

Source: OpenAI's API reference, completions (legacy).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from inference.errors import InvalidRequest
from inference.shapes.fields import Metadata, Plain, Sampling, TokenId

MAX_PROMPTS = 64
MAX_ROWS = 32
"""Prompts × n: what an engine takes at once."""

REFUSED: Mapping[str, str] = {
    "suffix": "the model has no infill template",
    "structured_outputs": "",
    "response_format": "",
    "priority": "",
    "cache_salt": "",
    "keep_alive": "",
    "store": "answers are not stored",
}


def _several(value: object) -> object:
    """Make a list of prompts of one prompt: a text, or a list of ids."""
    if isinstance(value, str) or (isinstance(value, list) and value and isinstance(value[0], int)):
        return [value]
    return value


def _kind(value: object) -> str:
    return "<ids>" if isinstance(value, list) else "<text>"


Prompt = Annotated[
    Annotated[str, Tag("<text>")] | Annotated[list[TokenId], Tag("<ids>"), Field(min_length=1)],
    Discriminator(_kind),
]


class CompletionRequest(Sampling):
    """Texts to continue."""

    prompt: Annotated[list[Prompt], Field(min_length=1, max_length=MAX_PROMPTS), BeforeValidator(_several)]
    echo: bool | None = None
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None
    best_of: Annotated[int, Field(ge=1, le=16)] | None = None
    metadata: Metadata | None = None

    @model_validator(mode="after")
    def _together(self) -> CompletionRequest:
        """Refuse combinations that no answer can honour."""
        if self.best_of is not None and self.best_of != self.choices:
            raise InvalidRequest("best_of must equal n.", param="best_of", code="unsupported_value")
        if self.echo and self.logprobs is not None:
            message = "echo cannot be combined with logprobs: prompt tokens are not scored."
            raise InvalidRequest(message, param="logprobs", code="unsupported_value")
        if len(self.prompt) * self.choices > MAX_ROWS:
            raise InvalidRequest(f"prompts × n is more than {MAX_ROWS}.", param="n", code="unsupported_value")
        return self

    @property
    def limit(self) -> int:
        """Tokens asked for at most; OpenAI's default for this endpoint."""
        return 16 if self.max_tokens is None else self.max_tokens

    @property
    def likeliest(self) -> int | None:
        """None: no log-probabilities; else how many alternatives for each token."""
        return self.logprobs


def logprobs(entries: Sequence[tuple[str, float, Mapping[str, float], int]] | None) -> Plain | None:
    """Write (token, log-probability, alternatives, place in text) as the endpoint's four lists."""
    if entries is None:
        return None
    return {
        "tokens": [token for token, _, _, _ in entries],
        "token_logprobs": [logprob for _, logprob, _, _ in entries],
        "top_logprobs": [dict(top) for _, _, top, _ in entries],
        "text_offset": [at for _, _, _, at in entries],
    }


def choice(index: int, text: str, finish: str | None, scores: Plain | None) -> Plain:
    """Write a choice, whole or as part of a chunk."""
    return {"index": index, "text": text, "logprobs": scores, "finish_reason": finish}
