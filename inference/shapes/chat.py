"""`/v1/chat/completions`: the request, its answer and its chunks.

Source: OpenAI's API reference, chat completions; fields without effect by nature are taken and recorded.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Annotated, Literal

from pydantic import Discriminator, Field, JsonValue, Tag, model_validator

from inference.errors import InvalidRequest
from inference.sampling import Usage
from inference.shapes.fields import Metadata, Plain, Sampling, Shape

REFUSED: Mapping[str, str] = {
    "functions": "it was replaced by 'tools', which is not supported yet",
    "function_call": "it was replaced by 'tool_choice', which is not supported yet",
    "structured_outputs": "",
    "audio": "this server answers with text",
    "prediction": "",
    "web_search_options": "",
    "moderation": "",
    "priority": "",
    "cache_salt": "",
    "keep_alive": "",
    "continue_final_message": "",
    "store": "answers are not stored",
}


class TextPart(Shape):
    """A piece of text."""

    type: Literal["text"]
    text: str


class Function(Shape):
    """What a tool is called and what it takes; a JSON schema."""

    name: Annotated[str, Field(min_length=1, max_length=64)]
    description: str | None = None
    parameters: dict[str, JsonValue] | None = None
    strict: bool | None = None


class Tool(Shape):
    """A function that the model is told of."""

    type: Literal["function"]
    function: Function


class FunctionCall(Shape):
    """What an earlier answer called."""

    name: str
    arguments: str


class ToolCall(Shape):
    """One call of an earlier answer."""

    id: str
    type: Literal["function"] = "function"
    function: FunctionCall

    def plain(self) -> dict[str, object]:
        """Give the call as templates know it: they write the arguments as JSON, so they must not be a text already."""
        call: dict[str, object] = {"name": self.function.name, "arguments": self.function.arguments}
        with suppress(ValueError, RecursionError):
            arguments = json.loads(self.function.arguments)
            if isinstance(arguments, dict):
                call["arguments"] = arguments
        return {"id": self.id, "type": self.type, "function": call}


def _kind(value: object) -> str:
    return "<parts>" if isinstance(value, list) else "<text>"


Content = Annotated[
    Annotated[str, Tag("<text>")] | Annotated[list[TextPart], Tag("<parts>"), Field(min_length=1)],
    Discriminator(_kind),
]


class Message(Shape):
    """One turn of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Content | None = None
    name: Annotated[str, Field(max_length=256)] | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    refusal: str | None = None

    def check(self, param: str) -> None:
        """Refuse a turn without content (an assistant may call instead), and fields of another role's."""
        if self.content is None and not (self.role == "assistant" and (self.tool_calls or self.refusal)):
            raise InvalidRequest(
                f"{param}.content is required.", param=f"{param}.content", code="missing_required_parameter"
            )
        if self.tool_calls and self.role != "assistant":
            raise InvalidRequest(f"{param}.tool_calls: only an assistant calls tools.", param=f"{param}.tool_calls")
        if self.role == "tool" and self.tool_call_id is None:
            where = f"{param}.tool_call_id"
            raise InvalidRequest(f"{where} is required.", param=where, code="missing_required_parameter")

    def plain(self) -> dict[str, object]:
        """Give the message as templates know it: content is one text, absent fields are absent."""
        content = self.content
        if isinstance(content, list):
            content = "\n".join(part.text for part in content)
        message: dict[str, object] = {"role": self.role, "content": content or ""}
        if self.name is not None:
            message["name"] = self.name
        if self.tool_calls:
            message["tool_calls"] = [call.plain() for call in self.tool_calls]
        if self.tool_call_id is not None:
            message["tool_call_id"] = self.tool_call_id
        return message


class ChatRequest(Sampling):
    """A conversation to continue."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=4096)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh"] | None = None
    verbosity: Literal["low", "medium", "high"] | None = None
    chat_template_kwargs: dict[str, JsonValue] | None = None
    response_format: JsonValue = None
    tools: Annotated[list[Tool], Field(max_length=128)] | None = None
    tool_choice: JsonValue = None
    parallel_tool_calls: bool | None = None
    modalities: list[Literal["text"]] | None = None

    metadata: Metadata | None = None
    safety_identifier: Annotated[str, Field(max_length=512)] | None = None
    service_tier: Literal["auto", "default"] | None = None
    prompt_cache_key: Annotated[str, Field(max_length=512)] | None = None
    prompt_cache_retention: Annotated[str, Field(max_length=64)] | None = None

    @model_validator(mode="after")
    def _together(self) -> ChatRequest:
        """Refuse what needs a grammar or a parser of calls, and turns in which nobody speaks."""
        if self.response_format not in (None, {"type": "text"}):
            raise _unsupported("response_format", "only {'type': 'text'} is supported")
        if self.tools and self.tool_choice != "none":
            raise _unsupported("tools", "calls are not parsed yet; with tool_choice 'none' the model is told of them")
        if self.tool_choice not in (None, "none") and (self.tools or self.tool_choice != "auto"):
            raise _unsupported("tool_choice", "only 'none' is supported")
        if self.top_logprobs is not None and not self.logprobs:
            raise InvalidRequest("top_logprobs needs logprobs: true.", param="top_logprobs")
        for place, message in enumerate(self.messages):
            message.check(f"messages[{place}]")
        return self

    @property
    def limit(self) -> int | None:
        """Tokens asked for at most; the newer name wins."""
        return self.max_completion_tokens if self.max_completion_tokens is not None else self.max_tokens

    @property
    def variables(self) -> dict[str, JsonValue]:
        """What the chat template is told beside the messages; names given by themselves win."""
        asked: dict[str, JsonValue] = {"reasoning_effort": self.reasoning_effort, "verbosity": self.verbosity}
        return {name: value for name, value in asked.items() if value is not None} | (self.chat_template_kwargs or {})

    @property
    def likeliest(self) -> int | None:
        """None: no log-probabilities; else how many alternatives for each token."""
        return (self.top_logprobs or 0) if self.logprobs else None


def _unsupported(param: str, instead: str) -> InvalidRequest:
    return InvalidRequest(f"{param}: {instead}.", param=param, code="unsupported_parameter")


def usage(counted: Usage) -> Plain:
    """Write token counts."""
    return {
        "prompt_tokens": counted.prompt,
        "completion_tokens": counted.completion,
        "total_tokens": counted.prompt + counted.completion,
        "prompt_tokens_details": {"cached_tokens": counted.cached},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }


def logprobs(entries: Sequence[Plain] | None) -> JsonValue:
    """Write the log-probabilities of a choice."""
    return None if entries is None else {"content": list(entries), "refusal": None}


def choice(index: int, text: str, finish: str, entries: Sequence[Plain] | None) -> Plain:
    """Write a whole choice."""
    return {
        "index": index,
        "message": {"role": "assistant", "content": text, "refusal": None},
        "logprobs": logprobs(entries),
        "finish_reason": finish,
    }


def piece(index: int, delta: Plain, finish: str | None = None, entries: Sequence[Plain] | None = None) -> Plain:
    """Write a choice's part in a chunk."""
    return {"index": index, "delta": delta, "logprobs": logprobs(entries), "finish_reason": finish}
