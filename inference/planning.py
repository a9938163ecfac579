"""A request's prompts and numbers, checked against the model that will answer: what no shape alone can know."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from inference.engine import Info
from inference.errors import ContextExceeded, InvalidRequest, ModelNotCapable
from inference.generate import Plan, Row
from inference.render import Wording
from inference.sampling import MAX_BARRED
from inference.shapes.fields import Sampling

Ids = tuple[int, ...]


def plan(
    *, body: Sampling, prompts: Sequence[Ids], limit: int | None, likeliest: int | None, info: Info, wording: Wording,
    seed: int, param: str,
) -> Plan:  # fmt: skip
    """Make `n` rows of each prompt; the tokens asked for are cut to what fits the context, the prompt never is.

    `param` names the prompt's field in errors; `seed` is used when the request has none, and choice i draws from
    seed + i. Raises: ModelNotCapable, ContextExceeded, InvalidRequest.
    """
    if "generate" not in info.abilities:
        raise ModelNotCapable("This model does not generate text.", param="model")
    numbers = body.numbers(wording.defaults.numbers, seed)
    if any(id_ >= info.vocab for id_, _ in numbers.bias):
        raise InvalidRequest(f"logit_bias names a token beyond the vocabulary of {info.vocab}.", param="logit_bias")
    stop_ids = frozenset(body.stop_token_ids or ()) | (frozenset() if body.ignore_eos else wording.stop_ids)
    least = body.min_tokens or 0
    if limit is not None and least > limit:
        raise InvalidRequest(f"min_tokens is {least}, and at most {limit} are asked for.", param="min_tokens")
    if least and len(stop_ids) > MAX_BARRED:
        raise InvalidRequest(f"min_tokens goes with up to {MAX_BARRED} ids that end an answer.", param="min_tokens")
    rows = []
    for place, ids in enumerate(prompts):
        room = _room(ids, info, param)
        for each in range(body.choices):
            seeded = replace(numbers, seed=(numbers.seed + each) % 2**63)
            most = room if limit is None else min(limit, room)
            rows.append(Row(place, ids, most, seeded, min(least, most)))
    return Plan(tuple(rows), tuple(body.stop or ()), stop_ids, likeliest)


def _room(ids: Ids, info: Info, param: str) -> int:
    """Say how many tokens fit behind a prompt: at least one."""
    if not ids:
        raise InvalidRequest(f"{param} has no tokens.", param=param)
    if any(id_ >= info.vocab for id_ in ids):
        raise InvalidRequest(f"{param} names a token beyond the vocabulary of {info.vocab}.", param=param)
    if len(ids) + 1 > info.context:
        raise ContextExceeded(
            f"{param} has {len(ids)} tokens; the model's context is {info.context}, the answer included.", param=param
        )
    return info.context - len(ids)
