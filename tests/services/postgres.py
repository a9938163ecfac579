"""A PostgreSQL server for tests, the named one or this machine's; each run makes a database of its own."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator, Mapping

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import OperationalError

DEFAULT = "postgresql+psycopg://postgres@127.0.0.1:5432/postgres"


def server(environ: Mapping[str, str] = os.environ) -> URL:
    """Return the URL of a server that answers; skip aloud without one, or fail where all services are required."""
    url = make_url(environ.get("WEIGHTROOM_TEST_POSTGRES", DEFAULT))
    engine = sa.create_engine(url, poolclass=sa.NullPool, connect_args={"connect_timeout": 3})
    try:
        with engine.connect():
            return url
    except OperationalError as error:
        reason = f"no PostgreSQL at {url.render_as_string()}; set WEIGHTROOM_TEST_POSTGRES"
        if environ.get("WEIGHTROOM_REQUIRE_ALL") == "1":
            pytest.fail(f"{reason}: {error}")
        pytest.skip(reason)


@contextlib.contextmanager
def fresh_database(url: URL) -> Iterator[str]:
    """Make an empty database with a name of its own and yield its URL; drop it afterwards."""
    name = f"weightroom_test_{secrets.token_hex(6)}"
    engine = sa.create_engine(url, poolclass=sa.NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f'CREATE DATABASE "{name}"')
        # Nobody cuts this server's power; waiting for its disk would cost the tests minutes.
        connection.exec_driver_sql(f'ALTER DATABASE "{name}" SET synchronous_commit = off')
    try:
        yield url.set(database=name).render_as_string(hide_password=False)
    finally:
        with engine.connect() as connection:
            # FORCE: a test that died may have left connections behind.
            connection.exec_driver_sql(f'DROP DATABASE "{name}" WITH (FORCE)')
