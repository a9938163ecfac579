"""Databases for the suites of what lives in rows, too, and the indexes of Xet."""

from __future__ import annotations

import pytest

from tests.contracts.xet_grounds import Ground, MemoryGround, RowsGround
from tests.registry.conftest import (
    emptied_database,
    emptying,
    postgres_database,
    postgres_url,
    sqlite_database,
    sqlite_template,
)

__all__ = ["emptied_database", "emptying", "postgres_database", "postgres_url", "sqlite_database", "sqlite_template"]


@pytest.fixture(params=["memory", "sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def ground(request: pytest.FixtureRequest) -> Ground:
    if request.param == "memory":
        return MemoryGround()
    name = "sqlite_database" if request.param == "sqlite" else "emptied_database"
    return RowsGround(request.getfixturevalue(name))
