"""Databases for the suites of what lives in rows, too."""

from __future__ import annotations

from tests.registry.conftest import (
    emptied_database,
    emptying,
    postgres_database,
    postgres_url,
    sqlite_database,
    sqlite_template,
)

__all__ = ["emptied_database", "emptying", "postgres_database", "postgres_url", "sqlite_database", "sqlite_template"]
