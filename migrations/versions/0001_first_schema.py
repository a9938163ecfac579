"""The first schema: identity, repos and refs, packs, LFS objects and links, events.

Revision: 0001
Before it: an empty database
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision: str | None = None

# SQLite gives a table its rowid only for the exact type name INTEGER.
ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Make every table, those that others point to first."""
    for make in _TABLES.values():
        make()


def downgrade() -> None:
    """Drop every table, those that point to others first."""
    for name in reversed(_TABLES):
        op.drop_table(name)


def _namespaces() -> None:
    op.create_table(
        "namespaces",
        sa.Column("id", ID, nullable=False),
        sa.Column("name", sa.String(length=96), nullable=False),
        sa.Column("name_fold", sa.String(length=96), nullable=False),
        sa.Column("kind", sa.String(length=8), nullable=False),
        sa.Column("fullname", sa.String(length=200), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.CheckConstraint("kind IN ('user', 'org')", name=op.f("ck_namespaces_kind")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_namespaces")),
        sa.UniqueConstraint("name_fold", name=op.f("uq_namespaces_name_fold")),
    )


def _users() -> None:
    op.create_table(
        "users",
        sa.Column("id", ID, nullable=False),
        sa.Column("namespace_id", ID, nullable=False),
        sa.Column("email", sa.String(length=254), nullable=True),
        sa.Column("password_hash", sa.String(length=200), nullable=True),
        sa.Column("is_admin", sa.Boolean(), nullable=False),
        sa.Column("disabled_at", MOMENT, nullable=True),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(["namespace_id"], ["namespaces.id"], name=op.f("fk_users_namespace_id_namespaces")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_users")),
        sa.UniqueConstraint("namespace_id", name=op.f("uq_users_namespace_id")),
    )


def _memberships() -> None:
    op.create_table(
        "memberships",
        sa.Column("namespace_id", ID, nullable=False),
        sa.Column("user_id", ID, nullable=False),
        sa.Column("role", sa.String(length=8), nullable=False),
        sa.CheckConstraint("role IN ('read', 'write', 'admin')", name=op.f("ck_memberships_role")),
        sa.ForeignKeyConstraint(
            ["namespace_id"], ["namespaces.id"], name=op.f("fk_memberships_namespace_id_namespaces")
        ),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_memberships_user_id_users")),
        sa.PrimaryKeyConstraint("namespace_id", "user_id", name=op.f("pk_memberships")),
    )


def _tokens() -> None:
    op.create_table(
        "tokens",
        sa.Column("id", ID, nullable=False),
        sa.Column("user_id", ID, nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.Column("label", sa.String(length=100), nullable=False),
        sa.Column("role", sa.String(length=8), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("expires_at", MOMENT, nullable=True),
        sa.Column("last_used_at", MOMENT, nullable=True),
        sa.Column("revoked_at", MOMENT, nullable=True),
        sa.CheckConstraint("role IN ('read', 'write', 'admin')", name=op.f("ck_tokens_role")),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_tokens_user_id_users")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tokens")),
        sa.UniqueConstraint("hash", name=op.f("uq_tokens_hash")),
    )
    op.create_index("ix_tokens_user_id", "tokens", ["user_id"])


def _repos() -> None:
    op.create_table(
        "repos",
        sa.Column("id", ID, nullable=False),
        sa.Column("type", sa.String(length=8), nullable=False),
        sa.Column("namespace_id", ID, nullable=False),
        sa.Column("name", sa.String(length=96), nullable=False),
        sa.Column("name_fold", sa.String(length=96), nullable=False),
        sa.Column("visibility", sa.String(length=8), nullable=False),
        sa.Column("gated", sa.String(length=8), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("sdk", sa.String(length=32), nullable=False),
        sa.Column("options", sa.JSON(), nullable=False),
        sa.Column("default_branch", sa.LargeBinary(length=255), nullable=False),
        sa.Column("refs_version", sa.BigInteger(), nullable=False),
        sa.Column("manifest_version", sa.BigInteger(), nullable=False),
        sa.Column("gc_epoch", sa.BigInteger(), nullable=False),
        sa.Column("closure_tips", sa.String(length=64), nullable=True),
        sa.Column("git_bytes", sa.BigInteger(), nullable=False),
        sa.Column("lfs_bytes", sa.BigInteger(), nullable=False),
        sa.Column("downloads", sa.BigInteger(), nullable=False),
        sa.Column("likes", sa.BigInteger(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("updated_at", MOMENT, nullable=False),
        sa.Column("deleted_at", MOMENT, nullable=True),
        sa.CheckConstraint("type IN ('model', 'dataset', 'space')", name=op.f("ck_repos_type")),
        sa.CheckConstraint("visibility IN ('public', 'private')", name=op.f("ck_repos_visibility")),
        sa.ForeignKeyConstraint(["namespace_id"], ["namespaces.id"], name=op.f("fk_repos_namespace_id_namespaces")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_repos")),
    )
    _repo_indexes()


def _repo_indexes() -> None:
    op.create_index("ix_repos_type_created_at_id", "repos", ["type", "created_at", "id"])
    op.create_index("ix_repos_type_downloads_id", "repos", ["type", "downloads", "id"])
    op.create_index("ix_repos_type_likes_id", "repos", ["type", "likes", "id"])
    op.create_index("ix_repos_type_updated_at_id", "repos", ["type", "updated_at", "id"])
    op.create_index(
        "uq_repos_live_name",
        "repos",
        ["type", "namespace_id", "name_fold"],
        unique=True,
        sqlite_where=sa.text("deleted_at IS NULL"),
        postgresql_where=sa.text("deleted_at IS NULL"),
    )


def _moves() -> None:
    op.create_table(
        "moves",
        sa.Column("type", sa.String(length=8), nullable=False),
        sa.Column("old_fold", sa.String(length=193), nullable=False),
        sa.Column("repo_id", ID, nullable=False),
        sa.ForeignKeyConstraint(["repo_id"], ["repos.id"], name=op.f("fk_moves_repo_id_repos")),
        sa.PrimaryKeyConstraint("type", "old_fold", name=op.f("pk_moves")),
    )
    op.create_index("ix_moves_repo_id", "moves", ["repo_id"])


def _refs() -> None:
    op.create_table(
        "refs",
        sa.Column("repo_id", ID, nullable=False),
        sa.Column("name", sa.LargeBinary(length=255), nullable=False),
        sa.Column("target", sa.String(length=40), nullable=False),
        sa.Column("peeled", sa.String(length=40), nullable=True),
        sa.Column("updated_at", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(["repo_id"], ["repos.id"], name=op.f("fk_refs_repo_id_repos")),
        sa.PrimaryKeyConstraint("repo_id", "name", name=op.f("pk_refs")),
    )


def _ref_log() -> None:
    op.create_table(
        "ref_log",
        sa.Column("id", ID, nullable=False),
        sa.Column("repo_id", ID, nullable=False),
        sa.Column("name", sa.LargeBinary(length=255), nullable=False),
        sa.Column("old", sa.String(length=40), nullable=False),
        sa.Column("new", sa.String(length=40), nullable=False),
        sa.Column("forced", sa.Boolean(), nullable=False),
        sa.Column("reason", sa.String(length=8), nullable=False),
        sa.Column("actor_id", ID, nullable=True),
        sa.Column("token_id", ID, nullable=True),
        sa.Column("request_id", sa.String(length=128), nullable=False),
        sa.Column("push_options", sa.JSON(), nullable=False),
        sa.Column("at", MOMENT, nullable=False),
        sa.CheckConstraint("reason IN ('push', 'api', 'merge', 'import', 'gc')", name=op.f("ck_ref_log_reason")),
        sa.ForeignKeyConstraint(["repo_id"], ["repos.id"], name=op.f("fk_ref_log_repo_id_repos")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ref_log")),
    )
    op.create_index("ix_ref_log_repo_id_name_id", "ref_log", ["repo_id", "name", "id"])


def _cards() -> None:
    op.create_table(
        "cards",
        sa.Column("repo_id", ID, nullable=False),
        sa.Column("sha", sa.String(length=40), nullable=False),
        sa.Column("card", sa.JSON(), nullable=False),
        sa.Column("config", sa.JSON(), nullable=False),
        sa.Column("tensors", sa.JSON(), nullable=False),
        sa.Column("library", sa.String(length=64), nullable=False),
        sa.Column("task", sa.String(length=64), nullable=False),
        sa.Column("parameters", sa.BigInteger(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["repo_id"], ["repos.id"], name=op.f("fk_cards_repo_id_repos")),
        sa.PrimaryKeyConstraint("repo_id", name=op.f("pk_cards")),
    )


def _card_tags() -> None:
    op.create_table(
        "card_tags",
        sa.Column("repo_id", ID, nullable=False),
        sa.Column("tag", sa.String(length=128), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["repo_id"], ["repos.id"], name=op.f("fk_card_tags_repo_id_repos")),
        sa.PrimaryKeyConstraint("repo_id", "tag", name=op.f("pk_card_tags")),
    )
    op.create_index("ix_card_tags_tag_repo_id", "card_tags", ["tag", "repo_id"])


def _packs() -> None:
    op.create_table(
        "packs",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("git_sha1", sa.String(length=40), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("objects", sa.BigInteger(), nullable=False),
        sa.Column("commits", sa.BigInteger(), nullable=False),
        sa.Column("idx_oid", sa.String(length=64), nullable=False),
        sa.Column("idx_bytes", sa.BigInteger(), nullable=False),
        sa.Column("intro_oid", sa.String(length=64), nullable=False),
        sa.Column("intro_bytes", sa.BigInteger(), nullable=False),
        sa.Column("why", sa.String(length=8), nullable=False),
        sa.Column("state", sa.String(length=10), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("condemned_at", MOMENT, nullable=True),
        sa.CheckConstraint("state IN ('stored', 'live', 'condemned')", name=op.f("ck_packs_state")),
        sa.CheckConstraint("why IN ('push', 'api', 'import', 'fork', 'repack')", name=op.f("ck_packs_why")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_packs")),
    )


def _repo_packs() -> None:
    op.create_table(
        "repo_packs",
        sa.Column("repo_id", ID, nullable=False),
        sa.Column("pack_id", sa.String(length=64), nullable=False),
        sa.Column("ordinal", sa.BigInteger(), nullable=False),
        sa.Column("added_at", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(["pack_id"], ["packs.id"], name=op.f("fk_repo_packs_pack_id_packs")),
        sa.ForeignKeyConstraint(["repo_id"], ["repos.id"], name=op.f("fk_repo_packs_repo_id_repos")),
        sa.PrimaryKeyConstraint("repo_id", "pack_id", name=op.f("pk_repo_packs")),
    )
    op.create_index("ix_repo_packs_pack_id", "repo_packs", ["pack_id"])


def _pointers() -> None:
    op.create_table(
        "pointers",
        sa.Column("repo_id", ID, nullable=False),
        sa.Column("blob", sa.String(length=40), nullable=False),
        sa.Column("oid", sa.String(length=64), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("commit", sa.String(length=40), nullable=False),
        sa.ForeignKeyConstraint(["repo_id"], ["repos.id"], name=op.f("fk_pointers_repo_id_repos")),
        sa.PrimaryKeyConstraint("repo_id", "blob", name=op.f("pk_pointers")),
    )
    op.create_index("ix_pointers_repo_id_oid", "pointers", ["repo_id", "oid"])


def _lfs_objects() -> None:
    op.create_table(
        "lfs_objects",
        sa.Column("oid", sa.String(length=64), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("key", sa.String(length=200), nullable=False),
        sa.Column("kind", sa.String(length=8), nullable=False),
        sa.Column("state", sa.String(length=10), nullable=False),
        sa.Column("stored_at", MOMENT, nullable=False),
        sa.Column("condemned_at", MOMENT, nullable=True),
        sa.Column("checked_at", MOMENT, nullable=True),
        sa.CheckConstraint(
            "state IN ('stored', 'condemned', 'deleting', 'damaged')", name=op.f("ck_lfs_objects_state")
        ),
        sa.PrimaryKeyConstraint("oid", name=op.f("pk_lfs_objects")),
    )


def _lfs_links() -> None:
    op.create_table(
        "lfs_links",
        sa.Column("repo_id", ID, nullable=False),
        sa.Column("oid", sa.String(length=64), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("linked_by", ID, nullable=True),
        sa.Column("linked_at", MOMENT, nullable=False),
        sa.Column("seen_at", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(["oid"], ["lfs_objects.oid"], name=op.f("fk_lfs_links_oid_lfs_objects")),
        sa.ForeignKeyConstraint(["repo_id"], ["repos.id"], name=op.f("fk_lfs_links_repo_id_repos")),
        sa.PrimaryKeyConstraint("repo_id", "oid", name=op.f("pk_lfs_links")),
    )
    op.create_index("ix_lfs_links_oid", "lfs_links", ["oid"])


def _lfs_uploads() -> None:
    op.create_table(
        "lfs_uploads",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("repo_id", ID, nullable=False),
        sa.Column("actor_id", ID, nullable=True),
        sa.Column("oid", sa.String(length=64), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("mode", sa.String(length=10), nullable=False),
        sa.Column("key", sa.String(length=200), nullable=False),
        sa.Column("state", sa.String(length=10), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("expires_at", MOMENT, nullable=False),
        sa.CheckConstraint("state IN ('open', 'done')", name=op.f("ck_lfs_uploads_state")),
        sa.ForeignKeyConstraint(["repo_id"], ["repos.id"], name=op.f("fk_lfs_uploads_repo_id_repos")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_lfs_uploads")),
    )
    op.create_index("ix_lfs_uploads_expires_at", "lfs_uploads", ["expires_at"])
    op.create_index("ix_lfs_uploads_repo_id", "lfs_uploads", ["repo_id"])


def _lfs_locks() -> None:
    op.create_table(
        "lfs_locks",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("serial", sa.Integer(), nullable=False),
        sa.Column("repo_id", ID, nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("ref", sa.Text(), nullable=False),
        sa.Column("owner_id", ID, nullable=False),
        sa.Column("locked_at", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(["owner_id"], ["users.id"], name=op.f("fk_lfs_locks_owner_id_users")),
        sa.ForeignKeyConstraint(["repo_id"], ["repos.id"], name=op.f("fk_lfs_locks_repo_id_repos")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_lfs_locks")),
    )
    op.create_index("uq_lfs_locks_repo_id_path", "lfs_locks", ["repo_id", "path"], unique=True)
    op.create_index("uq_lfs_locks_repo_id_serial", "lfs_locks", ["repo_id", "serial"], unique=True)


def _events() -> None:
    op.create_table(
        "events",
        sa.Column("id", ID, nullable=False),
        sa.Column("at", MOMENT, nullable=False),
        sa.Column("actor_id", ID, nullable=True),
        sa.Column("act", sa.String(length=40), nullable=False),
        sa.Column("repo_id", ID, nullable=True),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("body", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_events")),
    )
    op.create_index("ix_events_repo_id_id", "events", ["repo_id", "id"])


_TABLES = {
    "namespaces": _namespaces,
    "users": _users,
    "memberships": _memberships,
    "tokens": _tokens,
    "repos": _repos,
    "moves": _moves,
    "refs": _refs,
    "ref_log": _ref_log,
    "cards": _cards,
    "card_tags": _card_tags,
    "packs": _packs,
    "repo_packs": _repo_packs,
    "pointers": _pointers,
    "lfs_objects": _lfs_objects,
    "lfs_links": _lfs_links,
    "lfs_uploads": _lfs_uploads,
    "lfs_locks": _lfs_locks,
    "events": _events,
}
