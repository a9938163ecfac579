"""What Alembic runs: it applies revisions on the connection that `registry.schema` hands over, and on no other."""

from __future__ import annotations

from alembic import context
from sqlalchemy.engine import Connection

from registry.tables import identity, objects, repos, work, xet
from registry.tables.meta import metadata

# Importing a room of tables fills the metadata.
ROOMS = (identity, repos, objects, work, xet)


def run() -> None:
    """Apply the revisions that were asked for, inside the transaction that the caller holds open."""
    connection = context.config.attributes["connection"]
    assert isinstance(connection, Connection)
    context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
    context.run_migrations()


run()
