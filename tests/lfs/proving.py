"""Reads one upload back at once, without the threads and the turns that a server has for it."""

from __future__ import annotations

import time
from collections.abc import Callable

from lfs.host import Host, Upload
from lfs.reading_back import ReadingBack
from lfs.store import ObjectStore


def prove(
    upload: Upload, holder: str, *, host: Host, store: ObjectStore, clock: Callable[[], float] = time.monotonic
) -> None:
    """Prove an upload that `holder` has leased, or find that it is something else; raise what may pass."""
    reading = ReadingBack([upload], holder, host=host, store=store, clock=clock)
    reading.go_on(lambda: False)
    for _, error in reading.failed:
        raise error
