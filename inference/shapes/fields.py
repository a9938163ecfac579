"""Fields that several endpoints share, and the one way from bytes to a checked body.

The first wrong field is named as `param`, in the way clients write it: `messages[0].content`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, ValidationError

from inference.errors import InvalidRequest
from inference.sampling import Numbers

MAX_STOPS = 16
MAX_CHOICES = 16
MAX_BIAS = 1024
MAX_LOC = 8
"""Steps from the body to the field that `param` names; a template's variables may nest deeper than is told."""


class Shape(BaseModel):
    """Strict, frozen, and closed to unknown fields."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class StreamOptions(Shape):
    """How a stream ends."""

    include_usage: bool | None = None
    include_obfuscation: Literal[False] | None = None


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _token_keys(asked: dict[str, float]) -> dict[str, float]:
    for key in asked:
        if not (key.isascii() and key.isdigit() and len(key) <= 10 and int(key) < 2**31):
            raise InvalidRequest(f"logit_bias has the key {key[:20]!r}, which is not a token id.", param="logit_bias")
    return asked


Bias = Annotated[
    dict[str, Annotated[float, Field(ge=-100, le=100)]], Field(max_length=MAX_BIAS), AfterValidator(_token_keys)
]
Stops = Annotated[
    list[Annotated[str, Field(min_length=1, max_length=1024)]] | None,
    Field(max_length=MAX_STOPS),
    BeforeValidator(_listed),
]
TokenId = Annotated[int, Field(ge=0, lt=2**31)]
Metadata = Annotated[dict[str, Annotated[str, Field(max_length=512)]], Field(max_length=16)]


class Sampling(Shape):
    """How tokens are chosen, where answers end, and what is recorded; the same for chat and completions."""

    model: Annotated[str, Field(min_length=1, max_length=512)]
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: Stops = None
    logit_bias: Bias | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    top_k: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    min_p: Annotated[float, Field(ge=0, lt=1)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=10)] | None = None
    stop_token_ids: Annotated[list[TokenId], Field(max_length=256)] | None = None
    ignore_eos: bool | None = None
    min_tokens: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    timeout: Annotated[float, Field(gt=0, le=86_400)] | None = None

    user: Annotated[str, Field(max_length=512)] | None = None

    def numbers(self, defaults: Mapping[str, float], seed: int) -> Numbers:
        """Merge the request's numbers over the revision's, and those over OpenAI's."""
        own = {
            name: value
            for name in ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
            if (value := getattr(self, name)) is not None
        }
        merged = {**defaults, **own}
        return Numbers(
            temperature=float(merged.get("temperature", 1.0)),
            top_p=float(merged.get("top_p", 1.0)),
            top_k=int(merged.get("top_k", 0)),
            min_p=float(merged.get("min_p", 0.0)),
            repetition_penalty=float(merged.get("repetition_penalty", 1.0)),
            frequency_penalty=self.frequency_penalty or 0.0,
            presence_penalty=self.presence_penalty or 0.0,
            seed=(self.seed if self.seed is not None else seed) % 2**63,
            bias=tuple((int(key), float(value)) for key, value in (self.logit_bias or {}).items()),
        )

    @property
    def choices(self) -> int:
        """Answers asked for."""
        return self.n or 1

    @property
    def wants_usage(self) -> bool:
        """True if a stream ends with a chunk that counts tokens."""
        return bool(self.stream_options and self.stream_options.include_usage)


Body = TypeVar("Body", bound=Shape)


def parse(body: bytes, shape: type[Body], refused: Mapping[str, str]) -> Body:
    """Read a JSON body; `refused` names fields that OpenAI has and we do not do, with what to do instead.

    A refused field with null, false or an empty value is as good as absent.
    Raises: InvalidRequest, with the code of `inference.md`'s table: invalid_json, unsupported_parameter, ….
    """
    try:
        asked = json.loads(body, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise InvalidRequest("The body is not JSON.", code="invalid_json") from None
    if not isinstance(asked, dict):
        raise InvalidRequest("The body is not a JSON object.", code="invalid_json")
    if _has_half_characters(body, asked):
        raise InvalidRequest("The body has half of a surrogate pair, which is no character.", code="invalid_json")
    for name, instead in refused.items():
        value = asked.pop(name, None)
        if value not in (None, False, [], {}, ""):
            raise InvalidRequest(
                f"{name!r} is not supported here{instead and ': ' + instead}.", param=name, code="unsupported_parameter"
            )
    try:
        return shape.model_validate(asked)
    except ValidationError as error:
        raise _translated(error) from None


def _has_half_characters(body: bytes, asked: object) -> bool:
    """Find what JSON can write and Unicode cannot hold: tokenizers, logs and UTF-8 have no place for it."""
    if b"\\ud" not in body.lower():
        return False
    try:
        json.dumps(asked, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    except RecursionError:
        raise InvalidRequest("The body is nested too deeply.", code="invalid_json") from None
    return False


def _no_constant(name: str) -> None:
    raise ValueError(name)


_CODES = {
    "missing": "missing_required_parameter",
    "extra_forbidden": "unknown_parameter",
}


def _translated(error: ValidationError) -> InvalidRequest:
    """Pick the first problem; unknown fields only when nothing else is wrong."""
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    problems.sort(key=lambda problem: problem["type"] == "extra_forbidden")
    first = problems[0]
    param = ""
    for part in first["loc"][:MAX_LOC]:
        if isinstance(part, int):
            param += f"[{part}]"
        elif not part.startswith("<") and part not in ("[key]",):
            param += f".{part}" if param else part
    kind = first["type"]
    code = _CODES.get(kind) or ("invalid_type" if kind.endswith("_type") else "invalid_value")
    if kind == "missing":
        message = f"{param} is required."
    elif kind == "extra_forbidden":
        message = f"{param} is not a known parameter."
    else:
        message = f"{param}: {first['msg'][:1].lower()}{first['msg'][1:]}."
    return InvalidRequest(message, param=param or None, code=code)


Plain = dict[str, JsonValue]
"""JSON of an answer."""
