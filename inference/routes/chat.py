"""`POST /v1/chat/completions`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from starlette.requests import Request
from starlette.routing import Route
from starlette.types import ASGIApp

from inference.generate import Delta, Scored
from inference.planning import Ids
from inference.render import Wording
from inference.routes.answers import Ask, Heading
from inference.routes.serving import Serving
from inference.sampling import Usage
from inference.shapes import chat as shapes
from inference.shapes.fields import Plain, parse

LEAST = -9999.0
"""Stands for minus infinity, which JSON cannot say."""


def sayable(logprob: float) -> float:
    """Give a log-probability as JSON can say it; damaged weights make some that are no numbers."""
    return logprob if logprob > LEAST else LEAST


class ChatWriter:
    """Writes the answers and chunks of chat."""

    def __init__(self, heading: Heading, wording: Wording, *, choices: int, scores: bool):
        self._heading = heading
        self._wording = wording
        self._choices = choices
        self._scores = scores

    def opening(self) -> list[Plain]:
        """Write one role chunk for each choice."""
        return [
            self._chunk(shapes.piece(index, {"role": "assistant", "content": ""})) for index in range(self._choices)
        ]

    def chunk(self, delta: Delta) -> list[Plain]:
        """Write the text, and then the reason of an end with nothing beside it."""
        chunks = []
        if delta.text or delta.scored:
            entries = self._entries(delta.scored) if self._scores else None
            chunks.append(self._chunk(shapes.piece(delta.index, {"content": delta.text}, None, entries)))
        if delta.finish is not None:
            chunks.append(self._chunk(shapes.piece(delta.index, {}, delta.finish)))
        return chunks

    def closing(self, usage: Usage) -> Plain:
        """Write the chunk that counts tokens and has no choice."""
        return {**self._heading.over("chat.completion.chunk"), "choices": [], "usage": shapes.usage(usage)}

    def whole(self, deltas: Sequence[Delta], usage: Usage) -> Plain:
        """Write the answer of a request that is not streamed."""
        grouped: dict[int, list[Delta]] = defaultdict(list)
        for delta in deltas:
            grouped[delta.index].append(delta)
        choices = [self._choice(index, grouped[index]) for index in sorted(grouped)]
        return {**self._heading.over("chat.completion"), "choices": [*choices], "usage": shapes.usage(usage)}

    def _choice(self, index: int, deltas: Sequence[Delta]) -> Plain:
        text = "".join(delta.text for delta in deltas)
        scored = [each for delta in deltas for each in delta.scored]
        entries = self._entries(scored) if self._scores else None
        return shapes.choice(index, text, deltas[-1].finish or "stop", entries)

    def _chunk(self, choice: Plain) -> Plain:
        return {**self._heading.over("chat.completion.chunk"), "choices": [choice]}

    def _entries(self, scored: Sequence[Scored]) -> list[Plain]:
        return [
            {
                **self._token(each.id, each.logprob),
                "top_logprobs": [self._token(id_, logprob) for id_, logprob in each.top],
            }
            for each in scored
        ]

    def _token(self, id_: int, logprob: float) -> Plain:
        text, raw = self._wording.token(id_)
        return {"token": text, "logprob": sayable(logprob), "bytes": list(raw)}


def read(body: bytes) -> Ask:
    """Check a chat body.

    Raises: InvalidRequest.
    """
    asked = parse(body, shapes.ChatRequest, shapes.REFUSED)

    def prompts(wording: Wording) -> list[Ids]:
        tools = [tool.model_dump(exclude_none=True) for tool in asked.tools or ()]
        return [wording.chat([turn.plain() for turn in asked.messages], tools, asked.variables)]

    def writer(heading: Heading, wording: Wording, _: Sequence[Ids]) -> ChatWriter:
        return ChatWriter(heading, wording, choices=asked.choices, scores=asked.likeliest is not None)

    return Ask(
        body=asked,
        limit=asked.limit,
        likeliest=asked.likeliest,
        rows=asked.choices,
        param="messages",
        prompts=prompts,
        writer=writer,
    )


class Chat:
    """The door."""

    def __init__(self, serving: Serving):
        self._serving = serving

    async def create(self, request: Request) -> ASGIApp:
        """Continue a conversation, as one JSON or as events."""
        return await self._serving.answer(request, read, "chatcmpl")

    def routes(self) -> list[Route]:
        """List the endpoints."""
        return [Route("/v1/chat/completions", self.create, methods=["POST"])]
