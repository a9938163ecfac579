"""A push that was taken in, before the gate: judged, told how it stands, judged again after a wait for its uploads.

A client that leaves while its push is judged does not stop it: it stands or falls as if the client had stayed. Who
leaves while uploads are being checked has not pushed.
"""

from __future__ import annotations

import logging
import queue
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from pathlib import Path

from registry.access import Actor
from registry.awaiting import Awaiting, Wait
from registry.errors import RegistryError, StillChecked
from registry.git import pkt, receive_pack
from registry.git.receive_pack import Push, Result
from registry.policy import Refusal
from registry.receive import Origin, Outcome, Receiver, Update

log = logging.getLogger(__name__)

_KEEP_ALIVE_SECONDS = 5.0
_CONNECTIVITY = "missing necessary objects"

_Word = str | Outcome | Exception


@dataclass(frozen=True, slots=True)
class Pusher:
    """Who pushes where; `enter` asks anew whether they may, and raises if not."""

    repo_id: int
    actor: Actor
    request_id: str
    enter: Callable[[], object] = lambda: None


class Judging:
    """Brings pushes through the gate. Thread-safe.

    `workers` bound how many pushes are judged at the same time; who waits for uploads holds none of them.
    """

    def __init__(self, *, receiver: Receiver, workers: Executor, awaiting: Awaiting) -> None:
        self._receiver = receiver
        self._workers = workers
        self._awaiting = awaiting

    def answer(self, push: Push, pusher: Pusher, pack: Path | None, close: Callable[[], None]) -> Iterator[bytes]:
        """Yield messages while the push is judged, then the report; `close` is called when the pack is done with."""
        judged: Future[None] | None = None
        with self._awaiting.place() as wait:
            try:
                while True:
                    said: queue.SimpleQueue[_Word] = queue.SimpleQueue()
                    judged = self._workers.submit(self._accept, push, pusher, pack, wait, said)
                    word = yield from _heard(push, said)
                    still = word.unproven if isinstance(word, Outcome) else None
                    if still is None:
                        break
                    yield from _sat_out(push, wait, still)
            finally:
                if judged is None:
                    close()
                else:
                    judged.add_done_callback(lambda done: close())
        yield _report(push, word)

    def _accept(
        self, push: Push, pusher: Pusher, pack: Path | None, wait: Wait, said: queue.SimpleQueue[_Word]
    ) -> None:
        updates = [Update(command.name, command.old, command.new) for command in push.commands]
        origin = Origin(pusher.actor, "push", push.options, pusher.request_id)
        accept = self._receiver.accept
        try:
            if wait.begun:
                # Minutes may have passed.
                pusher.enter()
            said.put(
                accept(
                    pusher.repo_id,
                    origin,
                    updates,
                    pack,
                    atomic=push.atomic,
                    patient=wait.patient,
                    progress=said.put,
                )
            )
        except RegistryError as error:
            refusal = Refusal(error.message, error)
            said.put(Outcome(tuple(updates), None, {update.name: refusal for update in updates}))
        except Exception as error:
            said.put(error)


def _heard(push: Push, said: queue.SimpleQueue[_Word]) -> Generator[bytes, None, Outcome | Exception]:
    """Pass on what the gate says, with empty frames while it is silent; return its last word."""
    while True:
        try:
            word = said.get(timeout=_KEEP_ALIVE_SECONDS)
        except queue.Empty:
            yield pkt.KEEP_ALIVE if push.side_band else b""
            continue
        if not isinstance(word, str):
            return word
        if push.side_band and not push.quiet:
            yield receive_pack.progress(word)


def _sat_out(push: Push, wait: Wait, still: StillChecked) -> Iterator[bytes]:
    """Sleep until the gate should be asked again, saying now and then what is waited for.

    Something is yielded before each sleep, though it be nothing: then a client that has left is noticed.
    """
    while (pause := wait.pause(still)) is not None:
        if pause.line is not None and push.side_band:
            yield pkt.KEEP_ALIVE if push.quiet else receive_pack.progress(pause.line)
        else:
            yield b""
        time.sleep(pause.seconds)


def _report(push: Push, word: Outcome | Exception) -> bytes:
    if isinstance(word, Outcome):
        results = [Result(name, _reason(push, reason)) for name, reason in word.results.items()]
        return receive_pack.report(word.unpack, results, push)
    log.error("a push could not be judged", exc_info=word)
    results = [Result(command.name, "internal error") for command in push.commands]
    return receive_pack.report("internal error", results, push)


def _reason(push: Push, reason: str | None) -> str | None:
    """Say it in git's words when history is missing because the client's own is shallow."""
    if reason is not None and push.shallow and reason.startswith(_CONNECTIVITY):
        return "shallow update not allowed"
    return reason
