"""What happened: one row per act that changed something."""

from __future__ import annotations

from sqlalchemy import JSON, Column, Index, String, Table, Text

from registry.tables.meta import Id, Moment, metadata

# One row per act that changed something, written in the act's own transaction.
events = Table(
    "events",
    metadata,
    Column("id", Id, primary_key=True),
    Column("at", Moment, nullable=False),
    Column("actor_id", Id, nullable=True),
    Column("act", String(40), nullable=False),
    Column("repo_id", Id, nullable=True),
    Column("subject", Text, nullable=False, default=""),
    Column("body", JSON, nullable=False, default=dict),
    Index("ix_events_repo_id_id", "repo_id", "id"),
)
