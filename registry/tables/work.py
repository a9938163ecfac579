"""What happened and what is still to do: events and leased jobs."""

from __future__ import annotations

from sqlalchemy import JSON, Column, Index, Integer, String, Table, Text, text

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

jobs = Table(
    "jobs",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("kind", String(32), nullable=False),
    Column("key", String(200), nullable=False),
    Column("args", JSON, nullable=False, default=dict),
    Column("state", String(8), nullable=False),
    Column("tries", Integer, nullable=False, default=0),
    Column("run_after", Moment, nullable=False),
    Column("lease_owner", String(64), nullable=True),
    Column("lease_until", Moment, nullable=True),
    Column("error", Text, nullable=False, default=""),
    Column("created_at", Moment, nullable=False),
    Index(
        "uq_jobs_open_kind_key",
        "kind",
        "key",
        unique=True,
        sqlite_where=text("state IN ('queued', 'running')"),
        postgresql_where=text("state IN ('queued', 'running')"),
    ),
    Index("ix_jobs_state_run_after", "state", "run_after"),
)
