"""Who follows the filing of a shard hears of it all the time, and every refusal has a status that clients know."""

from __future__ import annotations

import inspect
import json
import threading
from collections.abc import Iterator
from functools import partial

import httpx
import pytest
from anyio import to_thread
from starlette.types import Receive, Scope, Send

from lfs import errors
from lfs.errors import Busy, LfsError, QuotaExceeded
from lfs.xet.answers import STATUS, Followed, Tell
from tests.lfs.conftest import serving

KNOWN = {400, 401, 403, 404, 410, 413, 416, 429, 503, 507}


class Filing:
    """Work that waits until it is told how to end."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.end: bool | Exception = True

    def __call__(self, tell: Tell) -> bool:
        tell(0, 3)
        assert self.go.wait(20)
        tell(3, 3)
        if isinstance(self.end, Exception):
            raise self.end
        return self.end


def lines(filing: Filing, patience: int = 3) -> Iterator[dict[str, object]]:
    """Follow a filing, which goes on after some lines."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await Followed(partial(to_thread.run_sync, filing), beat=0.01)(scope, receive, send)

    with serving(app) as url, httpx.stream("POST", url, trust_env=False) as answer:
        assert (answer.status_code, answer.headers["content-type"]) == (200, "application/x-ndjson")
        for at, line in enumerate(answer.iter_lines()):
            if at == patience:
                filing.go.set()
            yield json.loads(line)


def test_a_filing_that_takes_its_time_is_heard_of_all_the_while() -> None:
    told = list(lines(Filing(), patience=20))
    # Until a thread is found for it, there is nothing to tell.
    while told[0] == {"type": "waiting"}:
        del told[0]
    early = told[:-3]
    assert early == [{"type": "validating", "verified": 0, "total": 3}] * len(early)
    assert told[-3:] == [
        {"type": "validating", "verified": 3, "total": 3},
        {"type": "committing", "stage": "syncing"},
        {"type": "result", "result": 1},
    ]


@pytest.mark.parametrize(
    ("error", "retryable"), [(Busy("Not now."), True), (QuotaExceeded("Too much."), False), (OSError("disk"), False)]
)
def test_a_filing_that_fails_says_so_in_its_last_line(
    error: Exception, retryable: bool, caplog: pytest.LogCaptureFixture
) -> None:
    filing = Filing()
    filing.end = error
    last = list(lines(filing))[-1]
    known = isinstance(error, LfsError)
    assert last["message"] == (error.message if known else "The server failed to file this; its log says why.")
    assert (last["type"], last["retryable"]) == ("error", retryable)
    assert bool(caplog.records) is not known


def test_a_client_that_leaves_does_not_end_its_filing() -> None:
    filing = Filing()
    told = lines(filing, patience=1000)
    next(told)
    threading.Timer(0.1, filing.go.set).start()
    told.close()  # type: ignore[attr-defined]
    assert filing.go.is_set()


def test_every_error_has_a_status_that_clients_know() -> None:
    mine = {errors.BadStorage, errors.AlreadyLocked, errors.LockAbsent, errors.StoreError, errors.Denied, LfsError}
    for _, kind in inspect.getmembers(errors, inspect.isclass):
        if issubclass(kind, LfsError) and kind not in mine:
            assert next(STATUS[each] for each in kind.__mro__ if each in STATUS) in KNOWN
    assert not {405, 409, 500, 501, 502} & set(STATUS.values())
