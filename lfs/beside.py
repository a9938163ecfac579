"""The hash of an upload, taken on a core of its own while another copies the same bytes to the disk's cache."""

from __future__ import annotations

import queue
import threading
from types import TracebackType

from lfs.store import Judge

# Bytes from which a piece is worth the way to a second thread.
LARGE = 256 << 10
# Pieces that the hash may be behind, so that neither thread has to wait for the other to wake up.
BEHIND = 4


class Beside:
    """Feeds a judge the pieces of one body in their order; large ones on a thread that begins with the first of them.

    The judge has seen all pieces when the block ends well. A piece that it refuses is heard of a few pieces later, or
    at the end of the block. Raises there: SizeMismatch.
    """

    def __init__(self, judge: Judge) -> None:
        self._judge = judge
        self._pieces: queue.Queue[bytes | None] = queue.Queue(BEHIND)
        self._thread: threading.Thread | None = None
        self._refused: Exception | None = None

    def __enter__(self) -> Beside:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._thread is not None:
            self._pieces.put(None)
            self._thread.join()
        if kind is None:
            self._check()

    def feed(self, piece: bytes) -> None:
        """Take the next piece, which is not changed any more; wait while too many are taken and not hashed."""
        self._check()
        if self._thread is None:
            if len(piece) < LARGE:
                self._judge.feed(piece)
                return
            self._thread = threading.Thread(target=self._run, name="hash", daemon=True)
            self._thread.start()
        self._pieces.put(piece)

    def _check(self) -> None:
        if self._refused is not None:
            raise self._refused

    def _run(self) -> None:
        while (piece := self._pieces.get()) is not None:
            if self._refused is None:
                try:
                    self._judge.feed(piece)
                except Exception as error:
                    # Whatever it is, it is the writer's to hear of, who would wait for room for ever.
                    self._refused = error
