"""What happened and what upkeep did: acts, runs of the garbage collection, findings about buckets."""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, CheckConstraint, Column, ForeignKey, Index, String, Table, Text

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

# One row per run of `gc` that changed something.
gc_runs = Table(
    "gc_runs",
    metadata,
    Column("id", Id, primary_key=True),
    Column("started_at", Moment, nullable=False),
    Column("finished_at", Moment, nullable=True),
    Column("state", String(8), nullable=False),
    Column("options", JSON, nullable=False, default=dict),
    # What it did, by name: links, objects, packs, keys, and their bytes.
    Column("counts", JSON, nullable=False, default=dict),
    CheckConstraint("state IN ('running', 'done', 'undone')", name="state"),
)

# The links that a run took away, whole, so that it can be undone while the bytes are there.
gc_unlinked = Table(
    "gc_unlinked",
    metadata,
    Column("run_id", ForeignKey("gc_runs.id"), primary_key=True),
    Column("repo_id", ForeignKey("repos.id"), primary_key=True),
    Column("oid", String(64), primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("linked_by", Id, nullable=True),
    Column("linked_at", Moment, nullable=False),
    Column("seen_at", Moment, nullable=False),
)

# What a bucket was found to enforce; asked again daily and when the address or the credentials change.
storage_probes = Table(
    "storage_probes",
    metadata,
    # SHA-256 of endpoint, bucket, prefix and access key.
    Column("id", String(64), primary_key=True),
    Column("proof", String(16), nullable=False),
    Column("details", JSON, nullable=False, default=dict),
    Column("at", Moment, nullable=False),
    CheckConstraint("proof IN ('content_sha256', 'checksum_sha256', 'none')", name="proof"),
)
