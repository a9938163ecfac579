"""An `Engine` of plain Python: tokens are a hash of seed and position, one thread steps all requests."""

from __future__ import annotations

import hashlib
import threading
import time
from dataclasses import dataclass

from inference.engine import Done, Failed, Info, Request, Sink, Stats, Ticket, Tokens
from inference.errors import ContextExceeded, EngineFull, InvalidRequest, Unavailable
from inference.sampling import Top, Usage


@dataclass(eq=False)
class _Row:
    ticket: Ticket
    request: Request
    sink: Sink
    made: int = 0
    is_cancelled: bool = False


class EchoEngine:
    """Holds `rows` requests; every step gives each of them one token."""

    def __init__(self, rows: int = 34, vocab: int = 512, context: int = 2048) -> None:
        self._info = Info(context, vocab, frozenset({"generate"}), 0, "echo")
        self._limit, self._made = rows, 0
        self._changed = threading.Condition()
        self._rows: list[_Row] = []
        self._is_draining = self._is_closed = False
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def info(self) -> Info:
        return self._info

    def submit(self, request: Request, sink: Sink) -> Ticket:
        info = self._info
        if not request.ids or not all(0 <= token < info.vocab for token in request.ids):
            raise InvalidRequest("bad ids")
        if len(request.ids) + request.max_new > info.context:
            raise ContextExceeded("too long")
        with self._changed:
            if self._is_draining or self._is_closed:
                raise Unavailable("closing", code="draining")
            if len(self._rows) >= self._limit:
                raise EngineFull("full", retry_after=1)
            self._made += 1
            row = _Row(Ticket(f"{request.id}#{self._made}"), request, sink)
            self._rows.append(row)
            self._changed.notify_all()
        return row.ticket

    def cancel(self, ticket: Ticket) -> None:
        with self._changed:
            for row in self._rows:
                row.is_cancelled = row.is_cancelled or row.ticket == ticket

    def stats(self) -> Stats:
        return Stats(running=len(self._rows))

    def drain(self, deadline: float) -> bool:
        with self._changed:
            self._is_draining = True
            return self._changed.wait_for(lambda: not self._rows, timeout=deadline)

    def close(self) -> None:
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._rows or self._is_closed)
                rows = list(self._rows)
            if self._is_closed:
                for row in rows:
                    self._end(row, Failed(Unavailable("closed", code="draining")))
                return
            for row in rows:
                self._step(row)
            # A model takes its time for a step; who cancels must not have to race a loop that does nothing.
            time.sleep(0.002)

    def _step(self, row: _Row) -> None:
        if row.is_cancelled:
            return self._end(row, Done("cancelled", self._usage(row)))
        token = _token(row.request, row.made, self._info.vocab)
        row.made += 1
        if token in row.request.stop_ids:
            return self._end(row, Done("stop", self._usage(row)))
        wanted = row.request.logprobs
        values = () if wanted is None else (-0.5,)
        self._emit(row, Tokens((token,), values, tuple(Top(((token, -0.5),)[:wanted]) for _ in values)))
        if row.made == row.request.max_new:
            return self._end(row, Done("length", self._usage(row)))
        return None

    def _emit(self, row: _Row, event: Tokens | Done | Failed) -> None:
        try:
            row.sink(event)
        except Exception:
            row.is_cancelled = True

    def _end(self, row: _Row, event: Done | Failed) -> None:
        with self._changed:
            self._rows.remove(row)
            self._changed.notify_all()
        self._emit(row, event)

    def _usage(self, row: _Row) -> Usage:
        return Usage(len(row.request.ids), row.made)


def _token(request: Request, position: int, vocab: int) -> int:
    key = f"{request.ids} {request.numbers.seed if request.numbers.temperature else 0} {position}"
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big") % vocab
