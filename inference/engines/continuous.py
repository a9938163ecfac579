"""`ContinuousEngine`: many requests a step, each with numbers of its own.

Threads: any caller may `submit`, `cancel`, look or close; the batcher's thread alone calls the sinks and touches the
sampler. Between them stand one lock, never held across a step, and rows:

    submit → inbox ── between two steps ──> sampler line + batcher ── each step ──> sink … → Done | Failed → slot free
    cancel → flag  ── between two steps ──> dropped, Done("cancelled")
"""

from __future__ import annotations

import gc
import logging
import threading
from collections import deque
from dataclasses import dataclass
from itertools import count
from typing import Any

from inference.engine import Done, Event, Failed, Info, Reason, Request, Sink, Stats, Ticket, Tokens
from inference.engines import weights
from inference.engines.batcher import Batcher, Settings
from inference.engines.sampler import MAX_BIAS, MAX_TOP, Sampler
from inference.errors import ContextExceeded, EngineFailed, EngineFull, InvalidRequest, Unavailable
from inference.sampling import MAX_BARRED, Usage

log = logging.getLogger(__name__)

STOP_SECONDS = 20.0
"""How long `close` waits for the step that is running."""


@dataclass(slots=True, eq=False)
class _Row:
    key: str
    request: Request
    sink: Sink
    slot: int
    made: int = 0
    cached: int = 0
    is_cancelled: bool = False


class ContinuousEngine:
    """An `Engine` over a causal model of Transformers; takes the model over and starts its thread."""

    def __init__(self, model: Any, name: str, settings: Settings | None = None):
        """Reserve the cache and start the thread.

        Raises: Overloaded (`model_capacity`: the cache does not fit in memory).
        """
        settings = settings or Settings.of(model)
        text = model.config.get_text_config()
        vocab = int(text.vocab_size)
        self._limit = settings.rows + settings.waiting
        self._running = settings.rows
        self._changed = threading.Condition()
        self._rows: dict[str, _Row] = {}
        self._inbox: deque[_Row] = deque()
        self._free = list(range(self._limit))
        self._numbers = count()
        self._is_draining = self._is_closing = self._is_broken = False
        self._sampler: Sampler | None = Sampler(self._limit, vocab, str(model.device))
        self._batcher = Batcher(model, self._sampler, settings, self)
        self._kv_used, self._kv_total = 0, self._batcher.kv_total
        context = min(int(text.max_position_embeddings), self._batcher.longest)
        size = weights.held(model) + self._batcher.reserved
        self._info = Info(context, vocab, frozenset({"generate"}), size, name)
        self._batcher.start()

    def info(self) -> Info:
        """Say what is constant about the model."""
        return self._info

    def submit(self, request: Request, sink: Sink) -> Ticket:
        """Queue a request; return at once.

        Raises: InvalidRequest (a number the model cannot take), EngineFull, Unavailable, EngineFailed.
        """
        self._check(request)
        with self._changed:
            if self._is_draining or self._is_closing:
                raise Unavailable("this model is being unloaded; ask again", code="draining", retry_after=1)
            if self._is_broken:
                raise EngineFailed("the engine of this model stopped; ask again once it has been rebuilt")
            if not self._free:
                raise EngineFull(f"the engine holds {self._limit} requests already; ask again", retry_after=1)
            row = _Row(f"{request.id}#{next(self._numbers)}", request, sink, self._free.pop())
            self._rows[row.key] = row
            self._inbox.append(row)
            self._batcher.wake()
        return Ticket(row.key)

    def cancel(self, ticket: Ticket) -> None:
        """End a request with `Done("cancelled")` before the next step begins."""
        with self._changed:
            row = self._rows.get(ticket.id)
            if row is not None:
                row.is_cancelled = True
                self._batcher.wake()

    def stats(self) -> Stats:
        """Look at queue and cache."""
        with self._changed:
            held = len(self._rows)
        running = min(held, self._running)
        return Stats(queued=held - running, running=running, kv_used=self._kv_used, kv_total=self._kv_total)

    def broken(self) -> bool:
        """Say whether the engine's thread ended by itself; only a new engine helps then."""
        return self._is_broken

    def drain(self, deadline: float) -> bool:
        """Refuse new work and wait up to `deadline` seconds for the old; True if all of it finished."""
        with self._changed:
            self._is_draining = True
            return self._changed.wait_for(lambda: not self._rows, timeout=deadline)

    def close(self) -> None:
        """Stop the thread, fail what runs, and free the device."""
        with self._changed:
            if self._is_closing:
                return
            self._is_closing = True
        if not self._batcher.stop(STOP_SECONDS):
            log.error("the engine's thread did not stop within %s seconds", STOP_SECONDS)
            return
        self._sampler, self._kv_used = None, 0
        gc.collect()

    def between_steps(self) -> None:
        """Take in and cancel, on the batcher's thread."""
        with self._changed:
            new = list(self._inbox)
            self._inbox.clear()
            cancelled = [row for row in self._rows.values() if row.is_cancelled]
        for row in cancelled:
            self._batcher.drop(row.key)
            self._end(row, Done("cancelled", _usage(row)))
        for row in new:
            if not row.is_cancelled and self._sampler is not None:
                asked = row.request
                self._sampler.fill(
                    row.slot, asked.numbers, asked.ids, asked.logprobs, least=asked.min_new, barred=asked.stop_ids
                )
                self._batcher.add(row.key, row.slot, asked)

    def after_step(self) -> None:
        """Keep the cache's figures for `stats`, which may not look into the batcher itself."""
        self._kv_used = self._batcher.kv_used()

    def matched(self, key: str, tokens: int) -> None:
        """Note the shared part of a prompt the first time it is looked up; a later look counts its own answer."""
        row = self._rows.get(key)
        if row is not None and row.made == 0:
            row.cached = tokens

    def delivered(self, key: str, generated: list[int], is_finished: bool) -> None:
        """Pass on what the last step added to a request."""
        row = self._rows.get(key)
        if row is None or row.is_cancelled:
            return
        new = generated[row.made :]
        row.made = len(generated)
        is_stop = bool(new) and new[-1] in row.request.stop_ids
        shown = new[:-1] if is_stop else new
        if shown:
            self._emit(row, self._tokens(row, tuple(shown)))
        if is_finished:
            reason: Reason = "stop" if is_stop else "length"
            self._end(row, Done(reason, _usage(row)))

    def failed(self, key: str, why: str) -> None:
        """End a request that cannot be finished."""
        row = self._rows.get(key)
        if row is None:
            return
        if self._is_closing:
            self._end(row, Failed(Unavailable("this model was unloaded; ask again", code="draining", retry_after=1)))
        else:
            # A failed step ends the thread; who hears of it and asks again must find the engine broken already.
            self._is_broken = True
            log.error("request %s failed: %s", key, why)
            self._end(row, Failed(EngineFailed("the engine broke while answering; ask again")))

    def ended(self) -> None:
        """End what the batcher left, whatever ended it."""
        with self._changed:
            self._is_broken = not self._is_closing
            self._inbox.clear()
            left = list(self._rows)
        for key in left:
            self.failed(key, "the engine's thread ended")

    def _check(self, request: Request) -> None:
        """Refuse what would break a step: an id beyond the vocabulary ends the thread, and every request with it."""
        vocab, context = self._info.vocab, self._info.context
        if not request.ids or request.max_new < 1:
            raise InvalidRequest("a request needs at least one prompt token and one new token", param="max_tokens")
        if not all(0 <= token < vocab for token in request.ids):
            raise InvalidRequest(f"prompt token ids must be from 0 to {vocab - 1}", param="prompt")
        total = len(request.ids) + request.max_new
        if total > context:
            raise ContextExceeded(f"{total} tokens asked for, and this model holds {context}", param="messages")
        if request.min_new and len(request.stop_ids) > MAX_BARRED:
            raise InvalidRequest(f"a least length goes with up to {MAX_BARRED} stop ids", param="min_tokens")
        bias = request.numbers.bias
        if len(bias) > MAX_BIAS or not all(0 <= token < vocab for token, _ in bias):
            raise InvalidRequest(f"bias takes up to {MAX_BIAS} ids from 0 to {vocab - 1}", param="logit_bias")
        if request.logprobs is not None and not 0 <= request.logprobs <= min(MAX_TOP, vocab):
            raise InvalidRequest(f"top log-probabilities go from 0 to {MAX_TOP}", param="top_logprobs")

    def _tokens(self, row: _Row, ids: tuple[int, ...]) -> Tokens:
        wanted = row.request.logprobs
        if wanted is None or self._sampler is None:
            return Tokens(ids)
        # A step makes one token a row, and the sampler's tables hold what belongs to it until the next step.
        top = (self._sampler.top(row.slot, wanted),)
        return Tokens(ids, (self._sampler.logprob(row.slot),), top)

    def _emit(self, row: _Row, event: Event) -> None:
        try:
            row.sink(event)
        except Exception:
            # A sink belongs to one request; its failure must not reach the other rows of the batch.
            log.exception("the sink of request %s failed", row.key)
            row.is_cancelled = True

    def _end(self, row: _Row, event: Event) -> None:
        """Give the row back, then say so: a caller that hears `Done` may submit at once."""
        with self._changed:
            if self._rows.pop(row.key, None) is None:
                return
            self._free.append(row.slot)
            self._changed.notify_all()
        self._emit(row, event)


def _usage(row: _Row) -> Usage:
    return Usage(prompt=len(row.request.ids), completion=row.made, cached=row.cached)
