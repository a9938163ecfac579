"""`POST /v1/completions`."""

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
from inference.routes.chat import sayable
from inference.routes.serving import Serving
from inference.sampling import Usage
from inference.shapes import completions as shapes
from inference.shapes.chat import usage as counted
from inference.shapes.fields import Plain, parse

KIND = "text_completion"


class CompletionWriter:
    """Writes the answers and chunks of completions; with `echo` a choice begins with its prompt."""

    def __init__(self, heading: Heading, wording: Wording, *, echoes: Sequence[str], scores: bool):
        self._heading = heading
        self._wording = wording
        self._echoes = echoes
        self._scores = scores

    def opening(self) -> list[Plain]:
        """Write the echoed prompts; a stream without echo opens with nothing."""
        return [self._chunk(shapes.choice(index, text, None, None)) for index, text in enumerate(self._echoes) if text]

    def chunk(self, delta: Delta) -> list[Plain]:
        """Write one delta, its end included."""
        return [self._chunk(shapes.choice(delta.index, delta.text, delta.finish, self._written(delta.scored)))]

    def closing(self, usage: Usage) -> Plain:
        """Write the chunk that counts tokens and has no choice."""
        return {**self._heading.over(KIND), "choices": [], "usage": counted(usage)}

    def whole(self, deltas: Sequence[Delta], usage: Usage) -> Plain:
        """Write the answer of a request that is not streamed."""
        grouped: dict[int, list[Delta]] = defaultdict(list)
        for delta in deltas:
            grouped[delta.index].append(delta)
        choices = [self._choice(index, grouped[index]) for index in sorted(grouped)]
        return {**self._heading.over(KIND), "choices": [*choices], "usage": counted(usage)}

    def _choice(self, index: int, deltas: Sequence[Delta]) -> Plain:
        text = self._echoes[index] + "".join(delta.text for delta in deltas)
        scored = [each for delta in deltas for each in delta.scored]
        return shapes.choice(index, text, deltas[-1].finish, self._written(scored))

    def _chunk(self, choice: Plain) -> Plain:
        return {**self._heading.over(KIND), "choices": [choice]}

    def _written(self, scored: Sequence[Scored]) -> Plain | None:
        if not self._scores:
            return None
        return shapes.logprobs([self._entry(each) for each in scored])

    def _entry(self, each: Scored) -> tuple[str, float, dict[str, float], int]:
        text, _ = self._wording.token(each.id)
        top = {self._wording.token(id_)[0]: sayable(logprob) for id_, logprob in each.top}
        logprob = sayable(each.logprob)
        return text, logprob, {**top, text: logprob} if top else {}, each.at


def read(body: bytes) -> Ask:
    """Check a completions body.

    Raises: InvalidRequest.
    """
    asked = parse(body, shapes.CompletionRequest, shapes.REFUSED)

    def prompts(wording: Wording) -> list[Ids]:
        return [wording.encode(each) if isinstance(each, str) else tuple(each) for each in asked.prompt]

    def writer(heading: Heading, wording: Wording, ids: Sequence[Ids]) -> CompletionWriter:
        texts = [
            (each if isinstance(each, str) else wording.decode(own)) if asked.echo else ""
            for each, own in zip(asked.prompt, ids, strict=True)
        ]
        echoes = [text for text in texts for _ in range(asked.choices)]
        return CompletionWriter(heading, wording, echoes=echoes, scores=asked.likeliest is not None)

    return Ask(
        body=asked,
        limit=asked.limit,
        likeliest=asked.likeliest,
        rows=len(asked.prompt) * asked.choices,
        param="prompt",
        prompts=prompts,
        writer=writer,
    )


class Completions:
    """The door."""

    def __init__(self, serving: Serving):
        self._serving = serving

    async def create(self, request: Request) -> ASGIApp:
        """Continue texts, as one JSON or as events."""
        return await self._serving.answer(request, read, "cmpl")

    def routes(self) -> list[Route]:
        """List the endpoints."""
        return [Route("/v1/completions", self.create, methods=["POST"])]
