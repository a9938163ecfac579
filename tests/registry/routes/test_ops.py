"""Liveness looks at nothing but the process; readiness at database, store and whether the server is stopping."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from lfs.local import LocalStore
from registry.db import Database
from registry.routes.meter import Meter
from registry.routes.ops import OpsDoor


def client(database: Database, store: LocalStore, draining: threading.Event | None = None) -> TestClient:
    door = OpsDoor(
        database=database, store=store, meter=Meter(), version="1.2.3", draining=draining or threading.Event()
    )
    return TestClient(Starlette(routes=door.routes()))


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "objects", min_free=0)


def test_a_house_in_order_is_ready(database: Database, store: LocalStore) -> None:
    asked = client(database, store)
    for _ in range(2):
        answer = asked.get("/ready")
        assert (answer.status_code, answer.json()["ready"]) == (200, True)
        assert answer.headers["cache-control"] == "no-store"


def test_without_its_database_a_server_is_alive_and_not_ready(store: LocalStore) -> None:
    database = Database("postgresql+psycopg://nobody@127.0.0.1:1/nothing")
    asked = client(database, store)
    assert asked.get("/health").status_code == 200
    answer = asked.get("/ready")
    assert (answer.status_code, answer.json()["problems"]) == (503, {"database": "busy"})
    database.dispose()


def test_without_its_store_a_server_is_not_ready(sqlite_database: Database, tmp_path: Path) -> None:
    full = LocalStore(tmp_path / "objects", min_free=1 << 60)
    assert client(sqlite_database, full).get("/ready").json()["problems"] == {"store": "no_space"}


def test_a_stopping_server_is_not_ready(sqlite_database: Database, store: LocalStore) -> None:
    draining = threading.Event()
    asked = client(sqlite_database, store, draining)
    assert asked.get("/ready").status_code == 200
    draining.set()
    assert asked.get("/ready").status_code == 503


def test_version_and_metrics_are_told(sqlite_database: Database, store: LocalStore) -> None:
    asked = client(sqlite_database, store)
    assert asked.get("/version").json() == {"name": "weightroom", "version": "1.2.3"}
    answer = asked.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert "process_resident_memory_bytes" in answer.text
