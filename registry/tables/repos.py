"""Repos, their refs and the log of what moved them."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
    text,
)

from registry.tables.meta import Id, Moment, metadata

repos = Table(
    "repos",
    metadata,
    Column("id", Id, primary_key=True),
    Column("type", String(8), nullable=False),
    Column("namespace_id", ForeignKey("namespaces.id"), nullable=False),
    Column("name", String(96), nullable=False),
    Column("name_fold", String(96), nullable=False),
    Column("visibility", String(8), nullable=False, default="public"),
    # "" is open; "auto" grants at once, "manual" waits for an owner.
    Column("gated", String(8), nullable=False, default=""),
    Column("description", Text, nullable=False, default=""),
    Column("sdk", String(32), nullable=False, default=""),
    # Settings that only clients read, such as discussionsDisabled.
    Column("options", JSON, nullable=False, default=dict),
    Column("default_branch", LargeBinary(255), nullable=False, default=b"refs/heads/main"),
    # Counts changes of refs; readers memoise ref listings by it.
    Column("refs_version", BigInteger, nullable=False, default=0),
    Column("manifest_version", BigInteger, nullable=False, default=0),
    # Grows when a prune may have lost objects that a pinned check relied on.
    Column("gc_epoch", BigInteger, nullable=False, default=0),
    Column("closure_tips", String(64), nullable=True),
    Column("git_bytes", BigInteger, nullable=False, default=0),
    Column("lfs_bytes", BigInteger, nullable=False, default=0),
    # Counts the LFS locks ever taken: the serial of the last one.
    Column("locks_made", Integer, nullable=False, default=0),
    Column("downloads", BigInteger, nullable=False, default=0),
    Column("likes", BigInteger, nullable=False, default=0),
    Column("created_at", Moment, nullable=False),
    Column("updated_at", Moment, nullable=False),
    Column("deleted_at", Moment, nullable=True),
    CheckConstraint("type IN ('model', 'dataset', 'space')", name="type"),
    CheckConstraint("visibility IN ('public', 'private')", name="visibility"),
    Index(
        "uq_repos_live_name",
        "type",
        "namespace_id",
        "name_fold",
        unique=True,
        sqlite_where=text("deleted_at IS NULL"),
        postgresql_where=text("deleted_at IS NULL"),
    ),
    # What a namespace holds is summed up when its quota is asked about.
    Index("ix_repos_namespace_id", "namespace_id"),
    # Listings page by one of these and the id, highest first.
    Index("ix_repos_type_updated_at_id", "type", "updated_at", "id"),
    Index("ix_repos_type_created_at_id", "type", "created_at", "id"),
    Index("ix_repos_type_downloads_id", "type", "downloads", "id"),
    Index("ix_repos_type_likes_id", "type", "likes", "id"),
)

# Old names of moved repos stay aliases until somebody takes the name again.
moves = Table(
    "moves",
    metadata,
    Column("type", String(8), primary_key=True),
    Column("old_fold", String(193), primary_key=True),
    Column("repo_id", ForeignKey("repos.id"), nullable=False),
    Index("ix_moves_repo_id", "repo_id"),
)

refs = Table(
    "refs",
    metadata,
    Column("repo_id", ForeignKey("repos.id"), primary_key=True),
    Column("name", LargeBinary(255), primary_key=True),
    Column("target", String(40), nullable=False),
    # What an annotated tag finally names; None for everything else.
    Column("peeled", String(40), nullable=True),
    Column("updated_at", Moment, nullable=False),
)

ref_log = Table(
    "ref_log",
    metadata,
    Column("id", Id, primary_key=True),
    Column("repo_id", ForeignKey("repos.id"), nullable=False),
    Column("name", LargeBinary(255), nullable=False),
    Column("old", String(40), nullable=False),
    Column("new", String(40), nullable=False),
    Column("forced", Boolean, nullable=False, default=False),
    Column("reason", String(8), nullable=False),
    Column("actor_id", Id, nullable=True),
    Column("token_id", Id, nullable=True),
    Column("request_id", String(128), nullable=False, default=""),
    Column("push_options", JSON, nullable=False, default=list),
    Column("at", Moment, nullable=False),
    CheckConstraint("reason IN ('push', 'api', 'merge', 'import', 'gc')", name="reason"),
    Index("ix_ref_log_repo_id_name_id", "repo_id", "name", "id"),
)

# What the card and the config of the default branch say; found by listings, rebuilt from the commit at any time.
cards = Table(
    "cards",
    metadata,
    Column("repo_id", ForeignKey("repos.id"), primary_key=True),
    Column("sha", String(40), nullable=False),
    Column("card", JSON, nullable=False, default=dict),
    Column("config", JSON, nullable=False, default=dict),
    # Tensor counts by dtype, from the safetensors headers.
    Column("tensors", JSON, nullable=False, default=dict),
    Column("library", String(64), nullable=False, default=""),
    Column("task", String(64), nullable=False, default=""),
    Column("parameters", BigInteger, nullable=False, default=0),
    # Lower-case words that `search` looks through.
    Column("text", Text, nullable=False, default=""),
)

card_tags = Table(
    "card_tags",
    metadata,
    Column("repo_id", ForeignKey("repos.id"), primary_key=True),
    Column("tag", String(128), primary_key=True),
    Column("position", Integer, nullable=False, default=0),
    Index("ix_card_tags_tag_repo_id", "tag", "repo_id"),
)
