"""Every call of a shelf in a bucket, with every request of it failing in every way a bucket or the line to it can fail.

A call is made once in peace, which tells its requests. Then it is made again with its first request failing, with its
second, and so on. Whatever happens: it ends in time with the right bytes or an error of ours, no request is made more
than three times, nothing partial lies under the final key, and the same call afterwards succeeds. Single requests that
fail once are in `tests/lfs/test_s3_faults.py`; `WEIGHTROOM_TEST_SCALE=full` brings them here too.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlsplit
from uuid import uuid4

import httpx
import pytest

from lfs.errors import LfsError, Missing, Unavailable
from lfs.s3 import shelf, writing
from lfs.s3.bucket import TRIES, Patience
from lfs.s3.shelf import S3Store
from lfs.store import ObjectStore, Span, lfs_key
from tests.faults.proxy import Fault, Plan, Proxy, answer, calm
from tests.faults.wire import Asked
from tests.services.s3 import S3Endpoint, make_bucket, moto, open_bucket

pytestmark = [pytest.mark.s3, pytest.mark.faults, pytest.mark.xdist_group("s3")]

BODY = random.Random(8).randbytes(300_000)
# Parts of this test's bucket may be as small as these.
PART, COPY_LIMIT = 100_000, 200_000
# As long as none of the parts.
SMALL = BODY[:70_001]
# Long enough for what is asked in peace by a busy machine; short, where the bucket says nothing.
PEACE, HASTE = Patience(), Patience(connect=2.0, read=0.4)
SECONDS = 30.0


@dataclass(frozen=True)
class Turn:
    """One object on its way: `store` meets the faults, `sound` does not; `source` and `small` lie there before."""

    store: S3Store
    sound: S3Store
    key: str
    source: str
    small: str

    def read(self, store: ObjectStore, key: str, span: Span | None = None) -> bytes:
        with store.open(key, span) as reader:
            return reader.read_all()

    def whole_or_absent(self) -> bool:
        """Say that nothing partial lies under the final key."""
        try:
            return self.read(self.sound, self.key) in (BODY, SMALL)
        except Missing:
            return True


def stat(turn: Turn) -> bool:
    return turn.store.stat(turn.source).size == len(BODY)


def read(turn: Turn) -> bool:
    return turn.read(turn.store, turn.source) == BODY


def read_span(turn: Turn) -> bool:
    return turn.read(turn.store, turn.source, Span(7, 200_000)) == BODY[7:200_000]


def put(turn: Turn) -> bool:
    return turn.store.put(turn.key, SMALL, len(SMALL)).sha256 == hashlib.sha256(SMALL).hexdigest()


def put_in_parts(turn: Turn) -> bool:
    return turn.store.put(turn.key, BODY, len(BODY)).sha256 == hashlib.sha256(BODY).hexdigest()


def copy(turn: Turn) -> bool:
    return turn.store.copy(turn.small, turn.key).size == len(SMALL)


def copy_in_parts(turn: Turn) -> bool:
    return turn.store.copy(turn.source, turn.key).size == len(BODY)


def upload(turn: Turn) -> bool:
    """All that an upload in parts takes, as several processes would do it."""
    session = turn.store.parts(turn.key, PART).begin()
    for number, body in enumerate((BODY[: 2 * PART], BODY[2 * PART :]), 1):
        turn.store.parts(turn.key, PART, session).put(number, body, len(body))
    sent = turn.store.parts(turn.key, PART, session).sent()
    tags = [(number, part.tag) for number, part in sorted(sent.items())]
    turn.store.parts(turn.key, PART, session).finish(tags)
    return turn.store.parts(turn.key, PART, session).finish(tags).size == len(BODY)


def give_up(turn: Turn) -> bool:
    turn.sound.parts(turn.key, PART).put(1, SMALL, len(SMALL))
    # Without its session: all that were begun for this key.
    gone = turn.store.parts(turn.key, PART)
    gone.abort()
    return not gone.sent()


def delete(turn: Turn) -> bool:
    return turn.store.delete(turn.source) is None and turn.source not in turn.sound.walk(turn.source)


def walk(turn: Turn) -> bool:
    return list(turn.store.walk(turn.source)) == [turn.source]


def sweep(turn: Turn) -> bool:
    turn.sound.parts(turn.key, PART).begin()
    return turn.store.sweep(0) >= 1


def probe(turn: Turn) -> bool:
    return turn.store.probe().enforces == "none"


def get_by_url(turn: Turn) -> bool:
    """As a client does that comes back to the same address."""
    signed = turn.store.url(turn.source, "GET", 60)
    assert signed is not None
    return persistent("GET", signed.href).content == BODY


def put_by_url(turn: Turn) -> bool:
    signed = turn.store.url(turn.key, "PUT", 60, size=len(BODY))
    assert signed is not None
    persistent("PUT", signed.href, content=BODY, headers=signed.headers)
    return turn.store.stat(turn.key).size == len(BODY)


def persistent(method: str, href: str, **more: object) -> httpx.Response:
    for left in range(TRIES, 0, -1):
        try:
            found = httpx.request(method, href, timeout=1, trust_env=False, **more).raise_for_status()  # type: ignore[arg-type]
            assert method == "PUT" or found.content == BODY, "a body that is not the object's"
            return found
        except (httpx.HTTPError, AssertionError) as error:
            if left == 1:
                raise Unavailable(str(error)) from error
    raise AssertionError


CALLS: list[Callable[[Turn], bool]] = [stat, read, read_span, put, put_in_parts, copy, copy_in_parts, upload, give_up]
CALLS += [delete, walk, sweep, probe, get_by_url, put_by_url]

INTERNAL = b"<Error><Code>InternalError</Code><Message>We encountered an internal error.</Message></Error>"
PAGE = b"<html><body><h1>Down for maintenance<br></h1></body></html>"


ALWAYS = 10**9
FULL = os.environ.get("WEIGHTROOM_TEST_SCALE") == "full"
LATE = Fault(lost=True)
FAULTS = {
    "503 three times": (answer(503), 3),
    "errors inside successes from then on": (answer(200, INTERNAL), ALWAYS),
    "a proxy's page from then on": (answer(502, PAGE, Content_Type="text/html"), ALWAYS),
    "answers cut short from then on": (Fault(down=20, end="close"), ALWAYS),
    "answers lost from then on": (LATE, ALWAYS),
    "silence once": (Fault(lost=True, end="stall"), 1),
}
if FULL:
    FAULTS |= {
        "500 once": (answer(500, INTERNAL), 1),
        "503 from then on": (answer(503), ALWAYS),
        "an error inside a success": (answer(200, INTERNAL), 1),
        "reset in the request": (Fault(up=1000), 1),
        "reset in the answer": (Fault(down=20), 1),
        "answer lost": (LATE, 1),
        "silence from then on": (Fault(lost=True, end="stall"), ALWAYS),
    }


def nth(number: int, fault: Fault, times: int) -> Plan:
    """Give requests from the `number`-th on a fault, `times` of them."""
    count = itertools.count(1)

    def plan(asked: Asked) -> Fault:
        struck = number <= next(count) < number + times
        # Only of what takes long does a bucket say that all is well before it knows.
        takes_long = asked.method == "POST" or "x-amz-copy-source" in asked.headers
        return fault if struck and (takes_long or not fault.answer.startswith(b"HTTP/1.1 200")) else Fault()

    return plan


@dataclass(frozen=True)
class Stage:
    """One call and what it meets: a bucket straight, and one behind a proxy of its own."""

    call: Callable[[Turn], bool]
    proxy: Proxy
    sound: S3Store
    patient: S3Store
    hasty: S3Store

    def turn(self, store: S3Store) -> Turn:
        """Begin anew, under keys of its own."""
        key, source, small = (
            lfs_key(hashlib.sha256(BODY).hexdigest(), each) for each in (uuid4().hex, "0" * 32, "1" * 32)
        )
        self.sound.put(source, BODY, len(BODY))
        self.sound.put(small, SMALL, len(SMALL))
        return Turn(store, self.sound, key, source, small)

    def stride(self, count: int) -> int:
        """Choose every how manieth request fails: of the many that the probe makes, and much alike, a few."""
        return 20 if self.call is probe else 2 if count > 6 else 1

    def asked(self, act: Callable[[], object]) -> Counter[tuple[str, str]]:
        """Count what an act asks of the bucket."""
        before = len(self.proxy.seen)
        act()
        return Counter(_kind(asked) for asked in self.proxy.seen[before:])


def _kind(asked: Asked) -> tuple[str, str]:
    """Tell requests apart, but not tries of one."""
    parts = urlsplit(asked.target)
    names = "&".join(sorted(dict(parse_qsl(parts.query, keep_blank_values=True))))
    return asked.method, re.sub("[0-9a-f]{32}", "…", parts.path) + "?" + names


@pytest.fixture(scope="module")
def stages() -> Iterator[list[Stage]]:
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        patch.setenv("S3_UPLOAD_PART_MIN_SIZE", "256")
        for room in (shelf, writing):
            patch.setattr(room, "PART", PART)
            patch.setattr(room, "COPY_LIMIT", COPY_LIMIT)
        # How long boto3 waits between two tries is its own affair, and that it stops after a hundred in vain.
        patch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda self, context: 0)
        patch.setattr("botocore.retries.quota.RetryQuota.acquire", lambda self, amount: True)
        endpoint = stack.enter_context(moto())
        make_bucket(endpoint, "faults")
        made = []
        for call in CALLS:
            proxy = stack.enter_context(Proxy(urlsplit(endpoint.url).port or 0))
            behind = S3Endpoint(proxy.url, endpoint.access_key, endpoint.secret_key)
            stores = [open_bucket(behind, "faults", call.__name__, patience) for patience in (PEACE, HASTE)]
            made.append(Stage(call, proxy, open_bucket(endpoint, "faults", call.__name__), *stores))
        yield made


@pytest.mark.parametrize("name", FAULTS)
def test_every_call_with_every_request_failing(stages: list[Stage], name: str) -> None:
    with ThreadPoolExecutor(len(stages)) as pool:
        wrong = [line for found in pool.map(lambda stage: suffered(stage, name), stages) for line in found]
    assert wrong == []


def suffered(stage: Stage, name: str) -> list[str]:
    """Make one call with each of its requests failing in one way; say what was not as it should be."""
    fault, times = FAULTS[name]
    stage.proxy.plan = calm
    turn = stage.turn(stage.patient)
    in_peace = stage.asked(lambda: stage.call(turn))
    wrong: list[str] = []
    most = Counter({kind: TRIES * count for kind, count in in_peace.items()})
    for number in range(1, in_peace.total() + 1, 1 if FULL else stage.stride(in_peace.total())):
        turn = stage.turn(stage.hasty if fault.end == "stall" else stage.patient)
        stage.proxy.plan = nth(number, fault, times)
        said, seconds, asked = endured(stage, turn)
        stage.proxy.plan = calm
        told = f"{stage.call.__name__} with {name}, from request {number} on: "
        if said:
            wrong.append(told + said)
        if seconds > SECONDS:
            wrong.append(told + f"it took {seconds:.1f} s")
        wrong += [
            told + f"{kind} was asked {count} times" for kind, count in asked.items() if count > max(TRIES, most[kind])
        ]
        if not turn.whole_or_absent():
            wrong.append(told + "something partial was visible")
        if again := endured(stage, turn)[0]:
            wrong.append(told + f"and once more in peace: {again}")
        if not turn.whole_or_absent():
            wrong.append(told + "something partial was visible after the call succeeded")
    return wrong


def endured(stage: Stage, turn: Turn) -> tuple[str, float, Counter[tuple[str, str]]]:
    """Make the call; return what was wrong with its end, seconds, and its requests."""
    said, began = [], time.monotonic()

    def act() -> None:
        try:
            if not stage.call(turn):
                said.append("a wrong answer")
        except LfsError as error:
            if stage.proxy.plan is calm:
                said.append(f"{type(error).__name__}: {error.message}")
        except Exception as error:
            said.append(f"not an error of ours: {error!r}")

    asked = stage.asked(act)
    return " ".join(said), time.monotonic() - began, asked
