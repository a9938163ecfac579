"""Who there is: namespaces, users, organisation members, tokens."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, CheckConstraint, Column, ForeignKey, Index, String, Table

from registry.tables.meta import Id, Moment, metadata

namespaces = Table(
    "namespaces",
    metadata,
    Column("id", Id, primary_key=True),
    Column("name", String(96), nullable=False),
    # Names differ by more than case; the folded form is what look-ups use.
    Column("name_fold", String(96), nullable=False, unique=True),
    Column("kind", String(8), nullable=False),
    Column("fullname", String(200), nullable=False, default=""),
    # Bytes that its repos may hold; None is the instance's own default.
    Column("quota", BigInteger, nullable=True),
    Column("created_at", Moment, nullable=False),
    CheckConstraint("kind IN ('user', 'org')", name="kind"),
)

users = Table(
    "users",
    metadata,
    Column("id", Id, primary_key=True),
    Column("namespace_id", ForeignKey("namespaces.id"), nullable=False, unique=True),
    Column("email", String(254), nullable=True),
    # argon2id; None means that the user has tokens and no password.
    Column("password_hash", String(200), nullable=True),
    Column("is_admin", Boolean, nullable=False, default=False),
    Column("disabled_at", Moment, nullable=True),
    Column("created_at", Moment, nullable=False),
)

memberships = Table(
    "memberships",
    metadata,
    Column("namespace_id", ForeignKey("namespaces.id"), primary_key=True),
    Column("user_id", ForeignKey("users.id"), primary_key=True),
    Column("role", String(8), nullable=False),
    CheckConstraint("role IN ('read', 'write', 'admin')", name="role"),
)

tokens = Table(
    "tokens",
    metadata,
    Column("id", Id, primary_key=True),
    Column("user_id", ForeignKey("users.id"), nullable=False),
    # SHA-256 of the token, hex; the token itself is shown once and never stored.
    Column("hash", String(64), nullable=False, unique=True),
    Column("label", String(100), nullable=False, default=""),
    Column("role", String(8), nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("expires_at", Moment, nullable=True),
    Column("last_used_at", Moment, nullable=True),
    Column("revoked_at", Moment, nullable=True),
    CheckConstraint("role IN ('read', 'write', 'admin')", name="role"),
    Index("ix_tokens_user_id", "user_id"),
)
