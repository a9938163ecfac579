"""Sending goes on by itself, one at a time, and bears failure, death and the end of the server."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import timedelta

import pytest

from lfs.errors import Unavailable
from lfs.xet.ingest import NotSent
from registry.db import Database
from registry.routes.meter import Meter
from registry.upkeep.ingest import LEASE, Ingesting, Send
from registry.xet_ingests import MOST, PAUSES, Due
from tests.registry.linked import until
from tests.registry.test_xet_ingests import Ground, oid


@pytest.fixture
def ground(sqlite_database: Database) -> Ground:
    return Ground(sqlite_database)


def refusing(error: Exception) -> Send:
    def send(due: Due, going_on: Callable[[], bool]) -> bool:
        raise error

    return send


def test_all_that_waits_is_sent_oldest_first(ground: Ground) -> None:
    ground.link(2)
    ground.ingests.look()
    ground.moment += timedelta(seconds=1)
    ground.link(1)
    sent: list[str] = []

    def send(due: Due, going_on: Callable[[], bool]) -> bool:
        assert going_on()
        sent.append(due.oid)
        ground.by_xet(int(due.oid, 16), "declared")
        return True

    meter = Meter()
    Ingesting(ground.ingests, send, counted=meter.ingests, sent=meter.ingested.inc).run()
    assert sent == [oid(2), oid(1)]
    assert set(ground.rows().values()) == {"done"}
    told = meter.text().decode()
    for line in ('ingests{state="waiting"} 0.0', 'ingests{state="failed"} 0.0', "ingested_objects_total 2.0"):
        assert f"weightroom_xet_{line}\n" in told


@pytest.mark.parametrize("error", [NotSent("the child died"), Unavailable("later"), RuntimeError("never thought of")])
def test_a_failure_is_tried_again_and_at_last_told(
    ground: Ground, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    ground.link(1)
    ingesting = Ingesting(ground.ingests, refusing(error))
    with caplog.at_level(logging.WARNING):
        for pause in PAUSES:
            ingesting.run()
            assert "stays whole" not in caplog.text
            ground.moment += pause
        ingesting.run()
    assert f"tried {MOST} times" in caplog.text
    assert ground.ingests.counts() == {"waiting": 0, "failed": 1}
    assert str(error) in caplog.text
    assert ground.rows() == {oid(1): "failed"}


def test_what_kills_the_server_each_time_is_given_up(ground: Ground, caplog: pytest.LogCaptureFixture) -> None:
    ground.link(1)
    ground.ingests.look()
    for _ in range(MOST):
        ground.taken("a process that died")
        ground.moment += timedelta(seconds=61)

    def send(due: Due, going_on: Callable[[], bool]) -> bool:
        raise AssertionError("sent once too often")

    Ingesting(ground.ingests, send).run()
    assert ground.rows() == {oid(1): "failed"}
    assert "the server ended" in caplog.text


def test_work_under_way_keeps_its_lease_until_it_is_lost(ground: Ground) -> None:
    ground.link(1)
    ticks = [0.0]
    answers: list[bool] = []

    def send(due: Due, going_on: Callable[[], bool]) -> bool:
        for _ in range(8):
            ticks[0] += LEASE / 2
            ground.moment += timedelta(seconds=LEASE / 2)
            answers.append(going_on())
        assert ground.another().take("you", 60) is None
        ground.moment += timedelta(seconds=LEASE + 1)
        assert ground.another().take("you", 60) is not None
        ticks[0] += LEASE
        answers.append(going_on())
        return False

    Ingesting(ground.ingests, send, clock=lambda: ticks[0]).run()
    assert answers == [True] * 8 + [False]
    assert ground.row(1).lease == "you"


def test_the_end_of_the_server_stops_it_and_gives_it_back(ground: Ground) -> None:
    ground.link(1)
    begun, ended = threading.Event(), threading.Event()

    def send(due: Due, going_on: Callable[[], bool]) -> bool:
        begun.set()
        until(lambda: not going_on())
        ended.set()
        return False

    ingesting = Ingesting(ground.ingests, send)
    ingesting.start()
    assert begun.wait(10)
    ingesting.close()
    ingesting.close()
    assert ended.is_set()
    row = ground.row(1)
    assert (row.state, row.tries, row.lease, row.lease_until) == ("waiting", 0, "", None)
